import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// A version that stands, judged again on text that it never met.
@Suite(.serialized) struct ReviewTests {
    /// The gate that decides, as the tests' homes configure it.
    static let gate = (
        name: "proof-of-learning",
        config:
            "documents: 96\n  least_documents: 16\n  delta_ppm: 500\n  floor_ppm: -300000\n  resamples: 1000"
    )
    /// What a training on the made-up language harms.
    static let harmed: [PoolShard.Document] = {
        let text = try? String(
            contentsOf: Checkpoints.sample.appendingPathComponent("validation.txt"),
            encoding: .utf8)
        return (text ?? "").split(separator: "\n").filter { $0.count > 60 }.dropFirst(64).prefix(48)
            .map { PoolShard.Document(slice: "dictionary", text: String($0)) }
    }()
    static func learned(_ seed: UInt64) -> [PoolShard.Document] {
        JudgedHome.sentences(32, seed: seed).map { PoolShard.Document(slice: "zorba", text: $0) }
    }

    private func add(_ documents: [PoolShard.Document], to home: JudgedHome) throws {
        _ = try home.node.judge().addShard(JudgedHome.shard(documents))
    }

    // MARK: Worse

    /// The gain was real on the text of then, and is a loss on the text of now.
    @Test func aVersionThatIsWorseRevertsInOneRecord() throws {
        let home = try JudgedHome()
        let original = try home.tensors().map(\.values)
        let accepted = try home.judge(home.trained(steps: 80))
        try #require(accepted.outcome == .accept, "\(accepted.reason)")
        let before = try home.node.model(nil)
        try add(Self.harmed, to: home)
        let made = try home.node.review(JudgedHome.part, model: nil)
        #expect(made.outcome == .reject && made.reason == "proof-of-learning/worse", "\(made)")
        // The last gate alone was asked, on the second shard, with the second secret.
        #expect(made.gates.map(\.name) == ["proof-of-learning"])
        let verdict = try #require(made.verdict), reverted = try #require(made.reverted)
        let document = try VerdictDocument(parsing: home.node.store.document(verdict))
        #expect(document.isReview && document.showsRegression && document.draw?.count == 2)
        #expect(document.draw?.shard == SHA256.hash(JudgedHome.shard(Self.harmed)))
        let judge = try home.node.judge()
        #expect(judge.judgements(on: try #require(document.draw?.shard)) == 1)
        // One record: verdict, version, which makes the parent current and changes nothing else, and clawback.
        let arrivals = try home.node.store.blocks(.arrival).map(\.hash)
        let clawback = try #require(made.clawback)
        #expect(arrivals.suffix(3) == [verdict.hash, reverted.hash, clawback.hash])
        #expect(try home.node.auditRewards(of: clawback).differences.isEmpty)
        let after = try home.node.model(nil)
        #expect(after.model.version?.hash == reverted.hash)
        #expect(after.model.parts[JudgedHome.part] == accepted.candidate.header.previous)
        #expect(
            after.model.parts.filter { $0.key != JudgedHome.part }
                == before.model.parts.filter { $0.key != JudgedHome.part })
        #expect(try home.node.store.verify().failures.isEmpty)
        #expect(try home.tensors().map(\.values) == original)
        // Whoever has the blocks judges again: here, after a restart, and in a copy without index and key.
        for block in [verdict, reverted, accepted.candidate] {
            #expect(try home.node.judge().audit(block).differences == [])
        }
        #expect(try home.node.regression(of: accepted.candidate)?.hash == verdict.hash)
        try home.reopen()
        try checkUpload(accepted, home)
        try checkCopy(home, [verdict, reverted])
        try checkCut(home, verdict, reverted)
        // What it went back to was imported.
        let error = #expect(throws: KernelError.self) {
            try home.node.review(JudgedHome.part, model: nil)
        }
        #expect(error?.message.contains("is the first version of layer3.expert6") == true)
    }

    /// The author uploaded one candidate, which was accepted: neither trust nor the next gate's history has another.
    private func checkUpload(_ accepted: Judge.Judgement, _ home: JudgedHome) throws {
        let verdicts = try home.node.store.blocks(.type(chain: "A", "verdict"))
        let index = try VerdictIndex(home.node.store)
        #expect(verdicts.count == 2)
        #expect(index.verdicts[accepted.candidate.hash]?.hash == accepted.verdict?.hash)
        #expect(try home.node.judge().verdict(of: accepted.candidate.hash) == accepted.verdict)
        #expect(try home.node.acceptance(of: accepted.candidate.hash)?.block == accepted.verdict)
        let author = try #require(Account(accepted.candidate.header.miner))
        #expect(try home.node.trust(of: author).trust.judged == 1)
    }

    private func checkCopy(_ home: JudgedHome, _ blocks: [Block]) throws {
        let folder = home.folder.appendingPathExtension("copy")
        defer { try? FileManager.default.removeItem(at: folder) }
        let manager = FileManager.default
        try manager.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in ["log", "payloads", "plugins", "node.yaml"] {
            try manager.copyItem(
                at: home.folder.appendingPathComponent(name),
                to: folder.appendingPathComponent(name))
        }
        let node = try Node(
            home: folder, rebuildIndex: true, threads: 1,
            passphrase: { throw KernelError(.key, "the copy has no key") }, log: { _ in })
        defer { node.close() }
        for block in blocks {
            let own = try #require(try node.store.block(block.hash))
            #expect(try node.judge().audit(own).differences == [])
        }
    }

    /// Wherever the power ended while the record was written: none of it is there, and the version stands.
    private func checkCut(_ home: JudgedHome, _ verdict: Block, _ reverted: Block) throws {
        let log = "log/records.log"
        let all = try Data(contentsOf: home.folder.appendingPathComponent(log))
        let begin = try #require(all.range(of: Data(verdict.line))).lowerBound
        let next = try #require(all.range(of: Data(reverted.line))).lowerBound
        for length in [begin + 9, next - 1, next + 9, all.count - 1, all.count] {
            let folder = home.folder.appendingPathExtension("cut")
            defer { try? FileManager.default.removeItem(at: folder) }
            let manager = FileManager.default
            try manager.createDirectory(
                at: folder.appendingPathComponent("log"), withIntermediateDirectories: true)
            for name in ["payloads", "plugins", "node.yaml"] {
                try manager.copyItem(
                    at: home.folder.appendingPathComponent(name),
                    to: folder.appendingPathComponent(name))
            }
            try all.prefix(length).write(to: folder.appendingPathComponent(log))
            let node = try Node(
                home: folder, rebuildIndex: true, threads: 1, passphrase: { [] }, log: { _ in })
            defer { node.close() }
            let isWhole = length == all.count
            #expect(try (node.store.block(verdict.hash) != nil) == isWhole)
            #expect(try (node.store.block(reverted.hash) != nil) == isWhole)
            let current = try node.catalog.model(named: nil).parts[JudgedHome.part]
            let document = try VerdictDocument(parsing: home.node.store.document(verdict))
            #expect((current == document.block.hash) == !isWhole)
        }
    }

    // MARK: Not worse

    /// It stays, and is judged once by each shard that it never met.
    @Test func aGoodVersionStaysAndFreshTextRunsOut() throws {
        let home = try JudgedHome()
        let accepted = try home.judge(home.trained())
        try #require(accepted.outcome == .accept, "\(accepted.reason)")
        let version = try #require(try home.node.model(nil).model.version)
        let none = try home.node.review(JudgedHome.part, model: nil)
        #expect(none.outcome == .defer && none.reason == Judge.Review.noFreshText)
        #expect(none.gates.isEmpty && none.verdict == nil)
        // What would be too little for the gate is not taken.
        #expect(throws: KernelError.self) {
            try add(Array(Self.learned(7).prefix(9)), to: home)
        }
        #expect(
            try home.node.review(JudgedHome.part, model: nil).reason == Judge.Review.noFreshText)
        #expect(try home.node.store.blocks(.type(chain: "A", "verdict")).count == 1)
        #expect(try home.node.model(nil).model.version?.hash == version.hash)
        // With enough of it, once for each shard.
        let other = try JudgedHome()
        let again = try other.judge(other.trained())
        for (number, seed) in [(2, 8), (3, 9)] as [(Int, UInt64)] {
            try add(Self.learned(seed), to: other)
            let made = try other.node.review(JudgedHome.part, model: nil)
            #expect(made.outcome == .accept && made.reason.isEmpty, "\(made)")
            #expect(made.reverted == nil && made.clawback == nil)
            let verdict = try #require(made.verdict)
            let document = try VerdictDocument(parsing: other.node.store.document(verdict))
            #expect(document.draw?.count == number && !document.showsRegression)
            #expect(try other.node.judge().audit(verdict).differences == [])
            #expect(
                try other.node.model(nil).model.parts[JudgedHome.part] == again.candidate.hash)
        }
        #expect(try other.node.review(JudgedHome.part, model: nil).outcome == .defer)
        #expect(try other.node.regression(of: again.candidate) == nil)
        // The next candidate is judged on the first shard, as before.
        let next = try other.judge(other.tensors().mapped { $3 * 1.001 })
        let document = try VerdictDocument(
            parsing: other.node.store.document(#require(next.verdict)))
        #expect(document.draw?.shard == SHA256.hash(JudgedHome.shard(JudgedHome.pool)))
        #expect(document.draw?.count == 4)
        #expect(try other.node.judge().audit(#require(next.verdict)).differences == [])
    }

    @Test func whatIsNoCurrentVersionIsRefused() throws {
        let home = try JudgedHome(gates: [("structure", "")])
        let first = try home.judge(home.tensors().mapped { $3 * 1.01 }).candidate
        let second = try home.judge(home.tensors().mapped { $3 * 1.01 }).candidate
        let judge = try home.node.judge()
        func refusal(_ body: () throws -> Judge.Review) -> String {
            do { return try "\(body().outcome)" } catch { return "\(error)" }
        }
        let replaced = refusal { try judge.review(first) }
        #expect(replaced.contains("is not the current version of layer3.expert6"), "\(replaced)")
        #expect(replaced.contains(second.hash.description.prefix(12)), "\(replaced)")
        let imported = refusal { try home.node.review("layer3.expert5", model: nil) }
        #expect(imported.contains("is the first version of layer3.expert5"), "\(imported)")
        #expect(
            refusal { try home.node.review("layer9.expert5", model: nil) }.contains("has no part"))
        // A gate that measures nothing cannot say that a version is worse.
        try add(Self.harmed, to: home)
        let unmeasured = refusal { try judge.review(second) }
        #expect(unmeasured.contains("structure says accept of a version"), "\(unmeasured)")
        #expect(unmeasured.contains("no upper bound"), "\(unmeasured)")
        #expect(try home.node.store.blocks(.type(chain: "A", "verdict")).count == 2)
    }

    // MARK: Pairs, and the fast path

    private static let router = "layer3.router"

    /// An expert that was accepted with its router by a gate that measures nothing: both are no good.
    private func pair(_ home: JudgedHome) throws -> (expert: Block, router: Block) {
        let router = try home.block(
            home.tensors(Self.router).mapped { $3 * 0.9 }, part: Self.router, bits: 0)
        let expert = try Contribution(
            to: home.node.model(nil), store: home.node.store, plugins: home.node.plugins
        ).block(
            JudgedHome.part, home.tensors().mapped { -$3 }, with: router,
            key: home.node.signingKey(), bits: 12, now: Int64(Date().timeIntervalSince1970 * 1000))
        let judge = try home.node.judge()
        try judge.submit(expert, router: router)
        try #require(try judge.judge(expert.hash).outcome == .accept)
        return (expert, router)
    }

    @Test(arguments: [true, false])
    func aPairRevertsTogether(isExact: Bool) throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: Self.harmed)
        let before = try home.node.model(nil).model.parts
        let pair = try pair(home)
        try home.adopt([
            ("structure", ""),
            (Self.gate.name, Self.gate.config + "\n  always_reference: \(isExact)"),
        ])
        let error = #expect(throws: KernelError.self) {
            try home.node.review(Self.router, model: nil)
        }
        #expect(error?.message.contains("came with layer3.expert6") == true)
        // No gate was told of the text when it was accepted: all of it is fresh.
        let made = try home.node.review(JudgedHome.part, model: nil)
        #expect(made.outcome == .reject && made.router == pair.router, "\(made)")
        #expect(made.gates.map(\.part) == [Self.router, ""])
        #expect(
            made.gates.last?.evidence["path"] == .string(isExact ? "reference" : "fast"))
        #expect(try home.node.model(nil).model.parts == before)
        let verdict = try #require(made.verdict)
        #expect(try home.node.judge().audit(verdict).differences == [])
        #expect(try home.node.store.verify().failures.isEmpty)
    }

    /// A router that others build on stays: what is compared is the expert alone, beside the router of now.
    @Test func anExpertWhoseRouterWasReplacedRevertsAlone() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let pair = try pair(home)
        let next = try home.judge(
            home.tensors(Self.router).mapped { $3 * 1.05 }, part: Self.router)
        try #require(next.outcome == .accept && next.candidate.header.previous == pair.router.hash)
        try home.adopt([Self.gate])
        try add(Self.harmed, to: home)
        let made = try home.node.review(JudgedHome.part, model: nil)
        #expect(made.outcome == .reject && made.router == nil, "\(made)")
        let parts = try home.node.model(nil).model.parts
        #expect(parts[JudgedHome.part] == pair.expert.header.previous)
        #expect(parts[Self.router] == next.candidate.hash)
        #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
        // The router's own version is judged by itself.
        try add(Self.learned(3), to: home)
        #expect(try home.node.review(Self.router, model: nil).outcome != .defer)
    }
}
