import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanServer
import Foundation
import Testing

/// `blyan audit`, which judges again and computes rewards again.
@Suite struct AuditTests {
    private struct Report: Decodable {
        struct Reward: Decodable {
            let block, policy: String
            let transactions: Int
            let agrees: Bool
            let differences: [String]
        }
        let verdictBlock, candidate, verdict: String
        let agrees: Bool
        let differences: [String]
        let rewards: [Reward]
    }

    private static func report(_ text: String) throws -> Report {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Report.self, from: Data(text.utf8))
    }

    @Test func verdictAndRewardAreShownFromEitherSide() throws {
        let shop = try Workshop("rewards: flat")
        let judgement = try shop.submit(by: Workshop.key(61))
        let reward = try #require(try shop.ledger.last)
        let verdict = try #require(judgement.verdict), version = try #require(judgement.version)
        shop.close()
        for block in [judgement.candidate, verdict, version, reward] {
            let text = try shop.home.succeed("audit", block.hash.description)
            #expect(text.contains("verdict   \(verdict.hash): accept"), "\(text)")
            #expect(
                text.contains("rewards   \(reward.hash): 1 transaction by flat 1.0.0"), "\(text)")
            #expect(text.hasSuffix("audit     agrees\n"), "\(text)")
            let report = try Self.report(
                shop.home.succeed("audit", block.hash.description, "--json"))
            #expect(report.agrees && report.verdictBlock == verdict.hash.description)
            #expect(report.candidate == judgement.candidate.hash.description)
            #expect(report.rewards.map(\.block) == [reward.hash.description])
            #expect(report.rewards.allSatisfy { $0.agrees && $0.policy == "flat" })
        }
    }

    /// Whoever was refused knows no other hash, and that block stands nowhere.
    @Test func aRejectedCandidateIsAuditedByItsOwnHash() throws {
        let shop = try Workshop("rewards: flat")
        let made = try shop.submit(by: Workshop.key(90), factor: 1000)
        try #require(made.outcome == .reject)
        shop.close()
        let hash = made.candidate.hash.description
        for name in [hash, String(hash.prefix(12))] {
            let text = try shop.home.succeed("audit", name)
            #expect(text.contains("reject structure/norm"), "\(text)")
            #expect(text.hasSuffix("audit     agrees\n"), "\(text)")
        }
    }

    /// What a node serves with says nothing about what was judged: the policy on chain A does.
    @Test func theRouterIsThatOfThePolicy() throws {
        let shop = try Workshop("rewards: flat")
        let verdict = try #require(try shop.submit().verdict).hash.description
        shop.close()
        let file = shop.home.folder.appendingPathComponent("node.yaml")
        let text = try String(contentsOf: file, encoding: .utf8)
        try Data(text.replacing("router: topk", with: "router: layer-capped").utf8).write(to: file)
        #expect(try shop.home.succeed("audit", verdict).hasSuffix("audit     agrees\n"))
        #expect(try shop.home.succeed("plugin", "reload").hasPrefix("policy     "))
        #expect(try !shop.home.succeed("plugin", "reload").contains("policy     "))
        let policy = try #require(try shop.node.judge().currentPolicy()?.policy)
        #expect(policy.router?.name == "layer-capped")
        #expect(try shop.submit(factor: 1.02).outcome == .accept)
        shop.close()
        #expect(try shop.home.succeed("audit", verdict).hasSuffix("audit     agrees\n"))
        try FileManager.default.removeItem(
            at: shop.home.folder.appendingPathComponent("plugins/topk.yaml"))
        try shop.home.fail(
            "audit", verdict, naming: ["the router topk 1.0.1", "blyan plugin trust topk"])
    }

    @Test func anAlteredAmountIsFound() throws {
        let shop = try Workshop("rewards: flat")
        let judgement = try shop.submit(by: Workshop.key(62))
        let block = try #require(try shop.ledger.last)
        guard
            case .reward(let honest)? = try LedgerDocument(shop.node.store.document(block))
                .transactions.first
        else { throw Home.Failure(description: "there is no reward") }
        // A validator that pays by its own lights: the chain takes it, since balances follow; the audit does not.
        let altered = try shop.node.ledger.append(
            [
                .reward(
                    Reward(
                        to: honest.to, amount: honest.amount + 1, vesting: honest.vesting,
                        reason: honest.reason))
            ], key: shop.node.signingKey(), time: Workshop.now)
        shop.close()
        for name in [altered.hash, judgement.candidate.hash] {
            let outcome = try shop.home.run("audit", name.description)
            #expect(outcome.status == 1, "\(outcome.error)")
            #expect(
                outcome.output.contains(
                    "reward 0 is 1000001 micro-BLY to \(honest.to) over 0 blocks, the policy gives 1000000"
                ), "\(outcome.output)")
            #expect(outcome.output.contains("audit     does not agree"), "\(outcome.output)")
            let json = try shop.home.run("audit", name.description, "--json")
            let report = try Self.report(json.output)
            #expect(json.status == 1 && !report.agrees && report.differences.isEmpty)
            #expect(report.rewards.last?.block == altered.hash.description)
            #expect(report.rewards.last?.agrees == false)
        }
        // What was paid before it stands.
        try shop.home.succeed("audit", block.hash.description)
    }

    @Test func useIsComputedAgainAndTransfersAreNot() throws {
        let shop = try Workshop("rewards: usage-quality")
        let author = try Workshop.key(63)
        try shop.submit(by: author)
        try shop.use(payer: Account(Workshop.key(64)))
        let settled = try #require(try shop.node.settleUsage().first)
        let reward = try #require(settled.reward)
        let transfer = try Transfer(
            signedBy: author, to: Account(Workshop.key(64)), amount: 1, fee: 0, nonce: 0,
            genesis: #require(shop.node.store.genesis))
        let paid = try shop.node.ledger.submit(
            [transfer], key: shop.node.signingKey(), time: Workshop.now
        ).map { try $0.get() }
        let block = try #require(try shop.ledger.last)
        #expect(paid.count == 1 && block.header.blockType == "transfer")
        shop.close()
        for name in [settled.usage.hash, reward.hash] {
            let report = try Self.report(
                shop.home.succeed("audit", name.description, "--json"))
            #expect(report.agrees && report.verdictBlock.isEmpty)
            #expect(report.rewards.map(\.policy) == ["usage-quality"])
        }
        try shop.home.fail(
            "audit", block.hash.description, naming: ["holds transfers", "chain verify"])
    }
}
