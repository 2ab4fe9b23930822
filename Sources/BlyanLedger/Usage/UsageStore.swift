internal import BlyanJSON
public import BlyanKernel
public import Foundation

// Unchecked: `lock` guards the counts, `writing` the store.
/// How often, how long and for whom versions of experts were used: counted in memory, and written durably in batches.
///
/// Any thread. A kill loses what came since the last batch, a few seconds at most; nothing that stands in a usage block.
///
/// | key | value |
/// | --- | --- |
/// | `u` block(32) payer(33, zeros: the node itself) | the 8 numbers of ``UsageCounts`` |
/// | `p` | the document of a settlement that was begun, or nothing |
/// | `t` | the time of the last settlement's document, 8 bytes |
public final class UsageStore: @unchecked Sendable {
    /// One version's use by one payer.
    public struct Line: Sendable, Equatable {
        /// The version's block on chain B.
        public let block: Digest
        /// Who paid; nil: the node's own use, which earns nobody anything.
        public let payer: Account?
        /// What it did.
        public var counts: UsageCounts
    }

    private struct Key: Hashable {
        let block: Digest
        let payer: Account?

        var bytes: [UInt8] {
            [UInt8(ascii: "u")] + block.bytes
                + (payer?.bytes ?? [UInt8](repeating: 0, count: 33))
        }

        init(_ block: Digest, _ payer: Account?) { (self.block, self.payer) = (block, payer) }

        init?(_ bytes: [UInt8]) {
            guard bytes.count == 66, let block = Digest(bytes[1..<33]) else { return nil }
            self.block = block
            payer = Account(bytes[33...])
            guard payer != nil || bytes[33...].allSatisfy({ $0 == 0 }) else { return nil }
        }
    }

    /// Versions that one usage block counts at most.
    public static let settlementLimit = 2_000
    private let path: String
    private let interval: Double
    private let lock = NSLock()
    private let writing = NSLock()
    private let queue = DispatchQueue(label: "usage", qos: .utility)
    private var fresh: [Key: UsageCounts] = [:]
    private var isScheduled = false
    private var failure: KernelError?
    private var store: IndexStore?
    private var isClosed = false

    /// The counts of a home; nothing is opened until something is counted or asked.
    ///
    /// - Parameter interval: seconds between batches.
    public init(home: URL, interval: Double = 3) {
        path = home.appendingPathComponent("usage").path
        self.interval = interval
    }

    /// Why the last batch was not written, or nil; it is tried again with the next one.
    public var fault: KernelError? { lock.withLock { failure } }

    // MARK: Counting

    /// What some steps of a request took of one version.
    public struct Step: Sendable {
        /// The version's block.
        public let block: Digest
        /// Whether it served the request for the first time.
        public let isFirst: Bool
        /// Tokens that it served.
        public let tokens: Int
        /// Steps in which it served.
        public let steps: Int
        /// How long those steps took.
        public let nanoseconds: Int64

        /// Makes one.
        public init(
            block: Digest, isFirst: Bool, tokens: Int, steps: Int = 1, nanoseconds: Int64 = 0
        ) {
            (self.block, self.isFirst, self.tokens) = (block, isFirst, tokens)
            (self.steps, self.nanoseconds) = (steps, nanoseconds)
        }
    }

    /// Steps of a request.
    ///
    /// - Parameters:
    ///   - taken: what they took of each version.
    ///   - payer: who pays; nil for the node itself.
    ///   - time: UTC milliseconds.
    public func used(_ taken: [Step], payer: Account?, time: Int64) {
        note { fresh in
            for step in taken {
                var counts = UsageCounts()
                (counts.calls, counts.openCalls) = step.isFirst ? (1, 1) : (0, 0)
                (counts.tokens, counts.steps) = (Int64(step.tokens), Int64(step.steps))
                let microseconds = max(0, step.nanoseconds / 1000)
                (counts.microseconds, counts.openMicroseconds) = (microseconds, microseconds)
                counts.lastUse = max(0, time)
                fresh[Key(step.block, payer), default: UsageCounts()].add(counts)
            }
        }
    }

    /// A version was mapped.
    public func loaded(_ block: Digest) {
        note { $0[Key(block, nil), default: UsageCounts()].loads += 1 }
    }

    private func note(_ change: (inout [Key: UsageCounts]) -> Void) {
        let schedules = lock.withLock { () -> Bool in
            change(&fresh)
            defer { isScheduled = true }
            return !isScheduled
        }
        guard schedules else { return }
        queue.asyncAfter(deadline: .now() + interval) { [weak self] in
            guard let self else { return }
            lock.withLock { isScheduled = false }
            var found: KernelError?
            do throws(KernelError) { try flush() } catch { found = error }
            lock.withLock { failure = found }
        }
    }

    // MARK: Writing

    /// With `writing`.
    private func opened() throws(KernelError) -> IndexStore {
        if let store { return store }
        guard !isClosed else { throw KernelError(.io, "the usage counts are closed") }
        do throws(KernelError) {
            let made = try IndexStore(path: path, cache: 1 << 20)
            store = made
            return made
        } catch {
            throw KernelError(
                error.code, "the usage counts cannot be opened: \(error.message)",
                hint: error.code == .integrity
                    ? "remove \(path) while nobody holds the home: counts begin anew, what stands in usage blocks stays"
                    : nil)
        }
    }

    /// Makes durable what was counted.
    ///
    /// - Throws: ``KernelError`` with code `io` or `integrity`.
    public func flush() throws(KernelError) {
        writing.lock()
        defer { writing.unlock() }
        _ = try merge([])
    }

