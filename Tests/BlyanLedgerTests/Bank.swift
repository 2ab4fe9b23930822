import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// Numbers that are the same in every run.
struct SeededRandom: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        // splitmix64, https://prng.di.unimi.it/splitmix64.c
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// A home with a genesis block and books, in a temporary folder that is removed at the end.
final class Bank {
    let home: URL
    /// The validator's.
    let key: SigningKey
    /// Other people's.
    let keys: [SigningKey]
    var store: ChainStore
    var ledger: Ledger
    let genesis: Digest

    init(people: Int = 3, disk: Disk = .real) throws {
        let memory = "/dev/shm"
        let folder =
            access(memory, W_OK) == 0
            ? URL(fileURLWithPath: memory) : FileManager.default.temporaryDirectory
        home = folder.appendingPathComponent("blyan-ledger-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: home, withIntermediateDirectories: true)
        key = try Self.key(7)
        keys = try (0..<people).map { try Self.key(UInt8(20 + $0)) }
        store = try ChainStore(home: home, specs: [.a, .b, .c], disk: disk)
        let writer = try store.payloads.makeWriter()
        try writer.write(Array("{}".utf8))
        var header = BlockHeader(
            chainID: "A", blockType: "genesis", index: 0, previous: nil, timestamp: 1)
        try writer.finish().describe(in: &header, type: "json")
        let block = try Block(signing: header, with: key)
        try store.append([block])
        genesis = block.hash
        ledger = Ledger(store: store, home: home)
    }

    deinit {
        close()
        try? FileManager.default.removeItem(at: home)
    }

    static func key(_ byte: UInt8) throws -> SigningKey {
        try SigningKey([UInt8](repeating: byte, count: 32))
    }

    private var isOpen = true

    func close() {
        // Twice would close a descriptor that somebody else has by then.
        guard isOpen else { return }
        isOpen = false
        ledger.close()
        store.close()
    }

    /// Opens the home after ``close()``.
    func open() throws {
        store = try ChainStore(home: home, specs: [.a, .b, .c])
        ledger = Ledger(store: store, home: home)
        isOpen = true
    }

    /// Closes and opens the home again.
    func reopen(deleting: Bool = false) throws {
        close()
        if deleting {
            try FileManager.default.removeItem(at: home.appendingPathComponent("ledger"))
        }
        try open()
    }

    func account(_ i: Int) -> Account { Account(keys[i]) }

    var policy: Reason.Policy {
        Reason.Policy(name: "flat", version: "1.0.0", vectors: .zero, library: .zero)
    }
    var reason: Reason { Reason(blocks: [genesis], verdict: nil, policy: policy) }

    func reward(_ i: Int, _ amount: Int64, vesting: Int64 = 0) -> Transaction {
        .reward(Reward(to: account(i), amount: amount, vesting: vesting, reason: reason))
    }

    func transfer(
        _ i: Int, _ to: Account, _ amount: Int64, fee: Int64 = 0, nonce: Int64? = nil
    ) throws -> Transfer {
        let next = try nonce ?? ledger.balance(of: account(i)).nonce
        return try Transfer(
            signedBy: keys[i], to: to, amount: amount, fee: fee, nonce: next, genesis: genesis)
    }

    @discardableResult
    func append(_ transactions: Transaction...) throws -> Block {
        try ledger.append(transactions, key: key, time: 5)
    }

    func submit(_ transfers: Transfer...) -> [Result<Ledger.Receipt, KernelError>] {
        ledger.submit(transfers, key: key, time: 6)
    }

    /// Puts a payload on chain C as it is, past the ledger.
    @discardableResult
    func forge(
        _ payload: String, type: String = "transfer", payloadType: String = "json",
        dependsOn: [Digest] = []
    ) throws -> Block {
        let place = store.next(on: "C")
        let writer = try store.payloads.makeWriter()
        try writer.write(Array(payload.utf8))
        var header = BlockHeader(
            chainID: "C", blockType: type, index: place.index, previous: place.previous,
            timestamp: 9)
        header.dependsOn = dependsOn
        try writer.finish().describe(in: &header, type: payloadType)
        let block = try Block(signing: header, with: key)
        try store.append([block])
        return block
    }

    /// The payload of a block as text.
    func text(_ block: Block) throws -> String {
        String(decoding: try store.document(block), as: UTF8.self)
    }

    /// All accounts' totals.
    func totals() throws -> [Int64] {
        try ([Account(key)] + keys.map { Account($0) }).map { try ledger.balance(of: $0).total }
    }
}

/// The error of a result, or an issue.
func error(_ result: Result<Ledger.Receipt, KernelError>?) throws -> KernelError {
    guard case .failure(let error)? = result else {
        throw KernelError(.rule, "expected a refusal, found \(String(describing: result))")
    }
    return error
}
