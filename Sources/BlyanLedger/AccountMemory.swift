internal import Synchronization

/// Accounts in memory, so that a look-up costs the same wherever an account lies in LevelDB: copies of what it holds.
///
/// Any thread. What is read is noted only if nothing was written meanwhile: an old state never covers a newer one.
package final class AccountMemory: Sendable {
    /// Some 130 MiB, which the next account would double.
    package static let usualLimit = 1_500_000

    private struct Contents {
        var accounts: [Account: AccountState] = [:]
        var edition = 0
    }

    private let limit: Int
    private let contents = Mutex(Contents())

    init(limit: Int) { self.limit = limit }

    /// Another number after each write.
    var edition: Int { contents.withLock { $0.edition } }

    subscript(account: Account) -> AccountState? { contents.withLock { $0.accounts[account] } }

    /// Keeps what was read when writes were at `edition`.
    ///
    /// - Returns: false if there is no room.
    @discardableResult
    func note(_ state: AccountState, of account: Account, asOf edition: Int) -> Bool {
        contents.withLock {
            guard $0.edition == edition else { return true }
            guard $0.accounts.count < limit else { return false }
            $0.accounts[account] = state
            return true
        }
    }

    /// Keeps what was written; what there is no room for is looked up in LevelDB.
    func replace(_ changes: [Account: AccountState]) {
        contents.withLock {
            $0.edition += 1
            for (account, state) in changes {
                let isFull = $0.accounts.count >= limit && $0.accounts[account] == nil
                if !isFull { $0.accounts[account] = state }
            }
        }
    }
}
