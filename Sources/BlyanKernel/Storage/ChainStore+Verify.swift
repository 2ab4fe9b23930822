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
    /// Distinct payloads that blocks name.
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
        let reader = Mutex(LogPieces(log: durableLog))
        let linker = Mutex(Linker(store: self))
        DispatchQueue.concurrentPerform(
            iterations: ProcessInfo.processInfo.activeProcessorCount
        ) { _ in
            while let (number, items) = reader.withLock({ $0.next() }) {
                let parsed = items.map { Checked($0) }
                linker.withLock { $0.add(parsed, at: number) }
            }
        }
        if let error = reader.withLock({ $0.failure }) { throw error }
        return linker.withLock { $0.report }
    }

    /// A line's block, checked by itself: canonical form and signature.
    private struct Checked {
        var block: Block?
        var error: KernelError?

        init(_ line: Result<[UInt8], KernelError>) {
            do throws(KernelError) {
                let found = try Block(parsing: try line.get())
                block = found
                if !found.isSignatureValid { error = found.signatureError }
            } catch {
                self.error = error
            }
        }
    }

    /// The log in small pieces for several threads; damage stands where the lines are missing.
    private struct LogPieces {
        let log: RecordLog
        var offset: UInt64 = 0
        var waiting: ArraySlice<Result<[UInt8], KernelError>> = []
        var number = -1
        var failure: KernelError?

        mutating func next() -> (number: Int, lines: ArraySlice<Result<[UInt8], KernelError>>)? {
            while waiting.count < 16, failure == nil {
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
            guard !waiting.isEmpty, failure == nil else { return nil }
            defer { waiting = waiting.dropFirst(16) }
            number += 1
            return (number, waiting.prefix(16))
        }
    }

    /// Checks links in the order of the log, whatever the order in which pieces were parsed.
    private struct Linker {
        var report = VerifyReport()
        private var view: MemoryView
        private var waiting: [Int: [Checked]] = [:]
        private var next = 0

        init(store: ChainStore) { view = MemoryView(store: store) }

        mutating func add(_ piece: [Checked], at number: Int) {
            waiting[number] = piece
            while let piece = waiting.removeValue(forKey: next) {
                next += 1
                for checked in piece { add(checked) }
            }
        }

        private mutating func add(_ checked: Checked) {
            var error = checked.error
            if let block = checked.block {
                report.blocks += 1
                report.chains[block.header.chainID, default: 0] += 1
                let spec = view.store.specs[block.header.chainID]
                do throws(KernelError) {
                    guard let spec else { throw ChainStore.unknownChain(block) }
                    try spec.check(block, in: view, signature: false)
                } catch let found {
                    error = error ?? found
                }
                // A bad block is linked to all the same: those after it are not bad for that.
                view.add(block, isLinear: spec?.shape == .linear)
            }
            if let error {
                report.failures.append(
                    .init(block: checked.block?.hash.description ?? "?", reason: error.message))
            }
        }
    }

    /// Blocks of the log as the rules see them, without the index.
    private struct MemoryView: ChainView {
        let store: ChainStore
        var blocks: [Digest: Block] = [:]
        var heads: [String: Block] = [:]
        var genesis: Digest?
        var pact: GenesisPact?

        mutating func add(_ block: Block, isLinear: Bool) {
            blocks[block.hash] = block
            if isLinear { heads[block.header.chainID] = block }
            guard genesis == nil else { return }
            genesis = block.hash
            pact = try? GenesisPact(of: block, in: self)
        }

        func document(_ block: Block) throws(KernelError) -> JSONValue {
            let bytes = try store.document(block)
            return try KernelError.parsing { () throws(JSONError) in try JSONValue(parsing: bytes) }
        }
        func head(of chain: String) throws(KernelError) -> Block? { heads[chain] }
        func block(_ hash: Digest) throws(KernelError) -> Block? { blocks[hash] }
    }

    /// Checks the payload of every block: that it is there with its signed size, or that every byte is what was signed.
    ///
    /// - Parameters:
    ///   - readData: read all bytes and compare both the payload's hash and its Merkle root.
    ///   - part: look only at the n-th of t parts of the payloads, n from 1 to t.
    ///   - onProgress: payloads done, payloads in all, bytes read.
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func check(
        readData: Bool, part: (n: Int, of: Int) = (1, 1),
        onProgress: (_ done: Int, _ all: Int, _ bytes: Int) -> Void = { _, _, _ in }
    ) throws(KernelError) -> CheckReport {
        guard part.of >= 1, (1...part.of).contains(part.n) else {
            throw KernelError(.limit, "there is no part \(part.n) of \(part.of)")
        }
        var seen: Set<Digest> = []
        var blocks: [Block] = []
        try scan(.arrival) { block throws(KernelError) in
            if let payload = block.header.payloadHash, seen.insert(payload).inserted {
                if seen.count % part.of == part.n % part.of { blocks.append(block) }
            }
            return true
        }
        var report = CheckReport(payloads: blocks.count)
        let threads = ProcessInfo.processInfo.activeProcessorCount
        for (i, block) in blocks.enumerated() {
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
            onProgress(i + 1, blocks.count, report.bytes)
        }
        return report
    }

    /// Writes a block's payload to a new file, every leaf compared with what was signed.
    ///
    /// - Throws: ``KernelError`` with code `io` if the file exists or cannot be written; `integrity`.
    public func export(_ block: Block, to path: String) throws(KernelError) {
        let payload = try map(block, mode: .touch)
        try payload.verifyAll(threads: ProcessInfo.processInfo.activeProcessorCount)
        let descriptor = try Disk.real.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
        defer { Foundation.close(descriptor) }
        guard payload.size > 0 else { return }
        let start = try unsafe payload.read(offset: 0, length: payload.size)
        let bytes = unsafe UnsafeRawBufferPointer(start: start, count: Int(payload.size))
        try unsafe Disk.real.write(bytes, to: descriptor, path: path)
        try payload.checkFault()
    }
}
