import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// Counts of use, and their way to the chain.
@Suite struct UsageTests {
    final class Counts {
        let home: URL
        var store: UsageStore

        init() throws {
            home = FileManager.default.temporaryDirectory
                .appendingPathComponent("blyan-usage-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: home, withIntermediateDirectories: true)
            store = UsageStore(home: home, interval: 3600)
        }

        deinit { try? FileManager.default.removeItem(at: home) }

        func reopen() throws {
            try store.close()
            store = UsageStore(home: home, interval: 3600)
        }

        func settle(_ time: Int64, quality: Int64 = 0) throws -> UsageDocument? {
            try store.beginSettlement(time: time) { _ throws(KernelError) in quality }
        }
    }

    private let one = SHA256.hash([1]), two = SHA256.hash([2])

    private func use(_ block: Digest, _ tokens: Int, _ isFirst: Bool, _ taken: Int64)
        -> UsageStore.Step
    {
        UsageStore.Step(block: block, isFirst: isFirst, tokens: tokens, nanoseconds: taken)
    }

    @Test func countsSurvive() throws {
        let counts = try Counts()
        let payer = Account(try Bank.key(4))
        for step in 0..<10 {
            counts.store.used(
                [
                    use(one, 3, step == 0, 2_500_000), use(two, 1, step % 5 == 0, 2_500_000),
                ], payer: nil, time: 100 + Int64(step))
        }
        counts.store.used([use(one, 7, true, 999)], payer: payer, time: 50)
        counts.store.loaded(one)
        try counts.reopen()
        let lines = try counts.store.lines()
        #expect(lines.count == 3)
        let own = try #require(lines.first { $0.block == one && $0.payer == nil }).counts
        #expect(own.calls == 1 && own.tokens == 30 && own.steps == 10 && own.loads == 1)
        #expect(own.microseconds == 25_000 && own.lastUse == 109 && own.hitRate == 900_000)
        #expect(lines.first { $0.block == two }?.counts.calls == 2)
        #expect(lines.first { $0.payer == payer }?.counts.microseconds == 0)
        // And go on from there.
        counts.store.used([use(one, 1, true, 0)], payer: nil, time: 0)
        #expect(try counts.store.lines().first { $0.block == one }?.counts.calls == 2)
    }

    @Test func noCountsMakeNoFolder() throws {
        let counts = try Counts()
        #expect(try counts.store.lines().isEmpty)
        #expect(try counts.settle(1) == nil)
        try counts.reopen()
        #expect(!FileManager.default.fileExists(atPath: counts.home.path + "/usage"))
    }

    @Test func aBatchIsWrittenByItself() throws {
        let counts = try Counts()
        counts.store = UsageStore(home: counts.home, interval: 0.05)
        counts.store.used([use(one, 1, true, 0)], payer: nil, time: 0)
        for _ in 0..<200
        where !FileManager.default.fileExists(atPath: counts.home.path + "/usage") {
            usleep(20_000)
        }
        #expect(FileManager.default.fileExists(atPath: counts.home.path + "/usage"))
    }

    @Test func aSettlementTakesEachCallOnce() throws {
        let counts = try Counts()
        let payer = Account(try Bank.key(4))
        counts.store.used([use(one, 3, true, 1_700_000)], payer: nil, time: 5)
        counts.store.used([use(one, 3, true, 3_900_000)], payer: payer, time: 4)
        let first = try #require(try counts.settle(1000, quality: 7))
        #expect(
            first.entries == [
                UsageDocument.Entry(
                    block: one, calls: 2, milliseconds: 4, lastUse: 5, quality: 7,
                    paid: [
                        UsageDocument.Paid(payer: payer, calls: 1, milliseconds: 3, lastUse: 4)
                    ])
            ])
        #expect(try UsageDocument(parsing: first.document.canonical()) == first)
        // What comes meanwhile is for the next one; a crash gives the same one again.
        counts.store.used([use(one, 1, true, 400_000)], payer: nil, time: 9)
        try counts.reopen()
        #expect(try counts.settle(2000) == first)
        try counts.store.endSettlement()
        // The clock went back. Rest of the microseconds: 700 + 400 of the node's own.
        let second = try #require(try counts.settle(500))
        #expect(second.time == 1001)
        #expect(second.entries.map(\.calls) == [1] && second.entries.map(\.milliseconds) == [1])
        #expect(second.entries[0].paid.isEmpty)
        try counts.store.endSettlement()
        #expect(try counts.settle(3000) == nil)
        #expect(try counts.store.lines().reduce(0) { $0 + $1.counts.calls } == 3)
    }

