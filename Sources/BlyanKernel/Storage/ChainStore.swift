internal import BlyanJSON
public import Foundation
internal import Synchronization

// Unchecked: `lock` guards all mutable state; the index store and payload store are thread-safe.
/// The chains of one home: appended durably, indexed, queried, checked.
///
/// Any thread. An append returns when its record is synced: nothing acknowledged is lost, nothing partial is seen.
public final class ChainStore: @unchecked Sendable {
    /// Payload files.
    public let payloads: PayloadStore
    /// The chains that this store knows.
    public let specs: [String: ChainSpec]
    private let remembered: (any CheckMemory)?
    private let indexPath: String
    private let lock = NSCondition()
    private let reindexing = NSLock()
    private var log: RecordLog
    private var index: ChainIndex
    // Linear chains' last blocks and the genesis block, pending ones included.
    private var heads: [String: Block] = [:]
    private var genesisHash: Digest?
    private var pact: GenesisPact?
    // Blocks that are validated but not yet indexed.
    private var pending: [Digest: Block] = [:]
    private var queue: [(blocks: [(block: Block, line: [UInt8])], ticket: Int)] = []
    private var nextTicket = 0
    private var durable = 0
    private var isCommitting = false
    private var failure: KernelError?
    /// What opening had to mend, for the log: a torn tail that was cut, orphans that were removed.
    public private(set) var repairs: [String] = []

    /// Opens the chains in `home`, made if absent.
    ///
    /// The caller holds the home.
    ///
    /// - Parameters:
    ///   - rebuild: build the index from the log, and put it in the old one's place if that succeeds.
    ///   - remembered: checks of payload files that mode `remember` relies on; without it the mode is as `touch`.
    ///   - keeps: asked about each payload that no block names, whether it stays.
    /// - Throws: ``KernelError`` with code `integrity` for damage that is no torn tail, `io`.
    public init(
        home: URL, specs: [ChainSpec] = [.a, .b], disk: Disk = .real, rebuild: Bool = false,
        remembered: (any CheckMemory)? = nil, keeping keeps: (Digest) -> Bool = { _ in false }
    ) throws(KernelError) {
        self.specs = Dictionary(uniqueKeysWithValues: specs.map { ($0.id, $0) })
        self.remembered = remembered
        let logFolder = home.appendingPathComponent("log").path
        try disk.makeFolder(logFolder)
        payloads = try PayloadStore(folder: home.appendingPathComponent("payloads"), disk: disk)
        log = try RecordLog(folder: logFolder, disk: disk)
        indexPath = home.appendingPathComponent("index").path
        var notes: [String] = []
        var rebuilds = rebuild
        do throws(KernelError) {
            index = try ChainIndex(path: indexPath)
            try index.probe(specs)
        } catch  where error.code == .integrity {
            // Nothing in the index is not also in the log.
            index = ChainIndex()
            rebuilds = true
            notes.append("the index was damaged and has been rebuilt from the log")
        }
        // An index is written after its records were durable: rebuilding it must not take them for torn.
        let held = index.indexedBytes
        guard held <= log.size else {
            throw KernelError(
                .integrity,
                "\(log.path) ends at byte \(log.size), and the index holds blocks up to byte \(held)",
                hint:
                    "restore the log from a copy of this home; if there is none as long, remove \(indexPath): the blocks between are lost then"
            )
        }
        if rebuilds {
            index.close()
            index = try ChainIndex.beside(indexPath)
        } else {
            try checkIndexFitsLog()
        }
        try loadHeads()
        let cut = try log.recover(from: index.indexedBytes, held: held)
        try replay(to: log.end)
        if rebuilds { try index.replace(indexPath, disk: disk) }
        if let cut { notes.append(cut) }
        // What was cut off may have named payloads, and may have been damaged and not torn.
        let known = index, keepsAll = log.hasCuts || log.end == 0
        let removed = payloads.removeOrphans {
            keepsAll || (try? known.knows(payload: $0)) ?? true || keeps($0)
        }
        if removed > 0 { notes.append("\(removed) files that no block names were removed") }
        repairs = notes
    }

