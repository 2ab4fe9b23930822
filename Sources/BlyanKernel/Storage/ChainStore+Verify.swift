internal import BlyanJSON
internal import Foundation
internal import Synchronization

/// What a check of all headers found.
public struct VerifyReport: Sendable {
    /// A block that breaks a rule.
    public struct Failure: Sendable {
        /// Its hash, or the record it stands in if it cannot be read.
        public let block: String
        /// What is wrong.
        public let reason: String
    }

    /// Blocks in the log.
    public var blocks = 0
    /// Blocks by chain.
    public var chains: [String: Int] = [:]
    /// Blocks that break a rule, in the log's order.
    public var failures: [Failure] = []
}

/// What a check of payloads found.
public struct CheckReport: Sendable {
    /// Distinct payloads that blocks name, one that blocks describe in two ways counted twice.
    public var payloads = 0
    /// Bytes of payloads that were looked at.
    public var bytes = 0
    /// What is wrong, a sentence a payload.
    public var failures: [String] = []
}

extension ChainStore {
    /// Checks every header in the log: canonical form, hash, signature, links and the rules of its chain.
    ///
    /// Parsing and signatures run on all cores, links in the order of the log.
    /// - Throws: ``KernelError`` if the log cannot be read.
    public func verify() throws(KernelError) -> VerifyReport {
        let (log, index) = readable
        let reader = Mutex(LogPieces(log: log))
        let linker = Mutex(Linker(store: self, log: log))
        var checked: [Checked] = []
        var lines = reader.withLock { $0.next() }
        while !lines.isEmpty || !checked.isEmpty {
            // Whoever takes the first step reads ahead and links what the round before has checked: the two steps that
            // keep an order wait for nobody, and nobody for them.
            let (round, before) = (lines, checked)
            let following = Mutex(lines.prefix(0))
            let found = Mutex<[(at: Int, items: [Checked])]>([])
            DispatchQueue.concurrentPerform(
                iterations: 1 + (round.count + Self.piece - 1) / Self.piece
            ) { step in
                if step == 0 {
                    let next = reader.withLock { $0.next() }
                    following.withLock { $0 = next }
                    linker.withLock { for item in before { $0.add(item) } }
                } else {
                    let at = round.startIndex + (step - 1) * Self.piece
                    let items = round[at..<min(at + Self.piece, round.endIndex)].map { Checked($0) }
                    found.withLock { $0.append((at, items)) }
                }
            }
            checked = found.withLock { $0 }.sorted { $0.at < $1.at }.flatMap(\.items)
            lines = following.withLock { $0 }
        }
        if let error = reader.withLock({ $0.failure }) { throw error }
        return linker.withLock { $0.finish(index) }
    }

    /// Lines that one step checks.
    private static let piece = 4

    /// A line's block, checked by itself: canonical form and signature.
    private final class Checked: Sendable {
        let found: (block: Block, place: RecordLog.Place)?
        let error: KernelError?

        init(_ line: Result<RecordLog.Line, KernelError>) {
            do throws(KernelError) {
                let (line, place) = try line.get()
                let block = try Block(parsing: line)
                found = (block, place)
                error = block.isSignatureValid ? nil : block.signatureError
            } catch {
                found = nil
                self.error = error
            }
        }
    }

    /// The log in rounds for several threads; damage stands where the lines are missing.
    private struct LogPieces {
        let log: RecordLog
        var offset: UInt64 = 0
        var waiting: ArraySlice<Result<RecordLog.Line, KernelError>> = []
        var failure: KernelError?

        /// The next lines, at most 512; none at the end, or if the log cannot be read.
        mutating func next() -> ArraySlice<Result<RecordLog.Line, KernelError>> {
            while waiting.count < 512, failure == nil {
                do throws(KernelError) {
                    guard let lines = try log.next(&offset) else { break }
                    waiting.append(contentsOf: lines.map { .success($0) })
                } catch {
                    if error.code == .integrity {
                        waiting.append(.failure(error))
                    } else {
                        failure = error
                    }
                }
            }
            guard failure == nil else { return [] }
            defer { waiting = waiting.dropFirst(512) }
            return waiting.prefix(512)
        }
    }

    /// Checks links in the order of the log.
    private struct Linker {
        var report = VerifyReport()
        private let view: LogView
        // Blocks, and what they depend on that was not here before them.
        private var early: [(block: Digest, missing: Digest)] = []

        init(store: ChainStore, log: RecordLog) { view = LogView(store, log) }

        mutating func add(_ checked: Checked) {
            var error = checked.error
            if let (block, place) = checked.found {
                report.blocks += 1
                report.chains[block.header.chainID, default: 0] += 1
                let spec = view.store.specs[block.header.chainID]
                do throws(KernelError) {
                    guard let spec else { throw ChainStore.unknownChain(block) }
                    try spec.check(block, in: view, signature: false)
                } catch let found {
                    error = error ?? found
                }
                for missing in block.header.dependsOn where error != nil && !view.has(missing) {
                    early.append((block.hash, missing))
                }
                // A bad block is linked to all the same: those after it are not bad for that.
                view.add(block, place, isLinear: spec?.shape == .linear)
            }
            if let error { fail(checked.found?.block.hash.description ?? "?", error.message) }
        }

