internal import Foundation

/// The indices over the log: where each block lies, and the orders in which blocks are asked for.
///
/// | key | value |
/// | --- | --- |
/// | `h` hash | place in the log, first 8 bytes of the line's SHA-256 |
/// | `i` chain index(8) hash | hash |
/// | `a` arrival(8) | hash |
/// | `e` name arrival(8) | hash (of all models; the model is among the dependencies) |
/// | `d` dependency arrival(8) | hash |
/// | `t` chain type arrival(8) | hash |
/// | `p` payload type arrival(8) | hash |
/// | `c` payload hash | |
/// | `m` | bytes of the log that are indexed, blocks so far, the last block |
///
/// Numbers are big-endian; a name is preceded by its length in one byte, so that no name begins another.
struct ChainIndex {
    typealias Order = ChainStore.Query

    // Nil if closed; whoever reads at that moment holds it until done.
    private var open: IndexStore?
    private(set) var indexedBytes: UInt64 = 0
    private(set) var arrivals: UInt64 = 0
    /// The block that was added last, or nil in an empty index.
    private(set) var last: Digest?

    /// A closed index.
    init() {}

    /// Opens the index, made if absent.
    ///
    /// - Throws: ``KernelError`` with code `integrity` if it must be built again.
    init(path: String) throws(KernelError) {
        // A kill in ``replace(_:disk:)``.
        if unsafe access(path, F_OK) != 0 { _ = unsafe rename(path + ".old", path) }
        let store = try IndexStore(path: path)
        open = store
        var isEmpty = true
        try store.scan(from: [], to: [255]) { (_, _) throws(KernelError) in
            isEmpty = false
            return false
        }
        guard !isEmpty else { return }
        guard let mark = try store.get([UInt8(ascii: "m")]), mark.count == 48 else {
            throw KernelError(
                .integrity, "the index \(path) has no mark, or that of another version")
        }
        indexedBytes = Self.number(mark[..<8])
        arrivals = Self.number(mark[8..<16])
        last = Digest(mark[16...])
    }

    /// Reads what opening a home reads, so that damage is met while the index can still be built again.
    func probe(_ specs: some Collection<ChainSpec>) throws(KernelError) {
        var hashes = [last]
        for spec in specs where spec.shape == .linear {
            hashes.append(try first(.chain(spec.id, from: 0), reverse: true))
            hashes.append(try first(.chain(spec.id, from: 0)))
        }
        for case let hash? in hashes { _ = try place(hash) }
    }

    /// The first hash in an order, or the last one.
    func first(_ order: Order, reverse: Bool = false) throws(KernelError) -> Digest? {
        var found: Digest?
        try scan(order, reverse: reverse) { hash throws(KernelError) in
            found = hash
            return false
        }
        return found
    }

    private var store: IndexStore {
        get throws(KernelError) {
            guard let open else {
                throw KernelError(
                    .io, "the index is closed",
                    hint: "start the process that holds this home again")
            }
            return open
        }
    }

    mutating func close() { open = nil }

    /// Whether nobody else reads in it.
    var isUnshared: Bool { mutating get { open == nil || isKnownUniquelyReferenced(&open) } }

    /// An empty index, to be built beside the one at `path`, which it replaces when it is whole.
    static func beside(_ path: String) throws(KernelError) -> ChainIndex {
        try? FileManager.default.removeItem(atPath: path + ".new")
        return try ChainIndex(path: path + ".new")
    }

    /// Puts an index that was built beside the one at `path` in its place; a kill leaves one of them.
    mutating func replace(_ path: String, disk: Disk) throws(KernelError) {
        try store.sync()
        close()
        let old = path + ".old"
        try? FileManager.default.removeItem(atPath: old)
        if unsafe access(path, F_OK) == 0 { try disk.rename(path, to: old) }
        try disk.rename(path + ".new", to: path)
        try disk.sync(folder: (path as NSString).deletingLastPathComponent)
        try? FileManager.default.removeItem(atPath: old)
        let built = indexedBytes
        self = try ChainIndex(path: path)
        guard indexedBytes == built else {
            close()
            throw KernelError(.integrity, "the index \(path) is not the one that was built")
        }
    }

    fileprivate static func named(_ text: String) -> [UInt8] {
        [UInt8(truncatingIfNeeded: text.utf8.count)] + Array(text.utf8)
    }