    /// Opens the log alone, for ``verify()`` in a home that does not open otherwise: nothing in it is changed, and
    /// nothing can be appended.
    ///
    /// - Throws: ``KernelError`` with code `io` if the log cannot be read.
    public init(reading home: URL, specs: [ChainSpec] = [.a, .b]) throws(KernelError) {
        self.specs = Dictionary(uniqueKeysWithValues: specs.map { ($0.id, $0) })
        remembered = nil
        payloads = try PayloadStore(folder: home.appendingPathComponent("payloads"))
        let folder = home.appendingPathComponent("log").path
        log = try RecordLog(folder: folder, disk: .real, reading: true)
        indexPath = home.appendingPathComponent("index").path
        // It names what the log has lost; where it is damaged too, the log has to do.
        index = (try? ChainIndex(path: indexPath)) ?? ChainIndex()
        failure = KernelError(.io, "the home was opened to read its log alone")
    }

    /// An empty store beside one that serves, to build its index again from the log that both read.
    private init(rebuilding other: ChainStore) throws(KernelError) {
        (specs, payloads, remembered) = (other.specs, other.payloads, nil)
        indexPath = other.indexPath
        log = other.readable.log
        index = try ChainIndex.beside(indexPath)
    }

    /// Indexes what the log holds and the index does not, up to byte `end`.
    private func replay(to end: UInt64) throws(KernelError) {
        while index.indexedBytes < end {
            var offset = index.indexedBytes
            var found: [(block: Block, line: [UInt8], place: RecordLog.Place)] = []
            while offset < end, found.count < 4096, let lines = try log.next(&offset) {
                for (line, place) in lines { found.append((try Block(parsing: line), line, place)) }
            }
            try replay(found, end: offset)
        }
    }

    /// Builds the index again from the log, beside appends and queries, and puts it in the place of the one that serves.
    ///
    /// - Returns: The number of blocks that it holds.
    /// - Throws: ``KernelError`` with code `integrity` if the log is damaged: then nothing has changed.
    public func reindex() throws(KernelError) -> Int {
        // One at a time: they build in one folder.
        reindexing.lock()
        defer { reindexing.unlock() }
        let fresh = try ChainStore(rebuilding: self)
        try fresh.replay(to: fresh.log.end)
        lock.lock()
        defer { lock.unlock() }
        // Whoever queries holds the old index until done; LevelDB must not be open under a name that another one gets.
        while isCommitting || !queue.isEmpty || !index.isUnshared {
            _ = lock.wait(until: Date(timeIntervalSinceNow: 0.01))
        }
        if let failure { throw failure }
        fresh.log = log
        try fresh.replay(to: log.end)
        index.close()
        do throws(KernelError) {
            try fresh.index.replace(indexPath, disk: payloads.disk)
            index = fresh.index
        } catch {
            fresh.index.close()
            // The old one, if it is still there; one that is not whole must not answer, and nothing be added to it.
            if let old = try? ChainIndex(path: indexPath), old.indexedBytes == log.end {
                index = old
            } else {
                failure = KernelError(
                    .io, "the index could not be put in its place: \(error.message)",
                    hint: "start this process again: the index is then built from the log")
            }
            throw failure ?? error
        }
        return Int(index.arrivals)
    }

    /// Closes the log.
    ///
    /// No call may follow.
    public func close() {
        lock.lock()
        defer { lock.unlock() }
        failure = KernelError(.io, "the store is closed")
        log.close()
        index.close()
    }

    /// An index that knows of more than the log holds, or of something else, means that the log has lost bytes.
    private func checkIndexFitsLog() throws(KernelError) {
        guard let last = index.last, let block = try stored(last) else { return }
        if let (place, _) = try index.place(block.hash),
            place.offset + UInt64(place.length) + 1 == index.indexedBytes
        {
            return
        }
        throw KernelError(
            .integrity, "the index ends at byte \(index.indexedBytes) of another log",
            hint: "run `blyan chain reindex`: it changes nothing unless the whole log can be read")
    }

    /// Indexes blocks that the log holds, checked as those that are appended: what serves is what verifies.
    private func replay(
        _ found: [(block: Block, line: [UInt8], place: RecordLog.Place)], end: UInt64
    ) throws(KernelError) {
        do throws(KernelError) {
            let blocks = found.map(\.block)
            try checkSignatures(blocks)
            _ = try admit(blocks, replaying: true)
        } catch {
            throw KernelError(
                error.code, "the log of this home does not stand: \(error.message)",
                hint: "`blyan chain verify` lists all that is wrong; \(RecordLog.hint)")
        }
        try index.add(found, start: index.indexedBytes, end: end)
        pending.removeAll()
    }

