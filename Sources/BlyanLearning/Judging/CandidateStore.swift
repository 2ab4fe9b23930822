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
        /// Plugins that were being asked about it when the node ended, and did not answer since.
        package internal(set) var deaths: [PluginDeath] = []
        fileprivate let file: String

        /// All blocks that stand nowhere yet, each after those that it depends on.
        var blocks: [Block] { (router.map { [$0] } ?? []) + [block] }
        var bytes: Int64 {
            blocks.reduce(0) { $0.addingReportingOverflow($1.header.payloadSize).partialValue }
        }

        fileprivate var json: JSONValue {
            var value: [String: JSONValue] = [
                "format": .string(CandidateStore.format), "received": .int(received),
                "block": .string(String(decoding: block.line, as: UTF8.self)),
            ]
            if let router {
                value["router"] = .string(String(decoding: router.line, as: UTF8.self))
            }
            if !deaths.isEmpty { value["deaths"] = .array(deaths.map(\.json)) }
            return .object(value)
        }
    }

    private let folder: URL
    private let asked: AskedFile
    private let lock = NSLock()
    private var waiting: [Entry] = []
    private var rejected: [Entry] = []
    private var nextNumber = 0

    /// What is kept of rejected candidates.
    package struct Budget: Sendable {
        /// Bytes of their payloads.
        package var bytes: Int64 = 1 << 30
        /// Milliseconds since they were received.
        package var milliseconds: Int64 = 7 * 24 * 3600 * 1000

        package init() {}
    }

    /// What is kept of rejected candidates; the oldest go first.
    package var budget: Budget {
        get { lock.withLock { kept } }
        set { lock.withLock { kept = newValue } }
    }
    private var kept = Budget()
    // Work that writes payloads of which nothing tells yet.
    private var holders = 0
    /// Where a verdict lies that lacks signatures.
    var draftPath: String { folder.appendingPathComponent(Self.draftName).path }
    private static let draftName = "draft.json"
    private static let suffix = ".json", rejectedSuffix = ".rejected.json"
    private static let format = "blyan-candidate/1"
    /// Whether a file cannot be read, so that nobody knows which payload is its candidate's.
    private var isDamaged = false
    /// Files that cannot be read, and what the last process left that ended while it asked a plugin: for the log.
    package private(set) var notes: [String] = []

    /// Reads what waits in a home, and forgets rejected ones beyond the budget.
    ///
    /// If a plugin was being asked when the last process ended, that is counted, and its candidate goes to the end of the
    /// queue. A file that cannot be read is noted and left where it is.
    package init(home: URL, now: Int64) {
        folder = home.appendingPathComponent("candidates")
        asked = AskedFile(folder: folder)
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names.sorted() {
            guard name.hasSuffix(Self.suffix), name != AskedFile.name, name != Self.draftName
            else { continue }
            nextNumber = max(nextNumber, (Int(name.prefix(12)) ?? 0) + 1)
            guard let entry = read(name) else {
                isDamaged = true
                notes.append(
                    "\(folder.appendingPathComponent(name).path) is no candidate that its author signed and this node can read, and is left out: put a copy of the file there, or remove it and have the candidate submitted again"
                )
                continue
            }
            if name.hasSuffix(Self.rejectedSuffix) {
                rejected.append(entry)
            } else {
                waiting.append(entry)
            }
        }
        countDeath()
        waiting = waiting.filter(\.deaths.isEmpty) + waiting.filter { !$0.deaths.isEmpty }
        _ = forget(now)
    }

    /// The candidate in a file; nil if there is none.
    private func read(_ name: String) -> Entry? {
        let path = folder.appendingPathComponent(name).path
        let bytes = FileManager.default.contents(atPath: path).map { Array($0) } ?? []
        guard let value = try? JSONValue(parsing: bytes), value["format"]?.string == Self.format,
            let received = value["received"]?.int, received >= 0,
            let line = value["block"]?.string,
            let block = try? Block(parsing: Array(line.utf8)), block.isSignatureValid
        else { return nil }
        var router: Block?
        if let line = value["router"]?.string {
            router = try? Block(parsing: Array(line.utf8))
            guard router?.isSignatureValid == true else { return nil }
        }
        var entry = Entry(block: block, router: router, received: received, file: name)
        if case .array(let deaths)? = value["deaths"] {
            entry.deaths = deaths.compactMap { PluginDeath($0) }
        }
        return entry
    }

    /// Candidates that wait, first come first.
    package var queue: [Entry] { lock.withLock { waiting } }

    /// Whether a payload belongs to a candidate that waits or is kept, or may belong to one whose file cannot be read.
    package func keeps(_ payload: Digest) -> Bool {
        lock.withLock {
            isDamaged
                || (waiting + rejected).contains { entry in
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
        try makeFolder()
        let entry = Entry(
            block: block, router: router, received: received, file: name(block, Self.suffix))
        try write(entry)
        waiting.append(entry)
    }

    /// Makes the folder that candidates lie in, if it is not there.
    func makeFolder() throws(KernelError) {
        guard !FileManager.default.fileExists(atPath: folder.path) else { return }
        do {
            try FileManager.default.createDirectory(
                at: folder, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        } catch { throw KernelError(.io, "cannot make \(folder.path): \(error)") }
    }

    /// A name that comes after all there were.
    private func name(_ block: Block, _ suffix: String) -> String {
        defer { nextNumber += 1 }
        let zeros = String(repeating: "0", count: max(0, 12 - "\(nextNumber)".count))
        return "\(zeros)\(nextNumber)-\(block.hash)\(suffix)"
    }

    private func write(_ entry: Entry) throws(KernelError) {
        try DurableFile.write(
            entry.json.canonical(), to: folder.appendingPathComponent(entry.file), mode: 0o600)
    }

    // MARK: Plugins that are asked

    /// Notes which plugin is asked about a candidate, until ``answers(_:about:)`` or ``leaves()``.
    ///
    /// - Parameter now: UTC milliseconds.
    /// - Throws: ``KernelError`` with code `io`; then it must not be asked.
    func asks(_ plugin: AskedPlugin, about candidate: Digest, now: Int64) throws(KernelError) {
        try asked.write(candidate, PluginDeath(plugin, count: 1, asked: now))
    }

    /// The plugin is back: what it did to the node before does not count any more.
    func answers(_ plugin: AskedPlugin, about candidate: Digest) {
        asked.remove()
        lock.lock()
        defer { lock.unlock() }
        guard let at = waiting.firstIndex(where: { $0.block.hash == candidate }),
            waiting[at].deaths.contains(where: { $0.plugin.library == plugin.library })
        else { return }
        waiting[at].deaths.removeAll { $0.plugin.library == plugin.library }
        // Where that fails the next start counts one that is over: then it is asked a time too few, and said so.
        try? write(waiting[at])
    }

    /// No plugin is asked any more, also if one did not answer: the node ends on purpose, or the call was left.
    package func leaves() { asked.remove() }

    /// Counts what the last process was doing when it ended.
    private func countDeath() {
        guard let (candidate, death) = asked.left,
            let at = waiting.firstIndex(where: { $0.block.hash == candidate })
        else { return asked.remove() }
        let library = death.plugin.library
        let known = waiting[at].deaths.first { $0.plugin.library == library }
        // One that was counted already by a process that ended before it could remove the file.
        let isNew = known?.asked != death.asked
        let count = (known?.count ?? 0) + (isNew ? 1 : 0)
        let counted = PluginDeath(death.plugin, count: count, asked: death.asked)
        waiting[at].deaths.removeAll { $0.plugin.library == library }
        waiting[at].deaths.append(counted)
        notes.append(counted.message(candidate))
        // A home on a full disk opens all the same; then no plugin is asked there, and the next start counts this death.
        do throws(KernelError) { try write(waiting[at]) } catch {
            return notes.append(error.message)
        }
        asked.remove()
    }

    /// Ends a candidate's wait, since its verdict is durable.
    ///
    /// - Parameter isRejected: its payload is kept for a while.
    package func end(_ candidate: Digest, isRejected: Bool) {
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
    }

    // MARK: Payloads of rejected ones

    /// Runs what writes payloads and makes blocks or candidates of them: meanwhile no payload is deleted.
    package func holdingPayloads<R>(_ body: () throws -> R) rethrows -> R {
        lock.withLock { holders += 1 }
        defer { lock.withLock { holders -= 1 } }
        return try body()
    }

    /// Deletes payloads of the oldest rejected candidates beyond the budget, unless other candidates have them; not while
    /// ``holdingPayloads(_:)`` runs.
    ///
    /// A crash in between leaves payloads that nothing names, which go when the home is opened next.
    ///
    /// - Parameters:
    ///   - now: UTC milliseconds.
    ///   - remove: deletes a payload that no block names.
    package func prune(_ now: Int64, _ remove: (Digest) -> Void) {
        lock.lock()
        defer { lock.unlock() }
        guard holders == 0 else { return }
        let forgotten = forget(now).flatMap(\.blocks).compactMap(\.header.payloadHash)
        let needed = Set((waiting + rejected).flatMap(\.blocks).compactMap(\.header.payloadHash))
        for payload in Set(forgotten).subtracting(needed) { remove(payload) }
    }

    /// Deletes the payloads of blocks that were refused, unless other candidates have them.
    ///
    /// While ``holdingPayloads(_:)`` runs, or the file of a candidate cannot be read, they stay until the home is opened next.
    ///
    /// - Parameter remove: deletes a payload that no block names.
    func discard(_ blocks: [Block], _ remove: (Digest) -> Void) {
        lock.lock()
        defer { lock.unlock() }
        guard holders == 0, !isDamaged else { return }
        let needed = Set((waiting + rejected).flatMap(\.blocks).compactMap(\.header.payloadHash))
        for payload in Set(blocks.compactMap(\.header.payloadHash)).subtracting(needed) {
            remove(payload)
        }
    }

    /// Takes up the payloads of candidates that verdicts on chain have rejected, as of now: a copy of a home may come with
    /// nothing but blocks and payloads, and whoever audits a verdict needs what was judged.
    ///
    /// - Parameter unnamed: payloads that no block names.
    /// - Returns: Those that are no rejected candidate's either.
    /// - Throws: ``KernelError`` if log or index are damaged, or a file cannot be written.
    package func adopt(_ unnamed: [Digest], of store: ChainStore, now: Int64) throws(KernelError)
        -> [Digest]
    {
        var left = Set(unnamed)
        var found: [VerdictDocument] = []
        guard !left.isEmpty else { return [] }
        try store.scan(.type(chain: "A", "verdict"), reverse: true) { verdict throws(KernelError) in
            guard verdict.header.metadata["outcome"]?.string == "reject",
                // One whose receipt is damaged tells nothing, and says so when it is read.
                let document = try? VerdictDocument(parsing: store.document(verdict))
            else { return true }
            let payloads = [document.block, document.router].compactMap { $0?.header.payloadHash }
            guard !left.isDisjoint(with: payloads) else { return true }
            left.subtract(payloads)
            found.append(document)
            return !left.isEmpty
        }
        guard !found.isEmpty else { return unnamed }
        lock.lock()
        defer { lock.unlock() }
        try makeFolder()
        for document in found.reversed() {
            let entry = Entry(
                block: document.block, router: document.router, received: now,
                file: name(document.block, Self.rejectedSuffix))
            try write(entry)
            rejected.append(entry)
        }
        return Array(left)
    }

    /// Forgets the oldest rejected ones beyond the budget.
    private func forget(_ now: Int64) -> [Entry] {
        var bytes = rejected.reduce(0) { $0 + $1.bytes }
        var forgotten: [Entry] = []
        while let oldest = rejected.first,
            bytes > kept.bytes || now - oldest.received > kept.milliseconds
        {
            bytes -= oldest.bytes
            unsafe unlink(folder.appendingPathComponent(oldest.file).path)
            forgotten.append(rejected.removeFirst())
        }
        return forgotten
    }
}