    static func big(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * UInt64($0))) }
    }

    private static func number(_ bytes: some Sequence<UInt8>) -> UInt64 {
        bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Adds blocks that the log holds from `start` up to `end`.
    ///
    /// - Throws: ``KernelError`` with code `integrity` if the index does not hold all before `start`: its mark must never
    ///   speak for blocks that it has lost, since payloads that it does not know are removed.
    mutating func add(
        _ blocks: [(block: Block, line: [UInt8], place: RecordLog.Place)], start: UInt64,
        end: UInt64
    ) throws(KernelError) {
        guard indexedBytes == start else {
            throw KernelError(
                .integrity,
                "the index holds the log up to byte \(indexedBytes), and byte \(start) follows",
                hint: "start this process again: the index is then built from the log")
        }
        var pairs: [(key: [UInt8], value: [UInt8])] = []
        for (block, line, place) in blocks {
            let header = block.header
            let hash = block.hash.bytes
            let arrival = Self.big(arrivals)
            arrivals += 1
            func put(_ order: Order) { pairs.append((order.bounds.from + arrival, hash)) }
            pairs.append(
                (
                    [UInt8(ascii: "h")] + hash,
                    Self.big(place.offset) + Self.big(UInt64(place.length)) + Self.sum(line)
                ))
            put(.arrival)
            pairs.append((Order.chain(header.chainID, from: header.index).bounds.from + hash, hash))
            if !header.expertName.isEmpty { put(.expert(header.expertName)) }
            for dependency in header.dependsOn { put(.dependents(dependency)) }
            put(.type(chain: header.chainID, header.blockType))
            if !header.payloadType.isEmpty { put(.payloadType(header.payloadType)) }
            if let payload = header.payloadHash {
                pairs.append(([UInt8(ascii: "c")] + payload.bytes, []))
            }
            last = block.hash
        }
        indexedBytes = end
        pairs.append(
            (
                [UInt8(ascii: "m")],
                Self.big(end) + Self.big(arrivals) + (last ?? .zero).bytes
            ))
        try store.put(pairs)
    }

    /// What the index keeps of a line, so that a read notices a changed byte, those of the signature included.
    static func sum(_ line: [UInt8]) -> [UInt8] { Array(SHA256.hash(line).bytes[..<8]) }

    func place(_ hash: Digest) throws(KernelError) -> (RecordLog.Place, sum: [UInt8])? {
        guard let value = try store.get([UInt8(ascii: "h")] + hash.bytes), value.count == 24 else {
            return nil
        }
        let length = Int(truncatingIfNeeded: Self.number(value[8..<16]))
        let place = RecordLog.Place(offset: Self.number(value[..<8]), length: length)
        return (place, Array(value[16...]))
    }

    func knows(payload: Digest) throws(KernelError) -> Bool {
        try store.get([UInt8(ascii: "c")] + payload.bytes) != nil
    }

    /// Hashes in an order, until `body` answers false.
    func scan(_ order: Order, reverse: Bool, _ body: (Digest) throws(KernelError) -> Bool)
        throws(KernelError)
    {
        let (from, to) = order.bounds
        try store.scan(from: from, to: to, reverse: reverse) { (_, value) throws(KernelError) in
            guard let hash = Digest(value) else {
                throw KernelError(
                    .integrity, "the index holds an entry that is no hash",
                    hint: "run `blyan chain reindex`")
            }
            return try body(hash)
        }
    }
}

extension ChainStore.Query {
    /// The keys of an order: what they begin with, ended so that no other prefix begins with it.
    var bounds: (from: [UInt8], to: [UInt8]) {
        let prefix: [UInt8]
        switch self {
        case .arrival: prefix = [UInt8(ascii: "a")]
        case .chain(let id, let from):
            let prefix = [UInt8(ascii: "i")] + ChainIndex.named(id)
            return (
                prefix + ChainIndex.big(UInt64(max(0, from))),
                prefix + [UInt8](repeating: 255, count: 9)
            )
        case .expert(let name): prefix = [UInt8(ascii: "e")] + ChainIndex.named(name)
        case .dependents(let hash): prefix = [UInt8(ascii: "d")] + hash.bytes
        case .type(let chain, let type):
            prefix = [UInt8(ascii: "t")] + ChainIndex.named(chain) + ChainIndex.named(type)
        case .payloadType(let type): prefix = [UInt8(ascii: "p")] + ChainIndex.named(type)
        }
        return (prefix, prefix + [UInt8](repeating: 255, count: 9))
    }
}