    /// Writes fresh counts, and `more`, as one batch; with `writing`.
    private func merge(_ more: [(key: [UInt8], value: [UInt8])]) throws(KernelError) -> IndexStore?
    {
        let taken = lock.withLock {
            defer { fresh.removeAll(keepingCapacity: true) }
            return fresh
        }
        guard !taken.isEmpty || !more.isEmpty else { return store }
        do throws(KernelError) {
            let store = try opened()
            var pairs = more
            for (key, counts) in taken {
                var sum = try read(key.bytes, store)
                sum.add(counts)
                pairs.append((key.bytes, sum.bytes))
            }
            try store.put(pairs)
            try store.sync()
            return store
        } catch {
            // Nothing was written: it is tried again with the next batch.
            lock.withLock {
                for (key, counts) in taken { fresh[key, default: UsageCounts()].add(counts) }
            }
            throw error
        }
    }

    private func read(_ key: [UInt8], _ store: IndexStore) throws(KernelError) -> UsageCounts {
        guard let bytes = try store.get(key) else { return UsageCounts() }
        guard let counts = UsageCounts(bytes) else { throw damaged() }
        return counts
    }

    private func damaged() -> KernelError {
        KernelError(
            .integrity, "\(path) holds counts that cannot be",
            hint:
                "remove it while nobody holds the home: counts begin anew, what stands in usage blocks stays"
        )
    }

    /// All counts so far, in byte order of blocks.
    ///
    /// - Throws: ``KernelError`` with code `io` or `integrity`.
    public func lines() throws(KernelError) -> [Line] {
        writing.lock()
        defer { writing.unlock() }
        return try allLines()
    }

    /// With `writing`.
    private func allLines() throws(KernelError) -> [Line] {
        guard FileManager.default.fileExists(atPath: path) || !lock.withLock({ fresh.isEmpty })
        else { return [] }
        _ = try merge([])
        var lines: [Line] = []
        let store = try opened()
        try store.scan(from: [UInt8(ascii: "u")], to: [UInt8(ascii: "v")]) {
            (key, value) throws(KernelError) in
            guard let key = Key(key), let counts = UsageCounts(value) else { throw damaged() }
            lines.append(Line(block: key.block, payer: key.payer, counts: counts))
            return true
        }
        return lines
    }

    /// Writes what was counted and gives LevelDB's files back; no call may follow.
    ///
    /// - Throws: ``KernelError`` if the last batch could not be written.
    public func close() throws(KernelError) {
        writing.lock()
        defer { writing.unlock() }
        let result = Result { () throws(KernelError) in _ = try merge([]) }
        (store, isClosed) = (nil, true)
        try result.get()
    }
}

// MARK: - Settling

extension UsageStore {
    /// Begins a settlement: what stands in no usage block yet leaves the counts and is kept as a document, durably, until
    /// ``endSettlement(_:)``; or gives the one that was begun before and did not end.
    ///
    /// - Parameters:
    ///   - time: UTC milliseconds.
    ///   - quality: of a version, in millionths.
    /// - Returns: The document, or nil if nothing is to be settled.
    /// - Throws: ``KernelError`` with code `io` or `integrity`; what `quality` throws.
    public func beginSettlement(
        time: Int64, quality: (Digest) throws(KernelError) -> Int64
    ) throws(KernelError) -> UsageDocument? {
        writing.lock()
        defer { writing.unlock() }
        let lines = try allLines()
        guard !lines.isEmpty else { return nil }
        let store = try opened()
        if let bytes = try store.get([UInt8(ascii: "p")]), !bytes.isEmpty {
            return try UsageDocument(parsing: bytes)
        }
        var entries: [UsageDocument.Entry] = []
        var pairs: [(key: [UInt8], value: [UInt8])] = []
        for line in lines where line.counts.openCalls > 0 {
            let calls = min(line.counts.openCalls, JSONValue.integers.upperBound / 1_000_000)
            let milliseconds = min(
                line.counts.openMicroseconds / 1000, JSONValue.integers.upperBound / 1_000_000)
            if entries.last?.block != line.block {
                guard entries.count < Self.settlementLimit, pairs.count < 100_000 else { break }
                entries.append(
                    UsageDocument.Entry(
                        block: line.block, calls: 0, milliseconds: 0, lastUse: 0,
                        quality: try quality(line.block), paid: []))
            }
            let last = entries.count - 1
            entries[last].calls += calls
            entries[last].milliseconds += milliseconds
            entries[last].lastUse = max(entries[last].lastUse, line.counts.lastUse)
            if let payer = line.payer {
                entries[last].paid.append(
                    UsageDocument.Paid(
                        payer: payer, calls: calls, milliseconds: milliseconds,
                        lastUse: line.counts.lastUse))
            }
            var rest = line.counts
            rest.openCalls -= calls
            rest.openMicroseconds -= milliseconds * 1000
            pairs.append((Key(line.block, line.payer).bytes, rest.bytes))
        }
        guard !entries.isEmpty else { return nil }
        let before = try store.get([UInt8(ascii: "t")]) ?? []
        let last = Int64(bitPattern: before.reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        let document = UsageDocument(time: max(time, last &+ 1), entries: entries)
        pairs.append(([UInt8(ascii: "p")], document.document.canonical()))
        pairs.append(
            (
                [UInt8(ascii: "t")],
                stride(from: 56, through: 0, by: -8).map {
                    UInt8(truncatingIfNeeded: document.time >> Int64($0))
                }
            ))
        try store.put(pairs)
        try store.sync()
        return document
    }

    /// Ends a settlement: its document stands in a usage block.
    ///
    /// - Throws: ``KernelError`` with code `io`; then the next ``beginSettlement(time:quality:)`` gives it again.
    public func endSettlement() throws(KernelError) {
        writing.lock()
        defer { writing.unlock() }
        let store = try opened()
        try store.put([([UInt8(ascii: "p")], [])])
        try store.sync()
    }
}
