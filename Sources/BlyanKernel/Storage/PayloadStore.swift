public import Foundation

/// Payload files of a home: named by their hash, written once, read-only.
///
/// Any thread. Equal payloads are stored once.
public final class PayloadStore: Sendable {
    private let folder: String
    let disk: Disk

    /// The store in `folder`, made if absent.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    public init(folder: URL, disk: Disk = .real) throws(KernelError) {
        self.folder = folder.path
        self.disk = disk
        // All folders are made and synced here once, so that no two writers need to agree on who syncs a new one.
        for byte in UInt8.min...UInt8.max where unsafe access(subfolder(byte), F_OK) != 0 {
            try disk.makeFolder(subfolder(byte))
        }
        try disk.sync(folder: self.folder)
        try disk.sync(folder: folder.deletingLastPathComponent().path)
    }

    private func subfolder(_ byte: UInt8) -> String { "\(folder)/\(Hex.encode([byte]))" }

    /// Where a payload lies.
    public func path(of hash: Digest) -> String {
        let name = hash.description
        return "\(folder)/\(name.prefix(2))/\(name)"
    }

    /// Whether a file of that name and size is there; its bytes are not read.
    public func contains(_ hash: Digest, size: UInt64) -> Bool {
        Disk.size(of: path(of: hash)) == size
    }

    /// Begins a payload.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    public func makeWriter() throws(KernelError) -> PayloadWriter { try PayloadWriter(store: self) }

    /// A new name for a file that is being written.
    func temporaryPath() -> String { "\(folder)/.new-\(UUID().uuidString)" }

    /// Gives a finished, synced file its final name; an existing one is re-used if its bytes have the hash.
    func adopt(_ temporary: String, as hash: Digest, size: UInt64) throws(KernelError) {
        let final = path(of: hash)
        let parent = "\(folder)/\(hash.description.prefix(2))"
        if contains(hash, size: size), (try? fileHash(final)) == hash {
            unsafe unlink(temporary)
        } else {
            try disk.rename(temporary, to: final)
        }
        try disk.sync(folder: parent)
    }

    /// SHA-256 of a file, read in pieces.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    public func fileHash(_ path: String) throws(KernelError) -> Digest {
        let descriptor = try disk.open(path, O_RDONLY)
        defer { close(descriptor) }
        var hasher = SHA256()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = unsafe read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw .system("cannot read \(path)") }
            guard count > 0 else { return hasher.finalize() }
            unsafe buffer.withUnsafeBytes {
                unsafe hasher.update(UnsafeRawBufferPointer(rebasing: $0[..<count]))
            }
        }
    }

    /// Removes files that were being written when a process ended, and payloads that `isKnown` does not know.
    ///
    /// Only while nobody writes: at start-up, by the holder of the home.
    /// - Returns: The number of files removed.
    func removeOrphans(isKnown: (Digest) -> Bool) -> Int {
        let manager = FileManager.default
        var removed = 0
        for name in (try? manager.contentsOfDirectory(atPath: folder)) ?? [] {
            if name.hasPrefix(".new-") {
                removed += unsafe unlink("\(folder)/\(name)") == 0 ? 1 : 0
                continue
            }
            for file in (try? manager.contentsOfDirectory(atPath: "\(folder)/\(name)")) ?? [] {
                guard let hash = Digest(hex: file), !isKnown(hash) else { continue }
                removed += unsafe unlink("\(folder)/\(name)/\(file)") == 0 ? 1 : 0
            }
        }
        return removed
    }
}

/// What a writer leaves to be signed.
public struct StoredPayload: Sendable, Equatable {
    /// SHA-256 of the whole file.
    public let hash: Digest
    /// Bytes.
    public let size: UInt64
    /// RFC 6962 root over the leaves.
    public let merkleRoot: Digest
    /// How the leaves lie.
    public let layout: LeafLayout

    /// Sets the header's fields that describe a payload.
    public func describe(in header: inout BlockHeader, type: String) {
        header.payloadType = type
        header.payloadHash = hash
        header.payloadSize = Int64(size)
        header.merkleRoot = merkleRoot
        header.metadata.merge(layout.metadata) { _, new in new }
    }
}