        private mutating func fail(_ block: String, _ reason: String) {
            report.failures.append(.init(block: block, reason: reason))
        }

        /// The report, with what only the end of the log shows.
        mutating func finish(_ index: ChainIndex) -> VerifyReport {
            // Hash links allow a block before what it depends on in a log whose records changed places, and a cycle
            // never: one that is claimed all the same is named.
            var nodes: [(id: Digest, dependencies: [Digest])] = []
            var open = early.map(\.block)
            var seen = Set(open)
            while let hash = open.popLast() {
                guard let header = try? view.block(hash)?.header else { continue }
                nodes.append((hash, header.dependsOn))
                open += header.dependsOn.filter { seen.insert($0).inserted }
            }
            if let cycle = ChainStore.cycle(among: nodes) { fail("?", cycle.message) }
            for (block, late) in early where view.has(late) {
                fail("\(block)", "block \(block) comes before \(late), on which it depends")
            }
            // The index remembers what a damaged log has lost.
            if !report.failures.isEmpty || index.last.map({ !view.has($0) }) == true {
                try? index.scan(.arrival, reverse: false) { hash throws(KernelError) in
                    if !view.has(hash) {
                        fail("\(hash)", "block \(hash) was acknowledged, and the log has lost it")
                    }
                    return true
                }
            }
            return report
        }
    }

    /// Blocks of the log as the rules see them, without the index: where they lie, and those of late.
    private final class LogView: ChainView {
        private let log: RecordLog
        let store: ChainStore
        private var places: [Digest: RecordLog.Place] = [:]
        private var recent: [Digest: Block] = [:]
        private var heads: [String: Block] = [:]
        private(set) var genesis: Digest?
        private(set) var pact: GenesisPact?

        init(_ store: ChainStore, _ log: RecordLog) {
            self.store = store
            self.log = log
        }

        func has(_ hash: Digest) -> Bool { places[hash] != nil }

        private func keep(_ block: Block) {
            if recent.count >= 4096 { recent.removeAll(keepingCapacity: true) }
            recent[block.hash] = block
        }

        func add(_ block: Block, _ place: RecordLog.Place, isLinear: Bool) {
            places[block.hash] = place
            keep(block)
            if isLinear { heads[block.header.chainID] = block }
            guard genesis == nil else { return }
            genesis = block.hash
            pact = try? GenesisPact(of: block, in: self)
        }

        func document(_ block: Block) throws(KernelError) -> JSONValue { try store.json(block) }
        func head(of chain: String) throws(KernelError) -> Block? { heads[chain] }
        func block(_ hash: Digest) throws(KernelError) -> Block? {
            if let block = recent[hash] { return block }
            guard let place = places[hash] else { return nil }
            let block = try Block(parsing: try log.line(place))
            keep(block)
            return block
        }
    }

    /// One block for each payload and each claim about it (size, root, leaves), in order of arrival.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func blocksWithPayloads() throws(KernelError) -> [Digest] {
        struct Claim: Hashable {
            let payload: Digest, size: Int64, root: Digest?, layout: LeafLayout?
        }
        var seen: Set<Claim> = []
        var found: [Digest] = []
        try scan(.arrival) { block throws(KernelError) in
            let header = block.header
            guard let payload = header.payloadHash else { return true }
            let claim = Claim(
                payload: payload, size: header.payloadSize, root: header.merkleRoot,
                layout: try? LeafLayout(header))
            if seen.insert(claim).inserted { found.append(block.hash) }
            return true
        }
        return found
    }

    /// Checks the payload of every block: that it is there with its signed size, or that every byte is what was signed.
    ///
    /// - Parameters:
    ///   - readData: read all bytes and compare both the payload's hash and its Merkle root.
    ///   - onProgress: payloads done, payloads in all, bytes read.
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func check(
        readData: Bool,
        onProgress: (_ done: Int, _ all: Int, _ bytes: Int) -> Void = { _, _, _ in }
    ) throws(KernelError) -> CheckReport {
        let hashes = try blocksWithPayloads()
        var report = CheckReport(payloads: hashes.count)
        let threads = ProcessInfo.processInfo.activeProcessorCount
        for (i, hash) in hashes.enumerated() {
            guard let block = try block(hash) else { continue }
            do throws(KernelError) {
                let payload = try map(block, mode: .touch)
                if readData {
                    try payload.verifyAll(threads: threads)
                    if let hash = block.header.payloadHash,
                        try payloads.fileHash(payloads.path(of: hash)) != hash
                    {
                        throw KernelError(
                            .integrity,
                            "the payload of \(payload.label) does not have the hash \(hash)")
                    }
                    try payload.checkFault()
                }
            } catch {
                report.failures.append(error.message)
            }
            report.bytes += Int(block.header.payloadSize)
            onProgress(i + 1, hashes.count, report.bytes)
        }
        return report
    }
}
