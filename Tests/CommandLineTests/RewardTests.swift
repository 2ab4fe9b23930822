import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Rewards from the verdict to the books, and back.
@Suite struct RewardTests {
    private static let part = "layer0.expert0"

    @Test func anAcceptedCandidateIsPaidInTheSameRecord() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(41)
        let judgement = try shop.submit(by: author)
        #expect(judgement.outcome == .accept)
        let verdict = try #require(judgement.verdict)
        let reward = try #require(try shop.ledger.last)
        #expect(try shop.ledger.count == 1 && shop.balance(author) == 1_000_000)
        #expect(reward.header.dependsOn.contains(verdict.hash))
        #expect(reward.header.dependsOn.contains(judgement.candidate.hash))
        // One after the other in the log, as one record has them.
        let arrivals = try shop.node.store.blocks(.arrival).map(\.hash)
        #expect(
            arrivals.suffix(4) == [
                judgement.candidate.hash, verdict.hash, try #require(judgement.version).hash,
                reward.hash,
            ])
        let audit = try shop.node.auditRewards(of: reward)
        #expect(audit.differences.isEmpty && audit.transactions == 1)
        #expect(audit.terms?.name == "flat" && audit.library == audit.libraryHere)
        // A rejected one is paid by nobody.
        let rejected = try shop.submit(by: author, factor: 50)
        #expect(rejected.outcome == .reject)
        #expect(try shop.ledger.count == 1)
        #expect(try shop.node.ledger.verify().failures.isEmpty)
        // What was computed stands after the home was opened again.
        shop.close()
        #expect(try shop.balance(author) == 1_000_000)
    }

    @Test func withoutAPolicyOrAGainNobodyIsPaid() throws {
        for rewards in ["", "rewards: improvement", "rewards: usage-quality"] {
            let shop = try Workshop(rewards)
            #expect(try shop.submit().outcome == .accept)
            #expect(try shop.ledger.isEmpty)
        }
    }

    @Test func noPaymentIsAboveABillionBLY() throws {
        let shop = try Workshop("rewards: payer")
        let policy = try TestPolicy(in: shop.home)
        let (author, limit) = (try Workshop.key(76), RewardPlugin.amountLimit)
        let block = try shop.candidate(by: author)
        let judge = try shop.node.judge()
        try judge.submit(block)
        for amount in [limit + 1, Int64.max, 0, -1] {
            try policy.will(.pay, amount: amount)
            let error = #expect(throws: KernelError.self) { try judge.judge(block.hash) }
            #expect(error?.code == .plugin)
            for part in ["payer pays \(amount) micro-BLY", "no such payment can be"] {
                #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
            }
            #expect(try shop.ledger.isEmpty && judge.candidates.queue.map(\.block) == [block])
            #expect(try judge.fault(of: #require(judge.candidates.queue.first)) == error?.message)
        }
        try policy.will(.pay, amount: limit)
        #expect(try judge.judge(block.hash).outcome == .accept)
        #expect(try shop.balance(author) == 1_000_000_000_000_000)
    }

    /// The gain is that of the last gate that measured, the lineage that of chain B without the import.
    @Test func thePolicyIsToldGainAndLineage() throws {
        let shop = try Workshop("rewards: flat")
        let keys = try (1...3).map { try Workshop.key(UInt8($0)) }
        var last: Judge.Judgement?
        for key in keys { last = try shop.submit(by: key) }
        let judgement = try #require(last)
        let bare = try VerdictDocument(
            parsing: shop.node.store.document(#require(judgement.verdict)))
        #expect(Node.gain(bare) == nil)
        let document = try Workshop.document(
            bare,
            gates: [
                ["improvement_ppb": .int(1), "lower_ppb": .int(1), "delta_ppb": .int(1)],
                [
                    "improvement_ppb": .int(9_000_000), "lower_ppb": .int(7_654_321),
                    "delta_ppb": .int(2_000_000),
                ],
                ["lower_ppb": .int(3)],
            ])
        // More than all of a loss is no measurement.
        let odd = try Workshop.document(
            bare,
            gates: [
                ["improvement_ppb": .int(1), "lower_ppb": .int(1), "delta_ppb": .int(1)],
                [
                    "improvement_ppb": .int(1_000_000_001), "lower_ppb": .int(5),
                    "delta_ppb": .int(1),
                ],
                [
                    "improvement_ppb": .int(5), "lower_ppb": .int(1_000_000_001),
                    "delta_ppb": .int(1),
                ],
            ])
        #expect(Node.gain(odd) == RewardEvent.Gain(improvement: 1, lower: 1, delta: 1))
        let event = try shop.node.acceptance(judgement.candidate, document)
        let gain = RewardEvent.Gain(improvement: 9_000_000, lower: 7_654_321, delta: 2_000_000)
        #expect(gain.quality == 7654)
        #expect(
            event
                == .accepted(
                    RewardEvent.Acceptance(
                        author: Account(keys[2]), lineage: [Account(keys[1]), Account(keys[0])],
                        gain: gain)))
    }

    /// The whole way: held-out text, the gate's evidence, the policy, the books.
    @Test func aMeasuredGainIsPaidInProportion() throws {
        let shop = try Workshop("rewards: improvement", gates: "[proof-of-learning]")
        // Weights are random here, so that half of all steps are gains of some size.
        try shop.edit("proof-of-learning") {
            $0.replacing("delta_ppm: 1500", with: "delta_ppm: 1")
                .replacing("documents: 300", with: "documents: 24")
                .replacing("least_documents: 128", with: "least_documents: 16")
                .replacing("confidence_ppm: 990000", with: "confidence_ppm: 500000")
                .replacing("floor_ppm: -20000", with: "floor_ppm: -1000000")
        }
        let lines = (0..<40).map {
            "{\"slice\":\"a\",\"text\":\"document \($0) of the held-out text, number \($0 * 7919)\"}"
        }
        _ = try shop.node.judge().addShard(Array(lines.joined(separator: "\n").utf8))
        let author = try Workshop.key(40)
        var accepted: Judge.Judgement?
        for factor in [0.5, 0.7, 1.3, 1.6, 0.2, 2] as [Float] where accepted == nil {
            let judgement = try shop.submit(by: author, factor: factor)
            if judgement.outcome == .accept { accepted = judgement }
        }
        let judgement = try #require(accepted)
        let verdict = try VerdictDocument(
            parsing: shop.node.store.document(#require(judgement.verdict)))
        let gain = try #require(Node.gain(verdict))
        #expect(gain.delta == 1000 && gain.lower > 1000)
        // 10 BLY a delta, at most 20 deltas.
        #expect(try shop.balance(author) == 10_000_000 * min(gain.lower, 20_000) / 1000)
        #expect(try shop.node.ledger.balance(of: Account(author)).spendable < 10_000_000)
        #expect(try shop.node.quality(of: judgement.candidate.hash) == gain.quality)
        let reward = try #require(try shop.ledger.last)
        #expect(try shop.node.auditRewards(of: reward).differences.isEmpty)
    }

    @Test func theOperatorSwapsThePolicyAndOldRewardsStandTheirAudit() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(42)
        try shop.submit(by: author)
        let before = try #require(try shop.ledger.last)
        // The same policy with another amount is another policy.
        try shop.edit("flat") {
            $0.replacing("amount_micro_bly: 1000000", with: "amount_micro_bly: 5")
        }
        try shop.submit(by: author)
        #expect(try shop.balance(author) == 2_000_000)
        _ = try shop.node.reloadPlugins()
        try shop.submit(by: author)
        #expect(try shop.balance(author) == 2_000_005)
        let (_, terms) = try #require(try RewardTerms.governing(shop.node.store))
        #expect(terms.first == 2 && terms.config["amount_micro_bly"] == .int(5))
        // Nothing to say, nothing is written.
        let height = try shop.node.store.next(on: "A").index
        _ = try shop.node.reloadPlugins()
        #expect(try shop.node.store.next(on: "A").index == height)
        try shop.manifest("")
        _ = try shop.node.reloadPlugins()
        try shop.submit(by: author)
        #expect(try shop.balance(author) == 2_000_005 && shop.ledger.count == 3)
        for block in try shop.ledger {
            let audit = try shop.node.auditRewards(of: block)
            #expect(audit.differences.isEmpty, "\(audit.differences)")
        }
        #expect(before.header.index == 0)
    }

    @Test func theChainWinsOverTheManifestUntilTheReload() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(43)
        try shop.submit(by: author)
        shop.close()
        try shop.manifest("rewards: improvement")
        _ = try shop.node
        #expect(shop.notes.contains { $0.contains("flat 1.0.0") && $0.contains("governs") })
        try shop.submit(by: author)
        #expect(try shop.balance(author) == 2_000_000)
        let failed = #expect(throws: KernelError.self) {
            try shop.edit("improvement") { $0.replacing("cap_deltas: 20", with: "cap_deltas: 0") }
            _ = try shop.node.reloadPlugins()
        }
        #expect(failed?.message.contains("cap_deltas") == true)
        #expect(try RewardTerms.governing(shop.node.store)?.terms.name == "flat")
        try shop.edit("improvement") { $0.replacing("cap_deltas: 0", with: "cap_deltas: 20") }
        _ = try shop.node.reloadPlugins()
        #expect(try RewardTerms.governing(shop.node.store)?.terms.name == "improvement")
        shop.close()
        _ = try shop.node
        #expect(!shop.notes.contains { $0.contains("governs") }, "\(shop.notes)")
    }

    @Test func anAuditDisagreesWithWhatDoesNotFollow() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(44)
        try shop.submit(by: author)
        let node = try shop.node
        let block = try #require(try shop.ledger.last)
        let document = try LedgerDocument(node.store.document(block))
        guard case .reward(let honest)? = document.transactions.first else { return }
        func forged(_ change: (Account, Int64, Int64), verdict: Digest?? = nil) throws -> [String] {
            let reason = Reason(
                blocks: honest.reason.blocks, verdict: verdict ?? honest.reason.verdict,
                policy: honest.reason.policy)
            let reward = Reward(to: change.0, amount: change.1, vesting: change.2, reason: reason)
            return try node.auditRewards(
                of: node.ledger.append(
                    [.reward(reward)], key: node.signingKey(), time: Workshop.now)
            ).differences
        }
        let other = Account(try Workshop.key(45))
        // Paid once already, and more than the policy gives, to somebody else, otherwise vesting.
        #expect(try forged((honest.to, 1_000_000, 0)).count == 1)
        #expect(try forged((honest.to, 1_000_001, 0)).count > 2)
        #expect(try forged((other, 1_000_000, 0)).contains { $0.contains("policy gives") })
        #expect(try forged((honest.to, 1_000_000, 1)).contains { $0.contains("over 1 blocks") })
        // For a candidate that was rejected.
        let rejected = try #require(try shop.submit(by: author, factor: 50).verdict)
        let found = try forged((honest.to, 1_000_000, 0), verdict: rejected.hash)
        #expect(found.contains { $0.contains("1 rewards, the policy gives 0") }, "\(found)")
        // By a policy that no longer governs.
        try shop.edit("flat") { $0.replacing("vesting_blocks: 0", with: "vesting_blocks: 9") }
        _ = try node.reloadPlugins()
        #expect(
            try forged((honest.to, 1_000_000, 0)).contains { $0.contains("another reward policy") })
    }

    // MARK: Going back

    @Test func aRegressionTakesBackWhatHasNotVested() throws {
        let shop = try Workshop("rewards: flat")
        try shop.edit("flat") { $0.replacing("vesting_blocks: 0", with: "vesting_blocks: 4") }
        let author = try Workshop.key(46)
        let judgement = try shop.submit(by: author)
        let node = try shop.node
        let parent = try #require(judgement.candidate.header.previous)
        // Evidence that shows no regression: within the noise, or for the version.
        _ = try shop.verdict(on: judgement.candidate, upper: 0)
        _ = try shop.verdict(on: judgement.candidate, upper: -7, outcome: "accept")
        #expect(try node.regression(of: judgement.candidate) == nil)
        let verdict = try shop.verdict(on: judgement.candidate, upper: -1)
        #expect(try node.regression(of: judgement.candidate)?.hash == verdict.hash)
        // A block later a quarter has vested.
        try shop.submit("layer0.expert1", by: Workshop.key(47))
        let height = node.store.next(on: "C").index
        let back = try node.rollback(Self.part, model: nil)
        #expect(back.to.hash == parent && back.verdict == verdict.hash)
        #expect(height == 2 && back.clawback?.header.index == 2)
        #expect(try shop.balance(author) == 500_000)
        #expect(try node.ledger.balance(of: Account(author)).spendable == 500_000)
        #expect(try node.catalog.model(named: nil).parts[Self.part] == parent)
        let arrivals = try node.store.blocks(.arrival).map(\.hash)
        #expect(arrivals.suffix(2) == [back.version.hash, try #require(back.clawback).hash])
        let audit = try node.auditRewards(of: #require(back.clawback))
        #expect(audit.differences.isEmpty && audit.transactions == 1)
        #expect(node.ledger.verify().failures.isEmpty)
        // Forward again: the same verdict takes nothing twice.
        let again = try node.rollback(Self.part, model: nil, to: judgement.candidate.hash)
        #expect(again.clawback == nil)
        let third = try node.rollback(Self.part, model: nil)
        #expect(third.clawback == nil && third.verdict == verdict.hash)
        #expect(try shop.balance(author) == 500_000)
        // Models are served from there.
        _ = try node.model(nil)
    }

    /// What was paid for another version is out of a verdict's reach, though the ledger itself cannot know.
    @Test func anAuditDisagreesWithAClawbackOfSomethingElse() throws {
        let shop = try Workshop("rewards: flat")
        try shop.edit("flat") { $0.replacing("vesting_blocks: 0", with: "vesting_blocks: 9") }
        let judged = try shop.submit(by: Workshop.key(46)).candidate
        let other = try Workshop.key(47)
        try shop.submit("layer0.expert1", by: other)
        let verdict = try shop.verdict(on: judged, upper: -1)
        let node = try shop.node
        let honest = try node.clawbacks(of: judged, because: verdict)
        guard case .clawback(let own)? = honest.first, honest.count == 1 else {
            Issue.record("\(honest)")
            return
        }
        let forged = Clawback(
            from: Account(other), block: own.block + 1, transaction: 0, reason: own.reason)
        for (clawback, words) in [(forged, "was not paid for version \(judged.hash)"), (own, nil)] {
            let block = try node.ledger.append(
                [.clawback(clawback)], key: node.signingKey(), time: Workshop.now)
            let found = try node.auditRewards(of: block).differences
            #expect(found.count == (words == nil ? 0 : 1), "\(found)")
            if let words { #expect(found.first?.contains(words) == true, "\(found)") }
        }
    }

    @Test func anOperatorGoesBackWithoutTakingBack() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(48)
        let first = try shop.submit(by: author).candidate
        let second = try shop.submit(by: author).candidate
        shop.close()
        try shop.home.fail(
            "expert", "rollback", Self.part, "--to", "abcdef",
            naming: ["0 versions", "expert show"])
        try shop.home.fail(
            "expert", "rollback", Self.part, "--to", second.hash.description,
            naming: ["is the current version"])
        try shop.home.fail("expert", "rollback", "layer0.expert9999", naming: ["has no part"])
        try shop.home.fail(
            "expert", "rollback", "layer0.expert1", naming: ["first version of layer0.expert1"])
        let text = try shop.home.succeed("expert", "rollback", Self.part)
        #expect(text.contains("clawback  none: no verdict shows a regression"), "\(text)")
        #expect(try shop.node.catalog.model(named: nil).parts[Self.part] == first.hash)
        #expect(try shop.balance(author) == 2_000_000)
        // Work goes on from the version that is current now.
        let third = try shop.submit(by: author)
        #expect(third.outcome == .accept && third.candidate.header.previous == first.hash)
        shop.close()
        struct Report: Decodable { let from, to, version, verdict, clawback: String }
        let json = try shop.home.succeed(
            "expert", "rollback", Self.part, "--to", second.hash.description, "--json")
        let report = try JSONDecoder().decode(Report.self, from: Data(json.utf8))
        #expect(report.to == second.hash.description && report.clawback.isEmpty)
        try shop.home.succeed("chain", "verify")
    }

    // MARK: Quota

    @Test func twentyRejectedUploadsAreADaysQuota() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(49)
        for i in 0..<20 {
            let judgement = try shop.submit(by: author, factor: 20 + Float(i))
            try #require(judgement.outcome == .reject)
        }
        let error = #expect(throws: KernelError.self) { try shop.submit(by: author) }
        #expect(error?.code == .limit)
        #expect(error?.message.contains("quota exceeded") == true)
        #expect(error?.message.contains("refills at 20") == true, "\(error?.message ?? "")")
        // Others are not held up, and the chain alone tells, also after a restart.
        #expect(try shop.submit(by: Workshop.key(50)).outcome == .accept)
        shop.close()
        let text = try shop.home.succeed("wallet", "trust", Account(author).description)
        #expect(text.contains("level     newbie") && text.contains("0 of 20 left today"), "\(text)")
        #expect(text.contains("0 accepted of 20 judged"), "\(text)")
        #expect(
            text.contains("in a row  0 accepted since the last rejection\n"), "\(text)")
        #expect(text.contains("next      trusted, after 3 accepted in a row"), "\(text)")
        #expect(try shop.home.succeed("wallet", "trust", "--json").contains("\"quota\":20"))
    }
}

