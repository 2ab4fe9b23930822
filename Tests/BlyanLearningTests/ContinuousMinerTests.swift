import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Synchronization
import Testing

@Suite struct ContinuousMinerTests {
    /// Ends a miner in the middle.
    private struct Stop: Error {}

    private func plan(_ order: WorkOrder, text: String, steps: Int = 2) -> ContinuousMiner.Plan {
        var options = TrainingOptions(steps: steps)
        options.batch = 2
        options.sequence = 32
        options.rate = 1e-4
        return ContinuousMiner.Plan(
            model: nil, text: Array(text.utf8), textName: "text", order: order,
            training: Node.Training(options, threads: 2))
    }

    /// Too few documents for any to be held back: each expert that is trained becomes a candidate.
    private static let text = (0..<8).map { "In the beginning was the word, verse \($0)." }
        .joined(separator: "\n\n")

    /// Works until `isOver` says so; what was told.
    private func run(
        _ home: JudgedHome, _ plan: ContinuousMiner.Plan,
        until isOver: @escaping @Sendable ([ContinuousMiner.News]) -> Bool
    ) throws -> [ContinuousMiner.News] {
        let told = Mutex<[ContinuousMiner.News]>([])
        #expect(throws: Stop.self) {
            try ContinuousMiner(home.node, plan, key: home.node.signingKey()).run { news in
                let all = told.withLock {
                    $0.append(news)
                    return $0
                }
                if isOver(all) { throw Stop() }
            }
        }
        return told.withLock { $0 }
    }

    @Test func eachExpertBeginsFromWhatWasAccepted() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let first = try run(home, plan(.roundRobin, text: Self.text)) { $0.verdicts.count == 2 }
        #expect(first.verdicts.allSatisfy { $0.outcome == .accept })
        #expect(first.begun == ["layer0.expert0", "layer0.expert1"])
        let model = try home.node.model(nil).model
        for verdict in first.verdicts {
            #expect(
                model.parts[verdict.candidate.header.expertName] == verdict.candidate.hash)
        }
        // Stopped when the verdict was told: that turn is over.
        try home.reopen()
        let second = try run(home, plan(.roundRobin, text: Self.text)) { $0.verdicts.count == 2 }
        #expect(second.begun == ["layer0.expert2", "layer0.expert3"])
    }

    @Test func anInterruptedTrainingGoesOn() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let plan = plan(.roundRobin, text: Self.text, steps: 6)
        let first = try run(home, plan) { $0.steps.last == 3 }
        #expect(first.verdicts.isEmpty)
        try home.reopen()
        let second = try run(home, plan) { !$0.verdicts.isEmpty }
        #expect(second.begun == first.begun && second.resumed == [3])
        #expect(second.steps == [4, 5, 6])
    }

    @Test func theHotPathComesFirst() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let model = try home.node.model(nil)
        var sampler = try Sampler()
        _ = try model.runner.generate(
            model.runner.makeSession(capacity: 64), prompt: [5, 6, 7], sampler: &sampler,
            limit: 40, ends: []
        ) { _ in true }
        let uses = try home.node.versionUses().sorted {
            ($0.counts.calls, $0.counts.tokens) > ($1.counts.calls, $1.counts.tokens)
        }
        let told = try run(home, plan(.hotPath, text: Self.text)) { $0.begun.count == 1 }
        let top = uses.filter { $0.counts.tokens == uses.first?.counts.tokens }.map(\.expert)
        #expect(try top.contains(#require(told.begun.first)), "\(top)")
    }

    @Test func anExpertThatServesNothingIsSkipped() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        // One word over and over: most experts never see it.
        let text = Array(repeating: "river", count: 200).joined(separator: " ")
        let told = try run(home, plan(.roundRobin, text: text)) {
            !$0.skipped.isEmpty && !$0.verdicts.isEmpty
        }
        #expect(told.skipped.allSatisfy { $0.contains("no token") }, "\(told.skipped)")
        let judged = Set(told.verdicts.map(\.candidate.header.expertName))
        #expect(judged.count + told.skipped.count >= told.begun.count - 1)
    }

    @Test func whoHasNoUploadLeftWaits() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let tensors = try home.tensors()
        for i in 0..<20 {
            let judgement = try home.judge(
                tensors.mapped { _, _, _, value in value * (20 + Float(i)) })
            try #require(judgement.outcome == .reject)
        }
        let told = try run(home, plan(.roundRobin, text: Self.text)) { news in
            if case .waits = news.last { return true }
            return false
        }
        #expect(told.begun.isEmpty)
    }

    /// Half of each batch is what the model made of itself.
    @Test func rehearsalIsTrainedOn() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let model = try home.node.model(nil)
        func tensors(_ rehearsal: Int) throws -> [[Float]] {
            var training = plan(.roundRobin, text: Self.text).training
            training.options.rehearsal = rehearsal
            training.isFresh = true
            let text = try TrainingText(
                Array(Self.text.utf8), name: "text", tokenizer: model.tokenizer)
            return try home.node.train(JudgedHome.part, of: model, on: text, training) { _ in }
                .result.tensors.map(\.values)
        }
        let plain = try tensors(0)
        #expect(try tensors(0) == plain)
        let rehearsed = try tensors(512)
        #expect(rehearsed != plain)
        #expect(try tensors(512) == rehearsed)
    }
}

extension [ContinuousMiner.News] {
    fileprivate var begun: [String] {
        compactMap { if case .begins(let expert) = $0 { expert } else { nil } }
    }

    fileprivate var verdicts: [Judge.Judgement] {
        compactMap { if case .judged(let made) = $0 { made } else { nil } }
    }

    fileprivate var skipped: [String] {
        compactMap { if case .skipped(_, let why) = $0 { why } else { nil } }
    }

    fileprivate var steps: [Int] {
        compactMap { if case .training(_, .step(let made)) = $0 { made.step } else { nil } }
    }

    fileprivate var resumed: [Int] {
        compactMap { if case .training(_, .resumed(let step)) = $0 { step } else { nil } }
    }
}
