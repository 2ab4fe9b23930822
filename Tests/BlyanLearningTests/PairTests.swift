import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Synchronization
import Testing

/// What is judged is the pair: an expert, and the change of its layer's router that goes with it.
@Suite(.serialized) struct PairTests {
    private let router = "layer3.router"

    private func pair(
        _ home: JudgedHome, _ tensors: [ExpertFile.Tensor], by key: SigningKey? = nil,
        router change: (Float) -> Float
    ) throws -> (Block, Block) {
        let changed = try home.block(
            home.tensors(router).mapped { change($3) }, part: router, key: key, bits: 0)
        let block = try Contribution(
            to: home.node.model(nil), store: home.node.store, plugins: home.node.plugins
        ).block(
            JudgedHome.part, tensors, with: changed, key: home.node.signingKey(), bits: 12,
            now: Int64(Date().timeIntervalSince1970 * 1000))
        return (block, changed)
    }

    @Test func anExpertAndItsRouterAreAcceptedTogether() throws {
        let home = try JudgedHome()
        var n = 0
        let (block, changed) = try pair(home, home.trained()) {
            n += 1
            return $0 + (n % 7 == 0 ? 1e-3 : 0)
        }
        try home.node.judge().submit(block, router: changed)
        // Both payloads outlive a restart.
        try home.reopen()
        let judge = try home.node.judge()
        #expect(judge.candidates.queue.first?.router == changed)
        let made = try judge.judge(block.hash)
        #expect(made.outcome == .accept, "\(made.reason) \(made.gates)")
        #expect(made.gates.map(\.part) == [router, "", router, "", router, ""])
        let model = try home.node.model(nil).model
        #expect(model.parts[JudgedHome.part] == block.hash && model.parts[router] == changed.hash)
        #expect(try home.node.store.verify().failures.isEmpty)
        for block in try [block, changed, #require(made.verdict), #require(made.version)] {
            #expect(try judge.audit(block).differences == [])
        }
        // The router's next version builds on the one that came with the expert.
        let next = try home.judge(home.tensors(router).mapped { $3 * 0.999 }, part: router)
        #expect(next.outcome == .reject)
    }

    @Test func aRouterThatHarmsTakesItsExpertAlong() throws {
        let home = try JudgedHome()
        let (block, changed) = try pair(home, home.trained()) { -$0 }
        let judge = try home.node.judge()
        try judge.submit(block, router: changed)
        let made = try judge.judge(block.hash)
        #expect(made.outcome == .reject, "\(made.gates)")
        #expect(try home.node.store.block(changed.hash) == nil)
        #expect(try home.node.store.block(block.hash) == nil)
        #expect(try judge.audit(#require(made.verdict)).differences == [])
        // A gate looks at the router's bytes as well.
        let (odd, bad) = try pair(home, home.trained(steps: 5)) { $0 * 1000 }
        try judge.submit(odd, router: bad)
        let refused = try judge.judge(odd.hash)
        #expect(refused.reason == "structure/norm" && refused.gates.last?.part == router)
    }

    @Test func whatDoesNotGoTogetherIsRefused() throws {
        let home = try JudgedHome(pool: [])
        let judge = try home.node.judge()
        func refusal(_ block: Block, _ router: Block?) -> String {
            do {
                try judge.submit(block, router: router)
                return "taken"
            } catch { return "\(error)" }
        }
        let own = try home.tensors()
        let (block, changed) = try pair(home, own) { $0 * 1.01 }
        // Alone it depends on a router that stands nowhere.
        #expect(refusal(block, nil).contains("does not stand where it claims"))
        let (strange, foreign) = try pair(home, own, by: SigningKey()) { $0 * 1.01 }
        #expect(refusal(strange, foreign).contains("by the same author"))
        let other = try home.block(home.tensors("layer2.router"), part: "layer2.router", bits: 0)
        #expect(refusal(block, other).contains("what may go with"))
        let twin = try home.block(home.tensors(router).mapped { $3 * 1.02 }, part: router, bits: 0)
        #expect(refusal(block, twin).contains("does not stand where it claims"))
        #expect(refusal(block, changed) == "taken")
    }