    private func loadHeads() throws(KernelError) {
        for spec in specs.values where spec.shape == .linear {
            let head = try index.first(.chain(spec.id, from: 0), reverse: true)
            if let head { heads[spec.id] = try stored(head) }
        }
        genesisHash = try index.first(.chain("A", from: 0))
        guard let genesisHash, let genesis = try stored(genesisHash) else { return }
        // A damaged pact is no reason not to open: it only keeps new blocks off chain A.
        pact = try? GenesisPact(of: genesis, in: View(store: self, heads: [:]))
    }

    fileprivate func stored(_ hash: Digest) throws(KernelError) -> Block? {
        guard let (place, sum) = try index.place(hash) else { return nil }
        let line = try log.line(place)
        guard ChainIndex.sum(line) == sum else { throw damaged(hash, place) }
        let block = try Block(parsing: line)
        guard block.hash == hash else { throw damaged(hash, place) }
        return block
    }

    private func damaged(_ hash: Digest, _ place: RecordLog.Place) -> KernelError {
        KernelError(
            .integrity,
            "block \(hash) is damaged: bytes \(place.offset)..<\(place.offset + UInt64(place.length)) of \(log.path) are not what was written",
            hint: RecordLog.hint)
    }
}

extension ChainStore {
    /// The log as far as it is durable, for reading beside appends, and its index.
    var readable: (log: RecordLog, index: ChainIndex) { lock.withLock { (log, index) } }

    /// Blocks that the index holds.
    public var blockCount: Int { Int(lock.withLock { index.arrivals }) }
}

// MARK: - Appending

extension ChainStore {
    /// What rules see while a record is checked: blocks that stand, and those before in the record.
    private struct View: ChainView {
        let store: ChainStore
        var batch: [Digest: Block] = [:]
        var heads: [String: Block]
        var genesis: Digest?
        var pact: GenesisPact?

        func head(of chain: String) throws(KernelError) -> Block? { heads[chain] }
        func document(_ block: Block) throws(KernelError) -> JSONValue { try store.json(block) }
        func block(_ hash: Digest) throws(KernelError) -> Block? {
            if let block = batch[hash] ?? store.pending[hash] { return block }
            return try store.stored(hash)
        }
    }

    /// Appends blocks, possibly of several chains, as one record: all of them or none.
    ///
    /// Blocks that stand already are left out. Each block's payload must be in ``payloads``. Callers on several
    /// threads share one sync.
    /// - Throws: ``KernelError`` with code `integrity` or `rule` naming the block; `io` if the record cannot be made
    ///   durable: then no further append is accepted.
    public func append(_ blocks: [Block]) throws(KernelError) {
        if let cycle = Self.cycle(among: blocks.map { ($0.hash, $0.header.dependsOn) }) {
            throw cycle
        }
        try checkSignatures(blocks)
        let lines = blocks.map(\.line)
        // Before anything is admitted: what waits to be written must be possible to write.
        let size = lines.reduce(0) { $0 + $1.count + 1 }
        guard size <= RecordLog.batchLimit else {
            throw KernelError(
                .limit,
                "\(blocks.count) blocks of \(size) bytes exceed one record's \(RecordLog.batchLimit) bytes",
                hint: "append them in smaller batches")
        }
        lock.lock()
        defer { lock.unlock() }
        if let failure { throw failure }
        // Another caller's blocks that are not durable yet are waited for, not acknowledged early.
        let isShared = blocks.contains { pending[$0.hash] != nil }
        let fresh = try admit(blocks)
        guard !fresh.isEmpty || isShared else { return }
        if !fresh.isEmpty {
            queue.append((fresh.map { (blocks[$0], lines[$0]) }, nextTicket))
            nextTicket += 1
        }
        let ticket = nextTicket - 1
        while durable <= ticket {
            if let failure { throw failure }
            if isCommitting { lock.wait() } else { commitQueue() }
        }
    }

