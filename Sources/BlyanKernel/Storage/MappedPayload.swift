internal import CBlyanFault
internal import Foundation
internal import Synchronization

/// When bytes of a payload are compared with what was signed.
public enum VerifyMode: String, Sendable, CaseIterable, Codable {
    /// At every read.
    case always
    /// Each leaf once a process, before its bytes are first seen.
    case touch
    /// As touch, but a file that was checked in full and has not changed since is not checked again for a while.
    case remember
}

// Safe: the mapping is owned by this object and unmapped in deinit; reads are bounded by `size`.
// Unchecked: the mapping is immutable, the state of leaves is atomic or behind `lock`.
/// A payload mapped into memory, whose bytes are seen only after they were compared with the signed root.
///
/// Any thread, also concurrently.
@safe public final class MappedPayload: PayloadBytes, @unchecked Sendable {
    /// Bytes of the payload.
    public let size: UInt64
    /// What errors call it: block, expert and payload.
    public let label: String
    private let base: UnsafeMutableRawPointer?
    private let slot: Int32
    private let root: Digest
    private let layout: LeafLayout
    private let mode: VerifyMode
    private let lock = NSLock()
    private let allVerified: Atomic<Bool>
    private let done: UnsafeMutablePointer<Atomic<UInt8>>
    // Compared with the root, by branch; behind `lock`.
    private var branchHashes: [Digest]?
    private var leafHashes: [Int: [Digest]] = [:]
    private let onVerified: () -> Void
    private let remaining: Atomic<Int>