    // MARK: Mined

    private func training(steps: Int, isWithRouter: Bool = true) -> Node.Training {
        var options = TrainingOptions(steps: steps)
        options.batch = 8
        options.sequence = 64
        options.rate = 2e-3
        return Node.Training(options, threads: 2, isWithRouter: isWithRouter)
    }

    private func text(_ home: JudgedHome) throws -> TrainingText {
        try TrainingText(
            JudgedHome.text, name: "text", tokenizer: home.node.model(nil).tokenizer)
    }

    @Test func aRouterIsMinedAlongWithItsExpert() throws {
        let home = try JudgedHome()
        let model = try home.node.model(nil)
        let (before, own) = try (home.tensors(router), home.tensors())
        let alone = try home.node.train(
            JudgedHome.part, of: model, on: text(home), training(steps: 40, isWithRouter: false)
        ) { _ in }.result
        #expect(alone.router == nil)
        let trained = try home.node.train(
            JudgedHome.part, of: model, on: text(home), training(steps: 40)
        ) { _ in }
        let found = try #require(trained.result.router)
        #expect(
            found.map(\.name) == before.map(\.name) && trained.result.tensors.count == own.count)
        #expect(found.map(\.values) != before.map(\.values))
        #expect(trained.result.tensors.map(\.values) != own.map(\.values))
        let losses = try [trained.result.before, trained.result.after].map { try #require($0) }
        #expect(losses[1] < losses[0] && trained.result.before == alone.before)
        let made = try home.node.submit(
            JudgedHome.part, trained, to: model, key: home.node.signingKey(), passphrase: nil)
        #expect(made.outcome == .accept, "\(made.reason) \(made.gates)")
        #expect(made.gates.map(\.part) == [router, "", router, "", router, ""])
        let parts = try home.node.model(nil).model.parts
        #expect(
            parts[JudgedHome.part] == made.candidate.hash
                && parts[router] != model.model.parts[router])
        #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
        // Rounded to what the router is stored as.
        let stored = try home.tensors(router).flatMap(\.values)
        #expect(zip(stored, found.flatMap(\.values)).allSatisfy { abs($0 - $1) <= 0.01 * abs($1) })
    }

    /// An interrupted training of a pair goes on with both parts, and not with what an expert alone had come to.
    @Test func aPairThatWasInterruptedGoesOn() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let model = try home.node.model(nil)
        let text = try text(home)
        struct Stop: Error {}
        func train(_ isWithRouter: Bool, until last: Int) throws -> (at: Int, Miner.Result?) {
            let at = Mutex(0)
            do {
                let result = try home.node.train(
                    JudgedHome.part, of: model, on: text,
                    training(steps: 6, isWithRouter: isWithRouter)
                ) { news in
                    if case .resumed(let step) = news { at.withLock { $0 = step } }
                    if case .step(let made) = news, made.step == last, last < 6 { throw Stop() }
                }.result
                return (at.withLock { $0 }, result)
            } catch is Stop {
                return (at.withLock { $0 }, nil)
            }
        }
        let whole = try #require(try train(true, until: 6).1)
        #expect(try train(false, until: 4).1 == nil)
        #expect(try train(true, until: 3).at == 0)
        let (at, result) = try train(true, until: 6)
        #expect(at == 3)
        #expect(result?.tensors.map(\.values) == whole.tensors.map(\.values))
        #expect(result?.router?.map(\.values) == whole.router?.map(\.values))
        #expect(try train(false, until: 6).at == 4)
    }

    @Test func whatHasNoRouterIsNamed() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let model = try home.node.model(nil)
        let error = #expect(throws: ModelError.self) {
            try home.node.train(router, of: model, on: text(home), training(steps: 1)) { _ in }
        }
        #expect(error?.message.contains("\(router) is a router itself") == true)
    }
}