/// A process that judges until it is killed.
@Suite struct RewardCrashTests {
    @Test func verdictVersionAndRewardStandTogetherAfterAnyKill() throws {
        let shop = try Workshop("rewards: flat")
        // Chain A has its policies before the first kill.
        let first = try Workshop.key(60)
        try shop.submit(by: first)
        let account = Account(try shop.node.signingKey())
        var (random, judged) = (SystemRandomNumberGenerator(), Set<String>())
        // Longer where the machine is so busy that nothing was judged.
        var longest: UInt32 = 1_500_000
        for round in 0..<16 {
            let before = judged.count
            shop.close()
            let child = Process(), pipe = Pipe()
            child.executableURL = Home.program.deletingLastPathComponent()
                .appendingPathComponent("RewardCrashChild")
            child.arguments = [shop.home.folder.path]
            child.standardOutput = pipe
            try child.run()
            var output = Data()
            while !String(decoding: output, as: UTF8.self).contains("opened\n") {
                let more = pipe.fileHandleForReading.availableData
                try #require(!more.isEmpty, "the child ended by itself")
                output += more
            }
            usleep(UInt32.random(in: 100_000...longest, using: &random))
            kill(child.processIdentifier, SIGKILL)
            output += pipe.fileHandleForReading.readDataToEndOfFile()
            child.waitUntilExit()
            #expect(child.terminationReason == .uncaughtSignal)
            let lines = String(decoding: output, as: UTF8.self).split(
                separator: "\n", omittingEmptySubsequences: false
            ).dropLast()
            for line in lines where line.hasPrefix("done ") {
                judged.insert(String(line.dropFirst(5)))
            }
            if judged.count == before { longest = min(2 * longest, 24_000_000) }
            guard round % 4 == 3 else { continue }
            let store = try shop.node.store
            let verdicts = try store.blocks(.type(chain: "A", "verdict"))
            let names = verdicts.compactMap { $0.header.metadata["candidate"]?.string }
            #expect(Set(names).count == names.count && judged.isSubset(of: names))
            for verdict in verdicts where verdict.header.metadata["outcome"]?.string == "accept" {
                let dependents = try store.blocks(.dependents(verdict.hash))
                #expect(dependents.count { $0.header.blockType == "reward" } == 1)
            }
            let accepted = verdicts.filter { $0.header.metadata["outcome"]?.string == "accept" }
            #expect(store.next(on: "C").index == Int64(accepted.count))
            let versions = try store.blocks(.type(chain: "A", "version"))
            #expect(versions.count == accepted.count + 1)
            let own = accepted.count {
                $0.header.metadata["author"]?.string == account.description
            }
            #expect(
                try shop.node.ledger.balance(of: account).total == Int64(own) * 1_000_000)
            #expect(try shop.node.ledger.verify().failures.isEmpty)
        }
        #expect(judged.count >= 3)
    }
}