    /// Deletes a payload, unless a block names it or is about to; after a cut of the log none, as at the start.
    ///
    /// - Throws: ``KernelError`` if the index is damaged; then it stays.
    public func remove(payload: Digest) throws(KernelError) {
        lock.lock()
        defer { lock.unlock() }
        let isBusy = failure != nil || pending.values.contains { $0.header.payloadHash == payload }
        guard !isBusy, !log.hasCuts, try !index.knows(payload: payload) else { return }
        unsafe unlink(payloads.path(of: payload))
    }

    /// The next block's place: its index and previous hash for a linear chain.
    public func next(on chain: String) -> (index: Int64, previous: Digest?) {
        lock.withLock {
            let head = heads[chain]
            return (
                head.map { $0.header.index + 1 } ?? 0,
                head?.hash ?? (chain == "A" ? nil : genesisHash)
            )
        }
    }

    private func checkSignatures(_ blocks: [Block]) throws(KernelError) {
        let bad = Mutex<Int?>(nil)
        DispatchQueue.concurrentPerform(iterations: blocks.count) { i in
            if !blocks[i].isSignatureValid { bad.withLock { $0 = min($0 ?? i, i) } }
        }
        if let i = bad.withLock({ $0 }) { throw blocks[i].signatureError }
    }

    /// What is wrong with ids that claim to depend on one another in a cycle, or nil.
    package static func cycle(among nodes: [(id: Digest, dependencies: [Digest])]) -> KernelError? {
        guard case .cycle(let path) = DependencyGraph.order(nodes) else { return nil }
        return KernelError(
            .rule,
            "blocks depend on one another in a cycle: "
                + path.map { $0.description }.joined(separator: " → "))
    }

    static func unknownChain(_ block: Block) -> KernelError {
        KernelError(
            .rule, "block \(block.hash) is on the unknown chain \"\(block.header.chainID)\"")
    }

    /// The positions of those that do not stand yet, which are pending from now on.
    ///
    /// - Parameter replaying: the blocks are durable already. Payloads may have been lost since: a rule that needs one
    ///   is checked when it is there again, by `verify`.
    private func admit(_ blocks: [Block], replaying: Bool = false) throws(KernelError) -> [Int] {
        var view = View(store: self, heads: heads, genesis: genesisHash, pact: pact)
        var fresh: [Int] = []
        for (i, block) in blocks.enumerated() {
            if try view.block(block.hash) != nil { continue }
            let header = block.header
            guard let spec = specs[header.chainID] else { throw Self.unknownChain(block) }
            if !replaying, let payload = header.payloadHash {
                guard payloads.contains(payload, size: UInt64(header.payloadSize)) else {
                    throw KernelError(
                        .rule, "the payload \(payload) of block \(block.hash) is not stored")
                }
            }
            do throws(KernelError) {
                try spec.check(block, in: view, signature: false)
            } catch {
                guard replaying, error.code != .rule else { throw error }
            }
            view.batch[block.hash] = block
            if spec.shape == .linear { view.heads[spec.id] = block }
            if view.genesis == nil {
                view.genesis = block.hash
                do throws(KernelError) {
                    view.pact = try GenesisPact(of: block, in: view)
                } catch {
                    guard replaying else { throw error }
                }
            }
            fresh.append(i)
        }
        heads = view.heads
        genesisHash = view.genesis
        pact = view.pact
        for i in fresh { pending[blocks[i].hash] = blocks[i] }
        return fresh
    }

    /// Writes everything that waits with one sync, then indexes it.
    ///
    /// Called with the lock, which it gives up meanwhile.
    private func commitQueue() {
        let group = queue
        queue.removeAll()
        isCommitting = true
        var bytes: [UInt8] = []
        var placed: [(block: Block, line: [UInt8], place: RecordLog.Place)] = []
        var writer = log
        lock.unlock()
        var outcome: KernelError?
        for (blocks, _) in group {
            let record = RecordLog.record(
                blocks.map(\.line), at: writer.end + UInt64(bytes.count))
            bytes.append(contentsOf: record.bytes)
            for ((block, line), place) in zip(blocks, record.places) {
                placed.append((block, line, place))
            }
        }
        do throws(KernelError) {
            try writer.commit(bytes)
        } catch {
            outcome = error
        }
        lock.lock()
        isCommitting = false
        if outcome == nil {
            let start = log.end
            log = writer
            do throws(KernelError) {
                try index.add(placed, start: start, end: log.end)
                for (block, _, _) in placed { pending[block.hash] = nil }
            } catch {
                // The record is durable; the index is rebuilt from the log at the next start.
                outcome = error
            }
            durable = (group.last?.ticket ?? durable - 1) + 1
        }
        if let outcome {
            failure = KernelError(
                outcome.code, "the home accepts no more blocks: \(outcome.message)",
                hint: outcome.hint)
        }
        lock.broadcast()
    }
}

