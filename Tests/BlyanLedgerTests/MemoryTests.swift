import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// Accounts that are kept in memory are those of the store, whatever is written meanwhile.
@Suite struct MemoryTests {
    private static func account(_ i: Int) throws -> Account {
        try #require(Account([2] + SHA256.hash(Array("\(i)".utf8)).bytes))
    }

    private static func state(_ total: Int64) -> AccountState {
        var state = AccountState()
        state.total = total
        state.nonce = total / 2
        return state
    }

    private static func folder() -> URL {
        FileManager.default.temporaryDirectory.appendingPathComponent("blyan-\(UUID().uuidString)")
    }

    @Test(arguments: [1, 50, 2_500, 10_000]) func memoryAndStoreAgree(limit: Int) throws {
        let folder = Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        var expected: [Account: AccountState] = [:]
        let mark = LedgerState.Mark(genesis: .zero)
        for i in 0..<2_500 {
            expected[try Self.account(i)] = Self.state(Int64(i) + 1)
        }
        try LedgerState(path: folder.path).write(expected, [], mark: mark)
        let state = try LedgerState(path: folder.path, limit: limit)
        func check() throws {
            for (account, wanted) in expected {
                #expect(try state.account(account) == wanted)
                if let kept = state.remembered(account) { #expect(kept == wanted) }
            }
            #expect(try state.account(Self.account(-1)) == nil)
        }
        // Some are looked up, some are written, old and new, and then the rest is taken, with writes between.
        for i in 0..<20 { _ = try state.account(Self.account(i * 7)) }
        var last: Account?
        var round = 0
        repeat {
            var changes: [Account: AccountState] = [:]
            for i in stride(from: round, to: 4_000, by: 97) {
                changes[try Self.account(i)] = Self.state(Int64(i + round) + 1)
            }
            try state.write(changes, [], mark: mark)
            expected.merge(changes) { $1 }
            last = try state.remember(after: last)
            round += 1
        } while last != nil
        let kept = expected.keys.count { state.remembered($0) != nil }
        #expect(kept == min(limit, expected.count))
        try check()
    }

    /// A reader that was overtaken by a write keeps nothing.
    @Test func lookUpsBesideWritesSeeNoOldState() throws {
        let folder = Self.folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let state = try LedgerState(path: folder.path)
        let mark = LedgerState.Mark(genesis: .zero)
        let names = try (0..<64).map(Self.account)
        let rounds: Int64 = 200
        try state.write(
            Dictionary(uniqueKeysWithValues: names.map { ($0, Self.state(1)) }), [], mark: mark)
        DispatchQueue.concurrentPerform(iterations: 4) { worker in
            do {
                if worker == 0 {
                    for round in 2...rounds {
                        try state.write(
                            Dictionary(
                                uniqueKeysWithValues: names.map { ($0, Self.state(round)) }), [],
                            mark: mark)
                    }
                } else if worker == 1 {
                    for _ in 0..<rounds { _ = try state.remember(after: nil) }
                } else {
                    var newest: Int64 = 0
                    for _ in 0..<20_000 {
                        let total = try state.account(names[0])?.total ?? 0
                        #expect(total >= newest)
                        newest = total
                    }
                }
            } catch {
                Issue.record(error)
            }
        }
        for name in names { #expect(try state.account(name)?.total == rounds) }
    }

    @Test func aLedgerTakesItsAccountsIntoMemory() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 1_000, vesting: 3), bank.reward(1, 500))
        try bank.reopen()
        try bank.ledger.rememberAccounts()
        #expect(try bank.ledger.balance(of: bank.account(1)).total == 500)
        _ = bank.submit(try bank.transfer(1, bank.account(2), 10, fee: 1))
        #expect(try bank.ledger.balance(of: bank.account(1)).total == 489)
        #expect(try bank.ledger.balance(of: bank.account(2)).total == 10)
        #expect(bank.ledger.verify().failures.isEmpty)
        // It ends when it is told to, and does nothing to books that are closed.
        try bank.ledger.rememberAccounts(until: { true })
        bank.close()
        #expect(throws: KernelError.self) { try bank.ledger.rememberAccounts() }
    }
}