    /// Nothing of one's own use, and nothing that the author paid for, reaches a policy.
    @Test func onlyWhatOthersPaidForCounts() throws {
        let (author, other, third) = (
            Account(try Bank.key(1)), Account(try Bank.key(2)), Account(try Bank.key(3))
        )
        func entry(_ paid: (Account, Int64)...) -> UsageDocument.Entry {
            UsageDocument.Entry(
                block: one, calls: 1_000_000, milliseconds: 1, lastUse: 1, quality: 5,
                paid: paid.map {
                    UsageDocument.Paid(
                        payer: $0.0, calls: $0.1, milliseconds: $0.1 &* 2, lastUse: $0.1)
                })
        }
        #expect(entry().event(author: author, time: 9) == nil)
        #expect(entry((author, 500)).event(author: author, time: 9) == nil)
        #expect(entry((other, 0)).event(author: author, time: 9) == nil)
        #expect(entry((other, .max), (third, 1)).event(author: author, time: 9) == nil)
        guard
            case .usage(let use)? = entry((author, 500), (other, 3), (third, 4)).event(
                author: author, time: 9)
        else { throw Bank.Failure() }
        #expect(use.calls == 7 && use.milliseconds == 14 && use.lastUse == 4)
        #expect(use.payers == [other, third] && use.quality == 5)
    }

    @Test func usageAndRewardsAreOneRecord() throws {
        let bank = try Bank()
        let document = UsageDocument(time: 5, entries: []).document
        try bank.append(bank.reward(0, 1))
        let (usage, reward) = try bank.ledger.settle(
            document, dependsOn: [bank.genesis], key: bank.key, time: 6
        ) { usage in
            [
                .reward(
                    Reward(
                        to: bank.account(1), amount: 70, vesting: 5,
                        reason: Reason(
                            blocks: [usage.hash], verdict: nil, policy: bank.policy)))
            ]
        }
        #expect(usage.header.index == 1 && reward?.header.index == 2)
        #expect(reward?.header.dependsOn == [usage.hash])
        #expect(try bank.ledger.balance(of: bank.account(1)).total == 70)
        #expect(try bank.ledger.balance(of: bank.account(1)).height == 3)
        // None to pay.
        let alone = try bank.ledger.settle(document, dependsOn: [], key: bank.key, time: 7) { _ in
            []
        }
        #expect(alone.reward == nil && alone.usage.header.index == 3)
        // What is refused leaves nothing behind.
        #expect(throws: KernelError.self) {
            try bank.ledger.settle(document, dependsOn: [], key: bank.key, time: 8) { _ in
                [bank.reward(0, 0)]
            }
        }
        #expect(bank.store.next(on: "C").index == 4)
        try bank.reopen(deleting: true)
        #expect(try bank.ledger.balance(of: bank.account(1)).total == 70)
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    @Test(arguments: [
        "", "{}", "{\"entries\":[],\"format\":\"blyan-usage/2\",\"time\":1}",
        "{\"entries\":[],\"format\":\"blyan-usage/1\",\"time\":-1}",
        "{\"entries\":[{}],\"format\":\"blyan-usage/1\",\"time\":1}",
        "{ \"entries\":[],\"format\":\"blyan-usage/1\",\"time\":1}",
    ])
    func refusesWhatIsNoUsage(text: String) {
        #expect(throws: KernelError.self) { try UsageDocument(parsing: Array(text.utf8)) }
    }
}

extension Bank {
    struct Failure: Error {}
}
