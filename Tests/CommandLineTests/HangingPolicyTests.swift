import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// A reward policy that does not return costs what it was asked about, and not the node.
@Suite(.serialized) struct HangingPolicyTests {
    private static let hour = 3_600_000

    /// A candidate that waits, and a policy that has been told nothing yet.
    ///
    /// - Parameter limit: milliseconds of a call; also of its test vectors, which a slow machine must run in time.
    private func shop(limit: Int) throws -> (Workshop, TestPolicy, Block) {
        let shop = try Workshop("rewards: payer")
        let policy = try TestPolicy(in: shop.home, limit: limit)
        let block = try shop.candidate(by: Workshop.key(71))
        try shop.node.judge().submit(block)
        return (shop, policy, block)
    }

    private func fault(_ judge: Judge, _ block: Block) -> KernelError? {
        #expect(throws: KernelError.self) { try judge.judge(block.hash) }
    }

    @Test func aHangIsAFaultThatNamesPolicyCandidateAndLimit() throws {
        let (shop, policy, block) = try shop(limit: 3000)
        let (node, author) = (try shop.node, try Workshop.key(71))
        let judge = try node.judge()
        let version = try node.catalog.model(named: nil).version?.hash
        try policy.will(.sleep)
        let start = Date()
        let first = fault(judge, block)
        #expect(Date().timeIntervalSince(start) < 60)
        for part in [
            "reward policy payer 1.0.0", "\(block.hash)", "3000 milliseconds", "no verdict",
        ] {
            #expect(first?.message.contains(part) == true, "\(first?.message ?? "")")
        }
        #expect(first?.code == .plugin && first?.hint?.contains("blyan plugin reload") == true)
        // Nothing of it is written, and the candidate waits with the fault.
        #expect(judge.candidates.queue.map(\.block) == [block])
        #expect(try judge.fault(of: #require(judge.candidates.queue.first)) == first?.message)
        #expect(try node.store.block(block.hash) == nil && judge.verdict(of: block.hash) == nil)
        #expect(try shop.ledger.isEmpty)
        #expect(try node.catalog.model(named: nil).version?.hash == version)
        // It is not asked again, whatever it would say now; what it is not needed for works.
        try policy.will(.pay)
        #expect(fault(judge, block)?.message == first?.message && !policy.isAtIt)
        let bad = try shop.candidate("layer0.expert1", factor: 50)
        try judge.submit(bad)
        #expect(try judge.judge(bad.hash).outcome == .reject)
        #expect(try node.store.verify().failures.isEmpty)
        // Another policy pays.
        try shop.manifest("rewards: flat")
        _ = try node.reloadPlugins()
        #expect(try judge.judge(block.hash).outcome == .accept)
        #expect(try judge.candidates.queue.isEmpty && shop.balance(author) == 1_000_000)
        let reward = try #require(try shop.ledger.first)
        #expect(try node.auditRewards(of: reward).differences.isEmpty)
    }

    @Test func whoStopsAnAcceptanceNeedNotWaitForThePolicy() throws {
        let (shop, policy, block) = try shop(limit: Self.hour)
        let judge = try shop.node.judge()
        try policy.will(.doze)
        let start = Date()
        Cancellation.$current.withValue(Cancellation { policy.isAtIt }) {
            let error = #expect(throws: KernelError.self) { try judge.judge(block.hash) }
            #expect(error?.code == .cancelled, "\(error?.message ?? "")")
        }
        #expect(Date().timeIntervalSince(start) < 60)
        #expect(judge.candidates.queue.map(\.deaths) == [[]])
        #expect(!FileManager.default.fileExists(atPath: shop.home.askedFile))
        #expect(fault(judge, block)?.message.contains("is still at candidate") == true)
        try policy.will(.pay)
        try shop.home.waits { try shop.node.plugins.fault(of: "payer") == nil }
        #expect(try judge.judge(block.hash).outcome == .accept)
        #expect(try shop.balance(Workshop.key(71)) == 7)
    }

    /// Nobody is kept from the ledger by a policy that computes, and what it says is of no use once another one governs.
    @Test func anotherPolicyMayGovernBeforeItReturns() throws {
        let (shop, policy, block) = try shop(limit: Self.hour)
        let (node, judge) = (try shop.node, try shop.node.judge())
        try policy.will(.doze)
        let judged = Background { try judge.judge(block.hash).outcome }
        try shop.home.waits { policy.isAtIt }
        try shop.manifest("rewards: flat")
        let reloaded = Background { try node.reloadPlugins().generation }
        #expect(try reloaded.value() == 2)
        try policy.will(.pay)
        #expect(try judged.value() == .accept)
        #expect(try shop.balance(Workshop.key(71)) == 1_000_000 && shop.ledger.count == 1)
        #expect(try node.auditRewards(of: #require(try shop.ledger.first)).differences.isEmpty)
    }

    @Test func anAuditDoesNotWaitForItEither() throws {
        let (shop, policy, block) = try shop(limit: 3000)
        let node = try shop.node
        #expect(try node.judge().judge(block.hash).outcome == .accept)
        let reward = try #require(try shop.ledger.first)
        try policy.will(.sleep)
        let error = #expect(throws: KernelError.self) { try node.auditRewards(of: reward) }
        for part in ["reward policy payer 1.0.0", "about verdict", "3000 milliseconds"] {
            #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
        }
        #expect(throws: KernelError.self) { try node.auditRewards(of: reward) }
        try policy.will(.pay)
        _ = try node.reloadPlugins()
        #expect(try node.auditRewards(of: reward).differences.isEmpty)
    }

