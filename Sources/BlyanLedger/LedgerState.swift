package import BlyanKernel
internal import Foundation
internal import Synchronization

/// The books after a block, in LevelDB: a copy of what chain C says, which may be deleted.
///
/// | key | value |
/// | --- | --- |
/// | `a` account(33) | total, nonce, and for each open grant block, transaction, since, amount, vesting |
/// | `h` account(33) block(8) transaction(4) | kind(1), change, fee, time, counterparty(33, or none) |
/// | `m` | version(1), genesis(32), blocks applied, hash of the last one(32), supply, clock |
///
/// Numbers are big-endian, 8 bytes where no other width is given. A block's changes and the mark are one write.
package final class LedgerState: AccountSource, Sendable {
    /// How far the books are.
    package struct Mark: Equatable, Sendable {
        /// The network.
        package var genesis: Digest
        /// Blocks of chain C that are applied.
        package var count: Int64
        /// The last of them.
        package var hash: Digest
        /// Micro-BLY in existence.
        package var supply: Int64
        /// The time by which rewards vest: how many of the blocks are usage and reward blocks.
        ///
        /// Blocks of transfers do not count: anybody could make them, as many as vest a reward at once.
        package var clock: Int64

        package init(
            genesis: Digest, count: Int64 = 0, hash: Digest = .zero, supply: Int64 = 0,
            clock: Int64 = 0
        ) {
            (self.genesis, self.count, self.hash) = (genesis, count, hash)
            (self.supply, self.clock) = (supply, clock)
        }

        /// The books after one more block.
        package mutating func advance(over block: Block, supply: Int64) {
            count += 1
            if block.header.blockType != "transfer" { clock += 1 }
            (hash, self.supply) = (block.hash, supply)
        }
    }

    private static let version: UInt8 = 2
    private static let kinds = ["transfer", "reward", "clawback", "fee"]
    private let store: IndexStore
    private let path: String
    private let damage = Mutex(false)
    private let memory: AccountMemory

    /// - Parameter limit: accounts that are kept in memory at most.
    package init(path: String, limit: Int = AccountMemory.usualLimit) throws(KernelError) {
        self.path = path
        memory = AccountMemory(limit: limit)
        do throws(KernelError) { store = try IndexStore(path: path) } catch {
            throw Self.reworded(error)
        }
    }

    /// Whether something that was read is not what was written.
    package var isDamaged: Bool { damage.withLock { $0 } }

    private static func reworded(_ error: KernelError) -> KernelError {
        KernelError(
            error.code, "the balances cannot be read or written: \(error.message)",
            hint: error.code == .integrity
                ? "start the process that holds the home again: they are made again from chain C"
                : error.hint)
    }

    private func guarded<R>(_ body: () throws(KernelError) -> R) throws(KernelError) -> R {
        do throws(KernelError) { return try body() } catch {
            if error.code == .integrity { damage.withLock { $0 = true } }
            throw Self.reworded(error)
        }
    }

    private func damaged(_ what: String) -> KernelError {
        KernelError(.integrity, "\(path) holds \(what)")
    }

    /// How far the books are; nil in an empty store.
    package func mark() throws(KernelError) -> Mark? {
        try guarded { () throws(KernelError) in
            guard let value = try store.get([UInt8(ascii: "m")]) else {
                var isEmpty = true
                try store.scan(from: [], to: [255]) { (_, _) throws(KernelError) in
                    isEmpty = false
                    return false
                }
                guard isEmpty else { throw damaged("balances without a mark") }
                return nil
            }
            var reader = Reader(value)
            guard reader.byte() == Self.version, let genesis = reader.digest(),
                let count = reader.number(), let hash = reader.digest(),
                let supply = reader.number(), let clock = reader.number(), reader.isAtEnd,
                count >= 0, supply >= 0, (0...count).contains(clock)
            else { throw damaged("a mark of another version, or none") }
            return Mark(
                genesis: genesis, count: count, hash: hash, supply: supply, clock: clock)
        }
    }

    package func account(_ account: Account) throws(KernelError) -> AccountState? {
        if let known = memory[account] { return known }
        let edition = memory.edition
        let read = try stored(account)
        if let read { memory.note(read, of: account, asOf: edition) }
        return read
    }

    private func stored(_ account: Account) throws(KernelError) -> AccountState? {
        try guarded { () throws(KernelError) in
            guard let value = try store.get([UInt8(ascii: "a")] + account.bytes) else { return nil }
            return try decode(value)
        }
    }

    /// What memory has of an account, or nil.
    package func remembered(_ account: Account) -> AccountState? { memory[account] }

    /// Takes some more accounts into memory, those that come after `last` in byte order.
    ///
    /// - Returns: the last one that was taken; nil at the end, or when memory is full.
    package func remember(after last: Account?) throws(KernelError) -> Account? {
        let edition = memory.edition
        var (taken, end) = (0, Account?.none)
        // The account's key and a zero byte: what follows next in byte order.
        let from = [UInt8(ascii: "a")] + (last.map { $0.bytes + [0] } ?? [])
        try scan(from: from) { (account, state) throws(KernelError) in
            guard memory.note(state, of: account, asOf: edition) else {
                end = nil
                return false
            }
            (taken, end) = (taken + 1, account)
            return taken < 1_000
        }
        return end
    }

    private func decode(_ value: [UInt8]) throws(KernelError) -> AccountState {
        var reader = Reader(value)
        var state = AccountState()
        guard let total = reader.number(), let nonce = reader.number(), total >= 0, nonce >= 0
        else { throw damaged("an account that is cut") }
        (state.total, state.nonce) = (total, nonce)
        var sum: Int64 = 0
        while !reader.isAtEnd {
            guard let block = reader.number(), let transaction = reader.number(),
                let since = reader.number(), let amount = reader.number(),
                let vesting = reader.number(), vesting > 0, amount > 0, block >= 0, since >= 0,
                case let (next, overflow) = sum.addingReportingOverflow(amount),
                !overflow
            else { throw damaged("a grant that cannot be") }
            sum = next
            state.grants.append(
                Grant(
                    block: block, transaction: transaction, since: since, amount: amount,
                    vesting: vesting))
        }
        return state
    }

    /// Lines of an account's history, newest first.
    package func history(of account: Account, limit: Int) throws(KernelError) -> [HistoryEntry] {
        let prefix = [UInt8(ascii: "h")] + account.bytes
        return try guarded { () throws(KernelError) in
            var found: [HistoryEntry] = []
            guard limit > 0 else { return found }
            let end = prefix + [UInt8](repeating: 255, count: 13)
            try store.scan(from: prefix, to: end, reverse: true) {
                (key, value) throws(KernelError) in
                found.append(try entry(key, value))
                return found.count < limit
            }
            return found
        }
    }

    private func entry(_ key: [UInt8], _ value: [UInt8]) throws(KernelError) -> HistoryEntry {
        var place = Reader(Array(key.dropFirst(34)))
        var reader = Reader(value)
        guard let block = place.number(), let transaction = place.number(width: 4),
            let kind = reader.byte(), Int(kind) < Self.kinds.count, let change = reader.number(),
            let fee = reader.number(), let time = reader.number()
        else { throw damaged("a history that is cut") }
        return HistoryEntry(
            block: block, transaction: transaction, kind: Self.kinds[Int(kind)], change: change,
            fee: fee, counterparty: Account(reader.rest), time: time)
    }

    /// Accounts and their states, in byte order, until `body` answers false.
    package func scan(_ body: (Account, AccountState) throws(KernelError) -> Bool)
        throws(KernelError)
    {
        try scan(from: [UInt8(ascii: "a")], body)
    }

    private func scan(
        from: [UInt8], _ body: (Account, AccountState) throws(KernelError) -> Bool
    ) throws(KernelError) {
        try guarded { () throws(KernelError) in
            try store.scan(from: from, to: [UInt8(ascii: "b")]) {
                (key, value) throws(KernelError) in
                guard let account = Account(key.dropFirst()) else {
                    throw damaged("an account that is no key")
                }
                return try body(account, decode(value))
            }
        }
    }

    /// All keys and values, for comparing stores.
    package func dump() throws(KernelError) -> [[UInt8]] {
        var all: [[UInt8]] = []
        try store.scan(from: [], to: [255]) { (key, value) throws(KernelError) in
            all.append(key + [255] + value)
            return true
        }
        return all
    }

    /// Writes what a block changed, and how far the books are now: all of it or nothing.
    package func write(
        _ changes: [Account: AccountState], _ history: [(account: Account, entry: HistoryEntry)],
        mark: Mark
    ) throws(KernelError) {
        var pairs: [(key: [UInt8], value: [UInt8])] = []
        pairs.reserveCapacity(changes.count + history.count + 1)
        for (account, state) in changes {
            var value: [UInt8] = []
            value.reserveCapacity(16 + 40 * state.grants.count)
            Self.put(state.total, &value)
            Self.put(state.nonce, &value)
            for grant in state.grants {
                let numbers = [
                    grant.block, grant.transaction, grant.since, grant.amount, grant.vesting,
                ]
                for number in numbers { Self.put(number, &value) }
            }
            pairs.append(([UInt8(ascii: "a")] + account.bytes, value))
        }
        for (account, entry) in history {
            var key = [UInt8(ascii: "h")] + account.bytes
            Self.put(entry.block, &key)
            Self.put(entry.transaction, &key, width: 4)
            var value = [UInt8(Self.kinds.firstIndex(of: entry.kind) ?? 0)]
            for number in [entry.change, entry.fee, entry.time] { Self.put(number, &value) }
            pairs.append((key, value + (entry.counterparty?.bytes ?? [])))
        }
        var value = [Self.version] + mark.genesis.bytes
        Self.put(mark.count, &value)
        value += mark.hash.bytes
        Self.put(mark.supply, &value)
        Self.put(mark.clock, &value)
        pairs.append(([UInt8(ascii: "m")], value))
        try guarded { () throws(KernelError) in try store.put(pairs) }
        memory.replace(changes)
    }

    private static func put(_ number: Int64, _ out: inout [UInt8], width: Int = 8) {
        for shift in stride(from: 8 * (width - 1), through: 0, by: -8) {
            out.append(UInt8(truncatingIfNeeded: number >> Int64(shift)))
        }
    }

    private struct Reader {
        private var bytes: ArraySlice<UInt8>

        init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

        var isAtEnd: Bool { bytes.isEmpty }
        var rest: ArraySlice<UInt8> { bytes }

        mutating func byte() -> UInt8? { bytes.popFirst() }

        mutating func number(width: Int = 8) -> Int64? {
            guard bytes.count >= width else { return nil }
            defer { bytes = bytes.dropFirst(width) }
            return Int64(
                bitPattern: bytes.prefix(width).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        }

        mutating func digest() -> Digest? {
            guard bytes.count >= 32 else { return nil }
            defer { bytes = bytes.dropFirst(32) }
            return Digest(bytes.prefix(32))
        }
    }
}
