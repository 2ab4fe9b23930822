internal import BlyanJSON
public import BlyanKernel
internal import CBlyanPlugin
internal import Foundation
internal import Synchronization

/// Writes a checkpoint into the chains: a meta block on A, a block a part on B, a version block on A last.
///
/// Until the version block is there the model is incomplete and not served. An import that was stopped goes on where
/// it was: what is stored already is not stored again.
public struct Importer: Sendable {
    private let store: ChainStore
    private let key: SigningKey
    private let format: FormatPlugin
    private let payloadType: String
    private let clock: @Sendable () -> Int64
    private let onStored: @Sendable (Block) -> Void

    /// How far an import is.
    public struct Progress: Sendable {
        /// The part that was finished last.
        public var part = ""
        /// Parts that are stored, and how many there will be.
        public var parts = 0
        /// All parts of the model.
        public var allParts = 0
        /// Bytes of weights read so far.
        public var bytes = 0
        /// Bytes of weights in all.
        public var allBytes = 0
    }

    /// What an import came to.
    public struct Result: Sendable {
        /// The meta block: the model's identity.
        public let model: Digest
        /// Blocks that were written, version block included; 0 if the model was here already.
        public let blocks: Int
        /// Payloads of blocks that were here already, written again because they were gone or damaged.
        public let restored: Int
        /// Bytes of new payloads.
        public let payloadBytes: Int
    }

    /// An importer that signs with `key` and writes payloads with `format`.
    ///
    /// - Parameters:
    ///   - clock: UTC milliseconds.
    ///   - onStored: told of each block when it is durable.
    public init(
        store: ChainStore, key: SigningKey, format: FormatPlugin, payloadType: String,
        clock: @escaping @Sendable () -> Int64,
        onStored: @escaping @Sendable (Block) -> Void = { _ in }
    ) {
        self.store = store
        self.key = key
        self.format = format
        self.payloadType = payloadType
        self.clock = clock
        self.onStored = onStored
    }

    /// Imports a checkpoint.
    ///
    /// - Parameters:
    ///   - quantisation: "int8" for per-row int8 of all matrices but routers, or "" to keep dtypes.
    ///   - onProgress: called after each part; throws to stop.
    /// - Throws: ``ModelError`` for a checkpoint that is not whole, ``KernelError`` if something cannot be stored; what
    ///   was acknowledged stays and the import can be run again.
    public func run(
        _ checkpoint: any Checkpoint, name: String, quantisation: String,
        onProgress: (Progress) throws -> Void
    ) throws -> Result {
        // Shapes and dtypes of everything are checked before the first block is written.
        let layouts = checkpoint.config.parts
        let tensors = try layouts.map { try checkpoint.tensors(of: $0) }
        _ = try Tokenizer(checkpoint.tokenizer)
        func bytes(_ tensors: [CheckpointTensor]) -> Int {
            tensors.reduce(0) {
                $0 + $1.rows * $1.columns * ($1.dtype == UInt32(BLYAN_DTYPE_F32) ? 4 : 2)
            }
        }
        var rest = Array(zip(layouts, tensors))[...]
        func nextBatch() -> [Part] {
            var size = 0
            let batch = rest.prefix(4 * Self.threads).enumerated().prefix { (i, part) in
                size += bytes(part.1)
                return i < Self.threads / 2 || size <= Self.batchBytes
            }
            rest = rest.dropFirst(batch.count)
            return batch.map(\.element)
        }
        // While the source is hashed, which takes one core, the first payloads of a model that is new are written.
        let sources = Background { try checkpoint.sources() }
        var early: [StoredPayload] = []
        var batch = nextBatch()
        let isNamed = try store.blocks(.type(chain: "A", "meta")).contains {
            $0.header.metadata["model"]?.string == name
        }
        if !isNamed { early = try payloads(batch, quantisation: quantisation) }
        let document = MetaDocument(
            name: name, config: checkpoint.config, tokenizer: checkpoint.tokenizer,
            sources: try sources.value(),
            payloadType: payloadType, quantisation: quantisation)
        let (meta, isNew, isMended) = try metaBlock(document)
        guard Self.underWay.withLock({ $0.insert(meta.hash).inserted }) else {
            throw ModelError(
                "another import of \(name) is under way in this home",
                hint: "wait until it has ended: this one would write the same blocks")
        }
        defer { Self.underWay.withLock { _ = $0.remove(meta.hash) } }
        var written = isNew ? 1 : 0
        var restored = (isMended ? 1 : 0) + (try mendVersion(of: meta) ? 1 : 0)
        var payloadBytes = 0
        let known = try ModelCatalog(store).model(meta)
        // What is here is stored again only if its payload is damaged or gone.
        let damaged = try damagedParts(known.parts)
        if known.isComplete, damaged.isEmpty {
            return Result(
                model: meta.hash, blocks: written, restored: restored, payloadBytes: 0)
        }
        var progress = Progress(
            allParts: layouts.count, allBytes: tensors.reduce(0) { $0 + bytes($1) })
        var blocks: [String: Digest] = known.parts
        while !batch.isEmpty {
            for (layout, sources) in batch {
                guard let block = damaged[layout.name] else { continue }
                let payload = try write(layout, sources, quantisation: quantisation)
                guard payload.hash == block.header.payloadHash else {
                    throw ModelError(
                        "the payload of \(layout.name) (block \(block.hash)) is damaged, and this checkpoint gives another one",
                        hint: "restore it from a copy of this home")
                }
                payloadBytes += Int(payload.size)
                restored += 1
            }
            let missing = batch.filter { blocks[$0.0.name] == nil }
            // Another import of this very model may have made some of them meanwhile.
            let payloads =
                early.count == missing.count
                ? early : try payloads(missing, quantisation: quantisation)
            early = []
            let stored = try store(missing, payloads, meta: meta)
            for block in stored {
                blocks[block.header.expertName] = block.hash
                written += 1
                payloadBytes += Int(block.header.payloadSize)
            }
            for (layout, sources) in batch {
                progress.part = layout.name
                progress.parts += 1
                progress.bytes += bytes(sources)
                try onProgress(progress)
            }
            batch = nextBatch()
        }
        if known.isComplete {
            return Result(
                model: meta.hash, blocks: written, restored: restored, payloadBytes: payloadBytes)
        }
        let version = VersionDocument(model: meta.hash, parts: blocks, parent: nil, verdict: nil)
        _ = try appendDocument(
            "version", version.encoded(), dependsOn: [meta.hash],
            metadata: ["model": .string(name)])
        return Result(
            model: meta.hash, blocks: written + 1, restored: restored, payloadBytes: payloadBytes)
    }

