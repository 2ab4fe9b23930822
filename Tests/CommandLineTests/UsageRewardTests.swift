import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// From tokens that experts served to figures, blocks and payments.
@Suite struct UsageRewardTests {
    @Test func ownUseIsCountedAndNotPaid() throws {
        let shop = try Workshop("rewards: usage-quality")
        try shop.use(payer: nil, times: 3)
        let uses = try shop.node.versionUses()
        #expect(!uses.isEmpty && uses.allSatisfy { $0.isCurrent && $0.paidCalls == 0 })
        // A request is one call of each expert that served it, whatever its tokens.
        #expect(uses.map(\.counts.calls).max() == 3)
        #expect(uses.allSatisfy { $0.counts.calls <= 3 && $0.counts.tokens >= $0.counts.calls })
        #expect(uses.allSatisfy { $0.counts.loads == 1 && $0.counts.steps >= 1 })
        let settled = try shop.node.settleUsage()
        try #require(settled.count == 1)
        #expect(settled[0].reward == nil && settled[0].rewards.isEmpty)
        #expect(settled[0].document.entries.count == uses.count)
        #expect(try shop.ledger.map(\.header.blockType) == ["usage"])
        #expect(try shop.node.settleUsage().isEmpty)
        #expect(try shop.node.versionUses().map(\.counts.calls) == uses.map(\.counts.calls))
    }

    @Test func whatOthersPayForIsPaidToTheAuthor() throws {
        let shop = try Workshop("rewards: usage-quality")
        let author = try Workshop.key(51)
        let block = try shop.submit(by: author).candidate
        let importer = try Account(shop.node.signingKey())
        // The author's own calls, the importer's, and those of a third.
        try shop.use(payer: Account(author), times: 2)
        try shop.use(payer: importer, times: 4)
        let payer = Account(try Workshop.key(52))
        try shop.use(payer: payer, times: 5)
        let settled = try #require(try shop.node.settleUsage().first)
        let entry = try #require(settled.document.entries.first { $0.block == block.hash })
        #expect(entry.paid.count == 3 && entry.calls == 11 && entry.quality == 0)
        guard case .usage(let use)? = entry.event(author: Account(author), time: 9) else {
            Issue.record("nothing counts")
            return
        }
        #expect(use.calls == 9 && Set(use.payers) == [importer, payer])
        let reward = try #require(settled.reward)
        #expect(reward.header.dependsOn.contains(settled.usage.hash))
        // Nine hundredths of the base times at most 2, as soon as it is within two seconds.
        let earned = try shop.balance(author)
        #expect(earned > 0 && earned <= 180_000 && settled.rewards[Account(author)] == earned)
        let audit = try shop.node.auditRewards(of: reward)
        #expect(audit.differences.isEmpty, "\(audit.differences)")
        // The same after another policy governs, and from the chain alone.
        try shop.manifest("rewards: flat")
        _ = try shop.node.reloadPlugins()
        shop.close()
        try FileManager.default.removeItem(at: shop.home.folder.appendingPathComponent("usage"))
        let block2 = try #require(try shop.node.store.block(reward.hash))
        #expect(try shop.node.auditRewards(of: block2).differences.isEmpty)
        #expect(try shop.node.ledger.verify().failures.isEmpty)
    }

    @Test func anInterruptedSettlementIsEndedOnce() throws {
        let shop = try Workshop("rewards: usage-quality")
        let payer = Account(try Workshop.key(53))
        try shop.use(payer: payer)
        // Begun, and then the process died: before the record, and after it.
        let document = try #require(
            try shop.node.uses.beginSettlement(time: Workshop.now) { _ throws(KernelError) in 0 })
        try shop.use(payer: payer)
        shop.close()
        let first = try shop.node.settleUsage()
        #expect(first.count == 2 && first.first?.document == document)
        let again = try #require(
            try { () throws in
                try shop.use(payer: payer)
                return try shop.node.uses.beginSettlement(time: Workshop.now) {
                    _ throws(KernelError) in 0
                }
            }())
        _ = try shop.node.ledger.settle(
            again.document, dependsOn: [], key: shop.node.signingKey(), time: again.time
        ) { _ in [] }
        let height = try shop.node.store.next(on: "C").index
        shop.close()
        #expect(try shop.node.settleUsage().isEmpty)
        #expect(try shop.node.store.next(on: "C").index == height)
    }

    @Test func commandsTellTheFigures() throws {
        let shop = try Workshop("rewards: usage-quality")
        try shop.use(payer: Account(Workshop.key(54)))
        let part = try #require(try shop.node.versionUses().first).expert
        shop.close()
        let home = shop.home
        let top = try home.succeed("expert", "top", "-n", "2").split(separator: "\n")
        #expect(top.count == 3 && top[0].contains("hit rate"))
        let stats = try home.succeed("expert", "stats", part)
        #expect(stats.contains(part) && stats.contains("1.0.0"))
        struct Entry: Decodable {
            let model, expert, block, version: String
            let current: Bool
            let calls, paidCalls, tokens, milliseconds, qualityPpm, lastUse: Int64
            let hitRatePpm: Int64?
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let entries = try decoder.decode(
            [Entry].self, from: Data(home.succeed("expert", "stats", part, "--json").utf8))
        try #require(entries.count == 1)
        #expect(entries[0].expert == part && entries[0].current)
        #expect(entries[0].calls == 1 && entries[0].paidCalls == 1 && entries[0].lastUse > 0)
        try home.fail("expert", "stats", "layer77.expert1", naming: ["has no part"])
        try home.fail("expert", "top", "-n", "0", naming: ["above 0"])
        let settled = try home.succeed("usage", "settle")
        #expect(settled.contains("paid      ") && settled.contains("reward    "), "\(settled)")
        #expect(try home.succeed("usage", "settle").contains("nothing was used"))
        #expect(try home.succeed("usage", "settle", "--json") == "[]\n")
        try home.succeed("chain", "verify")
        try home.succeed("chain", "check", "--read-data")
        // What is damaged is said, with what mends it, and stops nothing else.
        for name in try FileManager.default.contentsOfDirectory(
            atPath: home.folder.path + "/usage") where name.hasPrefix("CURRENT")
        {
            try Data("garbage".utf8).write(
                to: home.folder.appendingPathComponent("usage/\(name)"))
        }
        try home.fail("expert", "top", naming: ["usage counts cannot be opened", "remove "])
        try home.succeed("chat", "--max-tokens", "2", "hello")
    }

    @Test func aReloadSaysWhichPolicyGoverns() throws {
        let shop = try Workshop("rewards: flat")
        let text = try shop.home.succeed("plugin", "reload")
        #expect(text.contains("rewards   flat 1.0.0") && text.contains("from block 0"), "\(text)")
        try shop.manifest("rewards: improvement")
        #expect(
            try shop.home.run("status").error.contains("governs; "))
        let json = try shop.home.succeed("plugin", "reload", "--json")
        #expect(json.contains("\"rewards\":\"improvement\""), "\(json)")
        let policies = try shop.node.store.blocks(.type(chain: "A", "policy"))
        #expect(
            policies.compactMap { $0.header.metadata["name"]?.string } == ["flat", "improvement"])
        shop.close()
        try shop.manifest("rewards: structure")
        try shop.home.fail("plugin", "reload", naming: ["declares the gate", "lists it as reward"])
    }
}
