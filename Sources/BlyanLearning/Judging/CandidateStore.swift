internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
package import Foundation

// Unchecked: `lock` guards the mutable state.
/// Candidates that wait for their verdict, each a file of its own in `HOME/candidates`, durable before it is acknowledged.
///
/// A candidate's payload lies among the home's payloads, which no block names yet: ``keeps(_:)`` spares it when the home
/// is opened. Those of rejected candidates are kept within a budget of bytes and age. Any thread.
package final class CandidateStore: @unchecked Sendable {
    /// One that waits, or was rejected not long ago.
    package struct Entry: Sendable, Equatable {
        /// Its block, which stands on no chain yet.
        package let block: Block
        /// The router that goes with it, on which it depends; nil if it changes one part alone.
        package let router: Block?
        /// UTC milliseconds.
        package let received: Int64
        fileprivate let file: String

        /// All blocks that stand nowhere yet, each after those that it depends on.
        var blocks: [Block] { (router.map { [$0] } ?? []) + [block] }
        var bytes: Int64 {
            blocks.reduce(0) { $0.addingReportingOverflow($1.header.payloadSize).partialValue }
        }
    }

    private let folder: URL
    private let lock = NSLock()
    private var waiting: [Entry] = []
    private var rejected: [Entry] = []
    private var nextNumber = 0

    /// Bytes of payloads of rejected candidates that are kept.
    package static let byteBudget: Int64 = 1 << 30
    /// Milliseconds that they are kept for.
    package static let ageBudget: Int64 = 7 * 24 * 3600 * 1000
    private static let suffix = ".json", rejectedSuffix = ".rejected.json"
    private static let format = "blyan-candidate/1"

    /// Reads what waits in a home, and forgets rejected ones beyond the budget.
    ///
    /// - Throws: ``KernelError`` with code `malformed` naming the file that is no candidate.
    package init(home: URL, now: Int64) throws(KernelError) {
        folder = home.appendingPathComponent("candidates")
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names.sorted() {
            guard name.hasSuffix(Self.suffix) else { continue }
            nextNumber = max(nextNumber, (Int(name.prefix(12)) ?? 0) + 1)
            let entry = try read(name)
            if name.hasSuffix(Self.rejectedSuffix) {
                rejected.append(entry)
            } else {
                waiting.append(entry)
            }
        }
        prune(now)
    }

    private func read(_ name: String) throws(KernelError) -> Entry {
        let path = folder.appendingPathComponent(name).path
        let bytes = FileManager.default.contents(atPath: path).map { Array($0) } ?? []
        guard let value = try? JSONValue(parsing: bytes), value["format"]?.string == Self.format,
            let received = value["received"]?.int, let line = value["block"]?.string
        else {
            throw KernelError(
                .malformed, "\(path) is no candidate", hint: "remove it: it was never judged")
        }
        var router: Block?
        if let line = value["router"]?.string { router = try Block(parsing: Array(line.utf8)) }
        return Entry(
            block: try Block(parsing: Array(line.utf8)), router: router, received: received,
            file: name)
    }

    /// Candidates that wait, first come first.
    package var queue: [Entry] { lock.withLock { waiting } }

    /// Whether a payload belongs to a candidate that waits or is kept.
    package func keeps(_ payload: Digest) -> Bool {
        lock.withLock {
            (waiting + rejected).contains { entry in
                entry.blocks.contains { $0.header.payloadHash == payload }
            }
        }
    }

    /// Makes a candidate durable.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    package func add(_ block: Block, router: Block? = nil, received: Int64) throws(KernelError) {
        lock.lock()
        defer { lock.unlock() }
        if !FileManager.default.fileExists(atPath: folder.path) {
            do {
                try FileManager.default.createDirectory(
                    at: folder, withIntermediateDirectories: true,
                    attributes: [.posixPermissions: 0o700])
            } catch { throw KernelError(.io, "cannot make \(folder.path): \(error)") }
        }
        let number =
            String(repeating: "0", count: max(0, 12 - "\(nextNumber)".count)) + "\(nextNumber)"
        let name = "\(number)-\(block.hash)\(Self.suffix)"
        var value: [String: JSONValue] = [
            "format": .string(Self.format), "received": .int(received),
            "block": .string(String(decoding: block.line, as: UTF8.self)),
        ]
        if let router { value["router"] = .string(String(decoding: router.line, as: UTF8.self)) }
        try DurableFile.write(
            JSONValue.object(value).canonical(), to: folder.appendingPathComponent(name),
            mode: 0o600)
        nextNumber += 1
        waiting.append(Entry(block: block, router: router, received: received, file: name))
    }

    /// Ends a candidate's wait, since its verdict is durable.
    ///
    /// - Parameter isRejected: its payload is kept for a while.
    package func end(_ candidate: Digest, isRejected: Bool, now: Int64) {
        lock.lock()
        defer { lock.unlock() }
        guard let at = waiting.firstIndex(where: { $0.block.hash == candidate }) else { return }
        let entry = waiting.remove(at: at)
        let path = folder.appendingPathComponent(entry.file).path
        guard isRejected else {
            unsafe unlink(path)
            return
        }
        let name = String(entry.file.dropLast(Self.suffix.count)) + Self.rejectedSuffix
        // A crash in between leaves it waiting: the verdict on chain then ends it at the next start.
        guard unsafe rename(path, folder.appendingPathComponent(name).path) == 0 else { return }
        rejected.append(
            Entry(block: entry.block, router: entry.router, received: entry.received, file: name))
        prune(now)
    }

    /// Forgets the oldest rejected ones beyond the budget; their payloads go when the home is opened next.
    private func prune(_ now: Int64) {
        var bytes = rejected.reduce(0) { $0 + $1.bytes }
        while let oldest = rejected.first,
            bytes > Self.byteBudget || now - oldest.received > Self.ageBudget
        {
            bytes -= oldest.bytes
            unsafe unlink(folder.appendingPathComponent(oldest.file).path)
            rejected.removeFirst()
        }
    }
}