    /// Writes the payload of a model's first version again if it is gone or damaged: it follows from the blocks.
    ///
    /// - Returns: Whether it was.
    private func mendVersion(of meta: Block) throws -> Bool {
        var version: Block?
        var parts: [String: Digest] = [:]
        try store.scan(.dependents(meta.hash)) { (block) throws(KernelError) in
            if block.header.blockType == "version" { version = block }
            if version == nil, block.header.chainID == "B" {
                parts[block.header.expertName] = block.hash
            }
            return version == nil
        }
        guard let version, !isWhole(version) else { return false }
        let document = VersionDocument(model: meta.hash, parts: parts, parent: nil, verdict: nil)
        return try restore(document.encoded(), of: version)
    }

    /// Writes a document's payload again if its bytes are those that a block names.
    private func restore(_ bytes: [UInt8], of block: Block) throws -> Bool {
        guard SHA256.hash(bytes) == block.header.payloadHash else { return false }
        let writer = try store.payloads.makeWriter()
        try writer.write(bytes)
        _ = try writer.finish()
        return true
    }

    private func isWhole(_ block: Block) -> Bool {
        guard let hash = block.header.payloadHash else { return true }
        return store.payloads.contains(hash, size: UInt64(block.header.payloadSize))
            && (try? store.payloads.fileHash(store.payloads.path(of: hash))) == hash
    }

    /// Blocks of parts whose payload file is gone or does not have its hash; all cores read.
    private func damagedParts(_ parts: [String: Digest]) throws -> [String: Block] {
        var blocks: [(name: String, block: Block)] = []
        for (name, hash) in parts {
            guard let block = try store.block(hash) else { continue }
            blocks.append((name, block))
        }
        let known = blocks
        let damaged = Mutex<[String: Block]>([:])
        DispatchQueue.concurrentPerform(iterations: known.count) { i in
            let (name, block) = known[i]
            if !isWhole(block) { damaged.withLock { $0[name] = block } }
        }
        return damaged.withLock { $0 }
    }

