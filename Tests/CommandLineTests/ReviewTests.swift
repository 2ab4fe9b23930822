import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// `blyan expert review`, from fresh text to the books.
@Suite struct ReviewCommandTests {
    private struct Report: Decodable {
        struct Gate: Decodable { let name, outcome, reason: String }
        let expert, from, parent, router, verdict, reason: String
        let gates: [Gate]
        let verdictBlock, versionBlock, clawbackBlock: String
        let takenBackMicroBly: [String: String]
    }

    private static func report(_ text: String) throws -> Report {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Report.self, from: Data(text.utf8))
    }

    private static func text(_ number: Int) -> [UInt8] {
        let lines = (0..<40).map {
            "{\"slice\":\"a\",\"text\":\"shard \(number), document \($0), number \($0 * 7919)\"}"
        }
        return Array(lines.joined(separator: "\n").utf8)
    }

    /// A home that pays for what only its structure was looked at, and then judges by what is measured.
    ///
    /// - Returns: a version with which the model is worse, or better, beyond doubt: weights are random here, so that one of
    ///   several steps is.
    private func shop(worse: Bool) throws -> (Workshop, Judge.Judgement) {
        for (part, factor) in [
            ("layer0.expert0", 1.5), ("layer0.expert0", 0.5), ("layer0.expert2", 1.5),
            ("layer0.expert2", 0.5), ("layer1.expert0", 1.5), ("layer1.expert0", 0.5),
            ("layer1.expert1", 1.5), ("layer1.expert1", 0.5),
        ] as [(String, Float)] {
            let shop = try Workshop("rewards: flat")
            try shop.edit("flat") { $0.replacing("vesting_blocks: 0", with: "vesting_blocks: 4") }
            try shop.edit("proof-of-learning") {
                $0.replacing("documents: 300", with: "documents: 40")
                    .replacing("least_documents: 128", with: "least_documents: 16")
                    .replacing("confidence_ppm: 999000", with: "confidence_ppm: 900000")
            }
            let made = try shop.submit(part, by: Workshop.key(71), factor: factor)
            try #require(made.outcome == .accept)
            let loaded = try shop.node.model(nil)
            let previous = try #require(made.candidate.header.previous)
            let evaluator = try Evaluator(
                model: loaded, blocks: [made.candidate],
                parents: [#require(try shop.node.store.block(previous))],
                shard: PoolShard(parsing: Self.text(1)), seed: .zero, threads: 1,
                cache: LossCache(), library: nil)
            let all = 0..<evaluator.documents.count
            let before = try evaluator.losses(.baseline, .reference, all)
            let after = try evaluator.losses(.candidate, .reference, all)
            let harms = zip(before, after).map { Double($1 - $0) }
            let mean = harms.reduce(0, +) / Double(harms.count)
            let variance = harms.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            let error = variance.squareRoot() / Double(harms.count)
            guard (mean > 0) == worse, abs(mean) > 3 * error else { continue }
            // A block later a quarter has vested.
            try shop.submit("layer0.expert1", by: Workshop.key(72), factor: 1.0001)
            shop.close()
            try shop.manifest("rewards: flat", gates: "[structure, proof-of-learning]")
            try shop.node.judge().adoptPolicy()
            _ = try shop.node.judge().addShard(Self.text(1))
            return (shop, made)
        }
        throw Home.Failure(description: "no step changes the loss")
    }

    @Test func aRegressionTakesBackInTheSameRecord() throws {
        let (shop, made) = try shop(worse: true)
        let part = made.candidate.header.expertName
        let author = try Workshop.key(71)
        #expect(try shop.balance(author) == 1_000_000)
        // The log has the record's blocks one after the other, and the books follow.
        shop.close()
        let text = try shop.home.succeed("expert", "review", part, "--json")
        let report = try Self.report(text)
        #expect(report.verdict == "reject" && report.reason == "proof-of-learning/worse")
        #expect(report.from == made.candidate.hash.description && report.router.isEmpty)
        #expect(report.gates.map(\.reason) == ["worse"])
        let account = Account(author).description
        #expect(report.takenBackMicroBly == [account: "500000"])
        let arrivals = try shop.node.store.blocks(.arrival).suffix(3).map(\.hash.description)
        #expect(arrivals == [report.verdictBlock, report.versionBlock, report.clawbackBlock])
        #expect(try shop.balance(author) == 500_000)
        #expect(try shop.node.ledger.balance(of: Account(author)).spendable == 500_000)
        #expect(
            try shop.node.catalog.model(named: nil).parts[part]?.description == report.parent)
        let clawback = try #require(try shop.ledger.last)
        #expect(try shop.node.auditRewards(of: clawback).differences.isEmpty)
        #expect(try shop.node.ledger.verify().failures.isEmpty)
        shop.close()
        // From either side, and by whoever has the home.
        for block in [report.verdictBlock, report.versionBlock, report.clawbackBlock] {
            let audit = try shop.home.succeed("audit", block)
            #expect(audit.contains("review    \(report.verdictBlock): reject"), "\(audit)")
            #expect(
                audit.contains(
                    "clawback  \(report.clawbackBlock): 1 transaction, compared with the review"),
                "\(audit)")
            #expect(!audit.contains("rewards   "), "\(audit)")
            #expect(audit.hasSuffix("audit     agrees\n"), "\(audit)")
        }
        #expect(try shop.home.succeed("audit", made.candidate.hash.description).contains("accept"))
        let trust = try shop.home.succeed("wallet", "trust", account)
        #expect(trust.contains("1 accepted of 1 judged"), "\(trust)")
        try shop.home.succeed("chat", "--max-tokens", "2", "hello")
        try shop.home.succeed("chain", "verify")
        try shop.home.fail(
            "expert", "review", part, naming: ["is the first version of \(part)"])
        try shop.home.fail("expert", "review", "layer7.expert0", naming: ["has no part"])
        // Forward again and judged again: there is nothing left to take back, and the first clawback still stands its audit.
        try shop.home.succeed(
            "expert", "rollback", part, "--to", made.candidate.hash.description)
        let dry = try shop.home.run("expert", "review", part)
        #expect(dry.status == 2 && dry.output.contains("there is no fresh text"), "\(dry)")
        _ = try shop.node.judge().addShard(Self.text(2))
        shop.close()
        let again = try shop.home.succeed("expert", "review", part)
        if again.contains("it is worse") {
            #expect(again.contains("clawback  none: nothing was paid for it"), "\(again)")
        }
        #expect(try shop.balance(author) == 500_000)
        shop.close()
        try shop.home.succeed("audit", report.clawbackBlock)
    }

    @Test func whatIsNotWorseStaysPaid() throws {
        let (shop, made) = try shop(worse: false)
        let part = made.candidate.header.expertName
        shop.close()
        let text = try shop.home.succeed("expert", "review", part)
        #expect(text.contains("version   1.1.0  \(made.candidate.hash)"), "\(text)")
        #expect(text.contains("verdict   it stays"), "\(text)")
        #expect(text.contains("worse if all of that is below 0"), "\(text)")
        #expect(text.contains("a: +"), "\(text)")
        let dry = try shop.home.run("expert", "review", part)
        #expect(dry.status == 2, "\(dry)")
        #expect(
            dry.output.contains("commit another with `blyan pool add FILE`"), "\(dry.output)")
        let report = try Self.report(
            shop.home.run("expert", "review", part, "--json").output)
        #expect(report.verdict == "defer" && report.reason == "no-fresh-text")
        #expect(report.verdictBlock.isEmpty && report.gates.isEmpty)
        #expect(try shop.balance(Workshop.key(71)) == 1_000_000)
        shop.close()
        let pool = try shop.home.succeed("pool", "list")
        #expect(pool.contains("1 of 32"), "\(pool)")
    }
}