// MARK: - Queries

extension ChainStore {
    /// What blocks are asked for by.
    public enum Query: Sendable {
        /// All blocks in order of arrival at this home.
        case arrival
        /// One chain by index, from an index on.
        case chain(String, from: Int64)
        /// Blocks of an expert name in order of arrival, of all models.
        case expert(String)
        /// Blocks that depend on one.
        case dependents(Digest)
        /// Blocks of a type on a chain.
        case type(chain: String, String)
        /// Blocks whose payload has a type.
        case payloadType(String)
    }

    /// The genesis block's hash: the network's identity; nil in an empty home.
    public var genesis: Digest? { lock.withLock { genesisHash } }

    /// A durable block, or nil.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func block(_ hash: Digest) throws(KernelError) -> Block? {
        lock.lock()
        defer { lock.unlock() }
        return try stored(hash)
    }

    /// Durable blocks that answer a query, until `body` answers false.
    ///
    /// Runs on the index.
    ///
    /// - Parameter reverse: last first.
    /// - Throws: ``KernelError`` if log or index are damaged; what `body` throws.
    public func scan(
        _ query: Query, reverse: Bool = false, _ body: (Block) throws(KernelError) -> Bool
    ) throws(KernelError) {
        let index = lock.withLock { self.index }
        try index.scan(query, reverse: reverse) { hash throws(KernelError) in
            guard let block = try block(hash) else {
                throw KernelError(
                    .integrity, "the index names block \(hash), which the log does not hold",
                    hint: "run `blyan chain reindex`")
            }
            return try body(block)
        }
    }

    /// The durable blocks that answer a query, at most `limit`.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func blocks(_ query: Query, limit: Int = .max, reverse: Bool = false) throws(KernelError)
        -> [Block]
    {
        var found: [Block] = []
        guard limit > 0 else { return found }
        try scan(query, reverse: reverse) { block throws(KernelError) in
            found.append(block)
            return found.count < limit
        }
        return found
    }

    /// Maps a block's payload.
    ///
    /// - Throws: ``KernelError`` with code `notFound` if the block has none; as ``MappedPayload/init``.
    public func map(_ block: Block, mode: VerifyMode) throws(KernelError) -> MappedPayload {
        let header = block.header
        guard let hash = header.payloadHash, let root = header.merkleRoot else {
            throw KernelError(.notFound, "block \(block.hash) has no payload")
        }
        let name = header.expertName.isEmpty ? header.blockType : header.expertName
        return try MappedPayload(
            path: payloads.path(of: hash), size: UInt64(header.payloadSize), root: root,
            layout: LeafLayout(header), mode: mode, label: "\(name) (block \(block.hash))",
            remembered: mode == .remember ? remembered : nil)
    }

    /// A block's payload as JSON, compared with its signed hash.
    func json(_ block: Block) throws(KernelError) -> JSONValue {
        let bytes = try document(block)
        return try KernelError.parsing { () throws(JSONError) in try JSONValue(parsing: bytes) }
    }

    /// A block's payload as bytes, verified; for documents, which are small.
    ///
    /// - Throws: As ``map(_:mode:)``; `integrity` if bytes do not have the signed hash; `limit` above 256 MiB.
    public func document(_ block: Block) throws(KernelError) -> [UInt8] {
        let payload = try map(block, mode: .touch)
        guard payload.size <= 256 << 20 else {
            throw KernelError(
                .limit,
                "the document of \(payload.label) has \(payload.size) bytes, at most 268435456")
        }
        let start = try unsafe payload.read(offset: 0, length: payload.size)
        let bytes = unsafe Array(UnsafeRawBufferPointer(start: start, count: Int(payload.size)))
        try payload.checkFault()
        // Leaves need not cover all of a payload.
        guard SHA256.hash(bytes) == block.header.payloadHash else {
            throw KernelError(.integrity, "the payload of \(payload.label) does not have its hash")
        }
        return bytes
    }
}