    /// The meta block of this very document, or a new one.
    private func metaBlock(_ document: MetaDocument) throws -> (
        Block, isNew: Bool, isMended: Bool
    ) {
        let bytes = try document.encoded()
        let hash = SHA256.hash(bytes)
        // Two imports of one model at once make one meta block.
        Self.metaLock.lock()
        defer { Self.metaLock.unlock() }
        for block in try store.blocks(.type(chain: "A", "meta")) {
            if block.header.payloadHash == hash {
                return (block, false, try !isWhole(block) && restore(bytes, of: block))
            }
            guard block.header.metadata["model"]?.string == document.name else { continue }
            throw ModelError(
                "this home has another model named \"\(document.name)\" (\(block.hash.description.prefix(12))): its weights, configuration or tokenizer differ from this one's",
                hint: "give this one another name with --name")
        }
        return (
            try appendDocument(
                "meta", bytes, dependsOn: [], metadata: ["model": .string(document.name)]), true,
            false
        )
    }

    private func appendDocument(
        _ type: String, _ bytes: [UInt8], dependsOn: [Digest], metadata: [String: JSONValue]
    ) throws -> Block {
        let document = try DocumentBlock(
            type, bytes, dependsOn: dependsOn, metadata: metadata, in: store)
        while true {
            let place = store.next(on: "A")
            let block = try document.block(at: place, with: key, now: clock())
            do throws(KernelError) {
                try store.append([block])
            } catch {
                // Another writer may have taken this place: the next try is for the one after it.
                guard error.code == .rule, store.next(on: "A").index > place.index else {
                    throw error
                }
                continue
            }
            onStored(block)
            return block
        }
    }

    private static let metaLock = NSLock()
    private static let underWay = Mutex<Set<Digest>>([])

    // Twice the cores: while half of them hash, the others wait for the disk.
    private static let threads = 2 * ProcessInfo.processInfo.activeProcessorCount

    /// Bytes of weights that are committed as one record, unless fewer parts than cores have more.
    private static let batchBytes = 256 << 20

    private typealias Part = (PartLayout, [CheckpointTensor])

    /// Makes the payloads of parts durable, on several threads.
    private func payloads(_ parts: [Part], quantisation: String) throws -> [StoredPayload] {
        let results = Mutex<[Int: Swift.Result<StoredPayload, any Error>]>([:])
        let next = Atomic<Int>(0)
        let running = DispatchGroup()
        for _ in 0..<min(Self.threads, parts.count) {
            running.enter()
            // Threads of their own: a queue would start no more of them than there are cores.
            Thread.detachNewThread {
                defer { running.leave() }
                while true {
                    let i = next.add(1, ordering: .relaxed).oldValue
                    guard i < parts.count else { return }
                    let result = Swift.Result {
                        try write(parts[i].0, parts[i].1, quantisation: quantisation)
                    }
                    results.withLock { $0[i] = result }
                }
            }
        }
        running.wait()
        let made = results.withLock { $0 }
        return try parts.indices.compactMap { try made[$0]?.get() }
    }

    /// Makes the payload of a part durable.
    private func write(
        _ layout: PartLayout, _ tensors: [CheckpointTensor], quantisation: String
    ) throws -> StoredPayload {
        // Routers decide by small differences: they keep their dtype.
        let isQuantised = quantisation == "int8" && !layout.name.hasSuffix(".router")
        return try PartWriter(store: store, format: format).write(
            tensors, options: isQuantised ? PartWriter.int8 : "{}")
    }

    /// Stores parts, whose payloads are durable, as one record.
    private func store(
        _ parts: [Part], _ payloads: [StoredPayload], meta: Block
    ) throws -> [Block] {
        let blocks = try zip(parts, payloads).map { try block($0.0, $1, meta: meta) }
        if !blocks.isEmpty { try store.append(blocks) }
        for block in blocks { onStored(block) }
        return blocks
    }

    /// The signed block of a part.
    private func block(_ layout: PartLayout, _ payload: StoredPayload, meta: Block) throws -> Block
    {
        var header = BlockHeader(
            chainID: "B", blockType: "parameters", index: 0, previous: store.genesis,
            timestamp: clock())
        header.dependsOn = [meta.hash]
        header.expertName = layout.name
        header.layerID = Int64(max(0, layout.layer))
        header.version = "1.0.0"
        payload.describe(in: &header, type: payloadType)
        return try Block(signing: header, with: key)
    }
}