    /// Maps a file; no byte of it is read.
    ///
    /// - Parameter remembered: for mode `remember`, the files that were checked before.
    /// - Throws: ``KernelError`` with code `io` if it cannot be mapped, `integrity` if its size is not the signed one.
    init(
        path: String, size: UInt64, root: Digest, layout: LeafLayout, mode: VerifyMode,
        label: String, remembered: (any CheckMemory)? = nil
    ) throws(KernelError) {
        // A pipe in its place must not be waited for.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            guard errno == ENOENT else { throw .system("cannot open \(path)") }
            throw KernelError(
                .integrity, "the payload of \(label) is missing: \(path)", hint: Self.hint)
        }
        defer { close(descriptor) }
        var info = stat()
        guard unsafe fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFREG,
            UInt64(info.st_size) == size
        else {
            throw KernelError(
                .integrity,
                "the payload of \(label) has \(info.st_size) bytes, \(size) were signed: \(path)",
                hint: Self.hint)
        }
        if size > 0 {
            let mapping = unsafe mmap(nil, Int(size), PROT_READ, MAP_SHARED, descriptor, 0)
            guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
                throw .system("cannot map \(path)")
            }
            unsafe base = mapping
        } else {
            unsafe base = nil
        }
        blyan_fault_install()
        slot = size > 0 ? unsafe blyan_fault_register(base, size) : -1
        self.size = size
        self.root = root
        self.layout = layout
        self.mode = mode
        self.label = label
        let file = FileIdentity(info, root: root)
        onVerified = { remembered?.add(file) }
        allVerified = Atomic(remembered?.contains(file) ?? false)
        remaining = Atomic(layout.count)
        unsafe done = .allocate(capacity: max(1, layout.count))
        for i in 0..<layout.count { unsafe (done + i).initialize(to: Atomic(0)) }
        guard slot >= 0 || size == 0 else {
            throw KernelError(.limit, "more than \(BLYAN_FAULT_SLOTS) payloads are mapped at once")
        }
    }

    deinit {
        blyan_fault_release(slot)
        if let base = unsafe base { unsafe munmap(base, Int(size)) }
        unsafe done.deallocate()
    }

    /// Offset of a page that the disk could not serve since the payload was mapped, or nil.
    public var faultOffset: UInt64? {
        let offset = blyan_fault_offset(slot)
        return offset < 0 ? nil : UInt64(offset)
    }

    /// Faults of all mappings of the process so far; a step compares it before and after.
    public static var faultCount: UInt64 { blyan_fault_count() }

    /// Throws if the disk could not serve a page of this payload.
    public func checkFault() throws(KernelError) {
        guard let offset = faultOffset else { return }
        throw KernelError(
            .io,
            "the disk could not serve byte \(offset) of the payload of \(label): the file was cut or the disk reports an error",
            hint:
                "run `blyan chain check --read-data`, then put a copy of the file back; the weights of an imported model can also be imported again"
        )
    }

    /// The address of bytes, each of whose leaves has been compared with the signed root.
    public func read(offset: UInt64, length: UInt64) throws(KernelError) -> UnsafeRawPointer {
        let (end, overflow) = offset.addingReportingOverflow(length)
        guard !overflow, end <= size, let base = unsafe base else {
            throw KernelError(
                .malformed,
                "bytes \(offset) + \(length) leave the payload of \(label), which has \(size)")
        }
        if blyan_fault_offset(slot) >= 0 { try checkFault() }
        if !allVerified.load(ordering: .acquiring) || mode == .always { try verify(offset..<end) }
        return unsafe UnsafeRawPointer(base) + Int(offset)
    }

    /// Compares every leaf with the signed root, on all cores.
    ///
    /// - Throws: ``KernelError`` with code `integrity` naming the leaf, or `io`.
    public func verifyAll(threads: Int) throws(KernelError) {
        let count = layout.count
        let pieces = max(1, min(threads, count / 16))
        let step = (count + pieces - 1) / max(1, pieces)
        let failures = Mutex<[KernelError]>([])
        DispatchQueue.concurrentPerform(iterations: pieces) { piece in
            do throws(KernelError) {
                let first = UInt64(min(count, piece * step)) * layout.leafSize
                let last = min(
                    UInt64(min(count, (piece + 1) * step)) * layout.leafSize, layout.covered)
                if first < last { try verify(first..<last) }
            } catch {
                failures.withLock { $0.append(error) }
            }
        }
        if let failure = failures.withLock({ $0.first }) { throw failure }
    }

    private func verify(_ range: Range<UInt64>) throws(KernelError) {
        guard !range.isEmpty else { return }
        if range.upperBound > layout.covered { try verifyTree(range) }
        guard range.lowerBound < layout.covered else { return }
        let first = Int(range.lowerBound / layout.leafSize)
        let last = Int((min(range.upperBound, layout.covered) - 1) / layout.leafSize)
        var populated = first
        var (branch, expected): (Int, [Digest]) = (-1, [])
        for leaf in first...last
        where unsafe mode == .always
            || !allVerified.load(ordering: .acquiring) && done[leaf].load(ordering: .acquiring) == 0
        {
            if leaf >= populated {
                populated = leaf + Int(max(1, Self.populating / layout.leafSize))
                populate(from: leaf, to: min(populated, last + 1))
            }
            if leaf / Merkle.branchSize != branch {
                branch = leaf / Merkle.branchSize
                expected = try hashes(branch: branch)
            }
            try verify(leaf: leaf, expected[leaf % Merkle.branchSize])
        }
    }

    /// Compares the stored hashes within a range that ends after the leaves; the few bytes that are neither stay unchecked.
    private func verifyTree(_ range: Range<UInt64>) throws(KernelError) {
        _ = try hashes(branch: 0)
        guard let at = layout.hashesAt else { return }
        let size = Merkle.branchSize
        let first = Int(max(at, range.lowerBound) - at) / 32
        let end = min(layout.count, Int(max(at, range.upperBound) - at + 31) / 32)
        for leaf in stride(from: first / size * size, to: end, by: size) {
            _ = try hashes(branch: leaf / size)
        }
    }

    /// Bytes that are brought into memory before they are hashed.
    private static let populating: UInt64 = 1 << 20

    /// Asks for pages: many at once are mapped by one call rather than by a fault for every 16, few are read alone.
    ///
    /// `MADV_WILLNEED` reads no more than it is told, and leaves single pages in the page cache, which are mapped more
    /// slowly ever after: of a large payload that cost 9 % of the time that hashing takes. `MADV_POPULATE_READ` reads
    /// around, as a fault does: for one leaf that is twenty times slower. Best effort: what cannot be read faults later.
    private func populate(from first: Int, to end: Int) {
        let start = UInt64(first) * layout.leafSize & ~4095
        guard let base = unsafe base else { return }
        let length = min(UInt64(end) * layout.leafSize, size) - start
        _ = unsafe madvise(
            base + Int(start), Int(length),
            length < Self.populating ? MADV_WILLNEED : MADV_POPULATE_READ)
    }

    private func verify(leaf: Int, _ expected: Digest) throws(KernelError) {
        guard let base = unsafe base else { return }
        let start = UInt64(leaf) * layout.leafSize
        let bytes = unsafe UnsafeRawBufferPointer(
            start: base + Int(start), count: Int(min(layout.leafSize, layout.covered - start)))
        let found = unsafe Merkle.leaf(bytes)
        try checkFault()
        guard found == expected else { throw damaged(leaf: leaf, start, bytes.count) }
        let (wasDone, _) = unsafe done[leaf].compareExchange(
            expected: 0, desired: 1, ordering: .acquiringAndReleasing)
        guard wasDone else { return }
        if remaining.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
            allVerified.store(true, ordering: .releasing)
            onVerified()
        }
    }

    private static let hint =
        "run `blyan chain check --read-data`; put a copy of its file back; the weights of an imported model can also be imported again, once the file is deleted"

    private func damaged(leaf: Int, _ start: UInt64, _ count: Int) -> KernelError {
        KernelError(
            .integrity,
            "tile \(leaf) of \(label) is damaged: bytes \(start)..<\(start + UInt64(count)) do not have the hash that was signed",
            hint: Self.hint
        )
    }

    /// The leaf hashes of a branch, compared with the signed root: those that the payload stores, else computed from all leaves.
    private func hashes(branch: Int) throws(KernelError) -> [Digest] {
        lock.lock()
        defer { lock.unlock() }
        if let known = leafHashes[branch] { return known }
        guard let base = unsafe base else { return [] }
        let count = layout.count
        let first = branch * Merkle.branchSize, end = min(count, first + Merkle.branchSize)
        guard let at = layout.hashesAt else {
            try unsafe computeHashes(base)
            return leafHashes[branch] ?? []
        }
        func stored(_ range: Range<Int>) -> [Digest] {
            range.map { unsafe Digest(reading: base + Int(at) + 32 * $0) }
        }
        if branchHashes == nil {
            let hashes = stored(
                count > Merkle.branchSize ? count..<Merkle.storedCount(count) : 0..<count)
            try checkFault()
            guard Merkle.root(hashes) == root else { throw damagedTree }
            branchHashes = count > Merkle.branchSize ? hashes : [root]
        }
        let hashes = stored(first..<end)
        try checkFault()
        guard Merkle.root(hashes) == branchHashes?[branch] else { throw damagedTree }
        leafHashes[branch] = hashes
        return hashes
    }

    /// Hashes all leaves.
    private func computeHashes(_ base: UnsafeRawPointer) throws(KernelError) {
        let hashes = (0..<layout.count).map { leaf in
            let start = UInt64(leaf) * layout.leafSize
            let count = Int(min(layout.leafSize, layout.covered - start))
            return unsafe Merkle.leaf(
                UnsafeRawBufferPointer(start: base + Int(start), count: count))
        }
        try checkFault()
        guard Merkle.root(hashes) == root else { throw damagedTree }
        for start in stride(from: 0, to: hashes.count, by: Merkle.branchSize) {
            leafHashes[start / Merkle.branchSize] = Array(
                hashes[start..<min(start + Merkle.branchSize, hashes.count)])
        }
        // Every byte has just been hashed.
        if mode != .always, !allVerified.exchange(true, ordering: .acquiringAndReleasing) {
            onVerified()
        }
    }

    private var damagedTree: KernelError {
        KernelError(
            .integrity,
            layout.hashesAt == nil
                ? "\(label) is damaged: its bytes do not have the Merkle root that was signed"
                : "the tile index of \(label) is damaged: it does not have the Merkle root that was signed",
            hint: Self.hint
        )
    }
}