    @Test func testVectorsThatHangAreRefused() throws {
        let (shop, policy, block) = try shop(limit: 300)
        let node = try shop.node
        try shop.manifest("rewards: flat")
        _ = try node.reloadPlugins()
        try shop.manifest("rewards: payer")
        try policy.will(.sleep, to: TestPolicy.everything)
        let refused = #expect(throws: KernelError.self) { _ = try node.reloadPlugins() }
        for part in ["reward policy payer 1.0.0", "about case 0 of", "300 milliseconds"] {
            #expect(refused?.message.contains(part) == true, "\(refused?.message ?? "")")
        }
        // What served serves on.
        #expect(node.plugins.generation == 2)
        #expect(try RewardTerms.governing(node.store)?.terms.name == "flat")
        try policy.limit(to: Self.hour)
        try policy.will(.pay)
        _ = try node.reloadPlugins()
        #expect(try node.judge().judge(block.hash).outcome == .accept)
    }

    /// One that the chain asks for and no manifest lists hangs once, not at each acceptance.
    @Test func aPolicyThatIsNotListedHangsOnce() throws {
        let (shop, policy, block) = try shop(limit: Self.hour)
        _ = try shop.node.reloadPlugins()
        shop.close()
        try shop.manifest("rewards: flat")
        try policy.limit(to: 300)
        try policy.will(.sleep, to: TestPolicy.everything)
        let judge = try shop.node.judge()
        #expect(fault(judge, block)?.message.contains("300 milliseconds") == true)
        #expect(try judge.fault(of: #require(judge.candidates.queue.first)) != nil)
        #expect(try shop.node.plugins.fault(of: "payer") != nil)
        try policy.will(.sleep, to: TestPolicy.everything)
        #expect(fault(judge, block)?.message.contains("300 milliseconds") == true)
        #expect(!policy.isAtIt)
    }

    @Test func theNodeServesAndStopsBesideAPolicyThatHangs() throws {
        for limit in [3000, Self.hour] {
            let (shop, policy, block) = try shop(limit: limit)
            shop.close()
            try policy.will(.sleep)
            let home = shop.home
            let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
            let log = home.scratch.appendingPathComponent("run.err")
            if limit == 3000 {
                _ = try home.waits(
                    for: "not judged: the reward policy payer", in: log, holder.process)
                let list = try home.succeed("candidate", "list", "--json")
                #expect(list.contains("\"state\":\"fault\"") && list.contains("3000 milliseconds"))
                let inspect = try home.run("plugin", "inspect", "payer")
                #expect(inspect.error.contains("asked nothing more"), "\(inspect.error)")
                try home.fail(
                    "candidate", "judge", "--passphrase-file", home.passphraseFile,
                    naming: ["payer 1.0.0", "\(block.hash)", "blyan plugin reload"])
            } else {
                try home.waits { policy.isAtIt }
            }
            #expect(try home.succeed("chain", "verify").contains("verified"))
            #expect(holder.end(SIGTERM) < 60)
            #expect(holder.process.terminationStatus == 0)
            #expect(!FileManager.default.fileExists(atPath: home.askedFile))
            let list = try home.succeed("candidate", "list", "--json")
            #expect(list.contains("\"state\":\"waits\""), "\(list)")
        }
    }

    /// What failed is tried again when the policy is another, without anybody asking for it.
    @Test func theNodePaysAfterAReload() throws {
        let (shop, policy, block) = try shop(limit: 3000)
        shop.close()
        try policy.will(.sleep)
        let home = shop.home
        let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
        let log = home.scratch.appendingPathComponent("run.err")
        _ = try home.waits(for: "not judged: the reward policy payer", in: log, holder.process)
        try policy.will(.pay)
        try policy.limit(to: Self.hour)
        try home.succeed("plugin", "reload")
        _ = try home.waits(for: "judged    accept \(block.hash)", in: log, holder.process)
        holder.end(SIGTERM)
        #expect(try shop.balance(Workshop.key(71)) == 7)
    }

    @Test func aSettlementThatFailsLosesNothing() throws {
        let (shop, policy, _) = try shop(limit: 3000)
        try shop.use(payer: Account(Workshop.key(72)), times: 2)
        let calls = try shop.node.versionUses().reduce(0) { $0 + $1.counts.calls }
        #expect(calls > 0)
        try policy.will(.sleep)
        let error = #expect(throws: KernelError.self) { _ = try shop.node.settleUsage() }
        #expect(error?.code == .plugin && error?.message.contains("payer 1.0.0") == true)
        #expect(try shop.ledger.isEmpty)
        shop.close()
        // In a process of its own, which ends although the call does not.
        try shop.home.fail(
            "usage", "settle", naming: ["payer 1.0.0", "3000 milliseconds", "blyan plugin reload"])
        try policy.will(.pay, amount: 5)
        try policy.limit(to: Self.hour)
        let settled = try shop.node.settleUsage()
        #expect(settled.count == 1)
        let document = try #require(settled.first?.document)
        #expect(document.entries.reduce(0) { $0 + $1.calls } == calls)
        let paid = settled.flatMap(\.rewards.values).reduce(0, +)
        #expect(paid == 5 * Int64(document.entries.count))
        #expect(try shop.node.settleUsage().isEmpty)
        #expect(try shop.node.versionUses().reduce(0) { $0 + $1.counts.calls } == calls)
    }
}