/// Writes one payload; nothing is visible before ``finish(covered:leafSize:leafHashesAt:)`` returns.
///
/// Used by one task at a time. A writer that is dropped leaves no file.
public final class PayloadWriter {
    private let store: PayloadStore
    private let path: String
    private var descriptor: Int32
    private var hasher = SHA256()
    private var leafHasher = SHA256()
    private var leafFill = 0
    private var leaves: [Digest] = []
    private var buffer: [UInt8] = []
    /// Bytes written so far.
    public private(set) var size: UInt64 = 0
    /// Bytes a leaf: leaves are hashed as bytes pass by.
    public let leafSize: Int

    private static let bufferSize = 1 << 20

    init(store: PayloadStore, leafSize: Int = Merkle.defaultLeafSize) throws(KernelError) {
        self.store = store
        self.leafSize = leafSize
        path = store.temporaryPath()
        descriptor = try store.disk.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o400)
        leafHasher.update([0])
    }

    deinit {
        guard descriptor >= 0 else { return }
        close(descriptor)
        unsafe unlink(path)
    }

    /// Appends bytes.
    ///
    /// - Throws: ``KernelError`` with code `io`, e.g. when the disk is full.
    public func write(_ bytes: UnsafeRawBufferPointer) throws(KernelError) {
        guard bytes.count > 0 else { return }
        unsafe hasher.update(bytes)
        var rest = unsafe bytes[...]
        while unsafe !rest.isEmpty {
            let part = unsafe rest.prefix(leafSize - leafFill)
            unsafe leafHasher.update(UnsafeRawBufferPointer(rebasing: part))
            leafFill += unsafe part.count
            if leafFill == leafSize { closeLeaf() }
            unsafe rest = rest.dropFirst(part.count)
        }
        size += UInt64(bytes.count)
        if buffer.count + bytes.count >= Self.bufferSize { try flush() }
        if bytes.count >= Self.bufferSize {
            try unsafe store.disk.write(bytes, to: descriptor, path: path)
        } else {
            unsafe buffer.append(contentsOf: bytes)
        }
    }

    /// Appends bytes.
    ///
    /// - Throws: As ``write(_:)-(UnsafeRawBufferPointer)``.
    public func write(_ bytes: [UInt8]) throws(KernelError) {
        try unsafe bytes.withRawBytes { (all) throws(KernelError) in try unsafe write(all) }
    }

    private func closeLeaf() {
        leaves.append(leafHasher.finalize())
        leafHasher.update([0])
        leafFill = 0
    }

    private func flush() throws(KernelError) {
        try unsafe buffer.withRawBytes { (all) throws(KernelError) in
            try unsafe store.disk.write(all, to: descriptor, path: path)
        }
        buffer.removeAll(keepingCapacity: true)
    }

    /// The tree over everything written so far, the last leaf closed: the hashes that a payload may store
    /// (``Merkle/stored(_:)``) and the root; no covered byte may follow.
    public func closeLeaves() -> (stored: [Digest], root: Digest) {
        if let closed { return (closed.stored, closed.root) }
        if leafFill > 0 { closeLeaf() }
        let stored = Merkle.stored(leaves)
        let root = Merkle.root(stored.count > leaves.count ? stored[leaves.count...] : stored[...])
        closed = (stored, root, size)
        return (stored, root)
    }

    private var closed: (stored: [Digest], root: Digest, covered: UInt64)?

    /// Makes the payload durable under its hash.
    ///
    /// - Parameter leafHashesAt: where the leaf hashes were written after the covered bytes; nil if they were not.
    /// - Throws: ``KernelError`` with code `io`; `malformed` if `leafHashesAt` cannot be, or if more bytes are neither
    ///   covered nor leaf hashes than ``LeafLayout/uncoveredLimit``.
    public func finish(leafHashesAt: UInt64? = nil) throws(KernelError) -> StoredPayload {
        let root = closeLeaves().root
        let covered = closed?.covered ?? size
        guard
            let layout = LeafLayout(
                covered: covered, leafSize: UInt64(leafSize), hashesAt: leafHashesAt,
                payloadSize: size)
        else {
            throw KernelError(
                .malformed,
                "of \(size) bytes \(covered) are covered and leaf hashes lie at \(leafHashesAt.map(String.init) ?? "no byte"): they must fit, and leave at most \(LeafLayout.uncoveredLimit) bytes"
            )
        }
        try flush()
        try store.disk.sync(descriptor, path: path)
        close(descriptor)
        let hash = hasher.finalize()
        descriptor = -1
        do throws(KernelError) {
            try store.adopt(path, as: hash, size: size)
        } catch {
            unsafe unlink(path)
            throw error
        }
        return StoredPayload(
            hash: hash, size: size, merkleRoot: root, layout: layout)
    }
}
