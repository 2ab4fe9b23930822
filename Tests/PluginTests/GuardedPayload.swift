import CBlyanPlugin
import Foundation

/// A payload in memory whose every read ends at a page that cannot be read: one byte too far is a fault.
///
/// Also counts what was read, so that a test can say which bytes a call touched.
final class GuardedPayload {
    private let bytes: [UInt8]
    /// Bytes in all, as the plugin is told; a lie if set.
    var size: UInt64
    /// The ranges that were asked for, refused ones included.
    private(set) var reads: [Range<UInt64>] = []
    /// Reads that touch this byte fail with `BLYAN_E_INTEGRITY`.
    var damaged: UInt64?
    // What reads of the running call answered; freed when it returns.
    private var lent: [GuardedPages] = []

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        size = UInt64(bytes.count)
    }

    /// Runs one call of the plugin with the payload.
    func lend(_ body: (UnsafePointer<blyan_payload>) -> blyan_status) -> blyan_status {
        defer { lent = [] }
        var payload = blyan_payload(
            struct_size: UInt32(MemoryLayout<blyan_payload>.size), reserved: 0,
            context: Unmanaged.passUnretained(self).toOpaque(), size: size,
            read: { context, offset, length, out, error in
                guard let context, let out else { return blyan_status(BLYAN_E_ARGUMENT) }
                return Unmanaged<GuardedPayload>.fromOpaque(context).takeUnretainedValue()
                    .read(offset, length, out, error)
            })
        return withExtendedLifetime(self) { body(&payload) }
    }

    private func read(
        _ offset: UInt64, _ length: UInt64, _ out: UnsafeMutablePointer<UnsafePointer<UInt8>?>,
        _ error: UnsafeMutablePointer<blyan_error>?
    ) -> blyan_status {
        let (end, overflow) = offset.addingReportingOverflow(length)
        guard !overflow, end <= UInt64(bytes.count) else {
            reads.append(offset..<UInt64.max)
            error?.pointee.say("bytes \(offset) + \(length) leave the payload of \(bytes.count)")
            return blyan_status(BLYAN_E_ARGUMENT)
        }
        reads.append(offset..<end)
        if let damaged, (offset..<end).contains(damaged) {
            error?.pointee.say("byte \(damaged) is damaged")
            return blyan_status(BLYAN_E_INTEGRITY)
        }
        let pages = GuardedPages(bytes[Int(offset)..<Int(end)])
        lent.append(pages)
        out.pointee = UnsafePointer(pages.start.assumingMemoryBound(to: UInt8.self))
        return blyan_status(BLYAN_OK)
    }
}

/// A copy of bytes that ends where an unreadable page begins.
final class GuardedPages {
    /// Where the bytes begin; any alignment.
    let start: UnsafeMutableRawPointer
    private let base: UnsafeMutableRawPointer
    private let length: Int

    init(_ bytes: some Collection<UInt8>) {
        let page = 4096
        let used = (bytes.count + page - 1) / page * page
        length = used + page
        let map = mmap(nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let map, map != MAP_FAILED else { fatalError("no memory for a test") }
        base = map
        mprotect(base + used, page, PROT_NONE)
        start = base + used - bytes.count
        UnsafeMutableRawBufferPointer(start: start, count: bytes.count).copyBytes(from: bytes)
    }

    deinit { munmap(base, length) }
}

/// A sink in memory, with the Merkle leaves of RFC 6962 computed on their own.
final class MemorySink {
    private(set) var bytes: [UInt8] = []
    /// Bytes of each write.
    private(set) var writes: [Int] = []
    /// The write of this number (from 0) fails with `BLYAN_E_IO`.
    var failing: Int?
    /// What encode left to be signed.
    var encoded: blyan_encoded = {
        var encoded = blyan_encoded()
        encoded.struct_size = UInt32(MemoryLayout<blyan_encoded>.size)
        return encoded
    }()
    // What `leaves` answered, until encode returns.
    private var hashes: GuardedPages?

    /// The payload that was written.
    var payload: GuardedPayload { GuardedPayload(bytes) }

    /// Runs one encode call with the sink.
    func lend(_ body: (UnsafePointer<blyan_sink>) -> blyan_status) -> blyan_status {
        var sink = blyan_sink(
            struct_size: UInt32(MemoryLayout<blyan_sink>.size), reserved: 0,
            context: Unmanaged.passUnretained(self).toOpaque(),
            write: { context, bytes, error in
                guard let context else { return blyan_status(BLYAN_E_ARGUMENT) }
                return Unmanaged<MemorySink>.fromOpaque(context).takeUnretainedValue()
                    .write(bytes, error)
            },
            leaves: { context, leafSize, out, count, root, error in
                guard let context else { return blyan_status(BLYAN_E_ARGUMENT) }
                let sink = Unmanaged<MemorySink>.fromOpaque(context).takeUnretainedValue()
                let leaves = MerkleTree.leaves(sink.bytes, size: Int(leafSize))
                let pages = GuardedPages(leaves.flatMap { $0 })
                sink.hashes = pages
                out?.pointee = UnsafePointer(pages.start.assumingMemoryBound(to: UInt8.self))
                count?.pointee = UInt64(leaves.count)
                for (i, byte) in MerkleTree.root(leaves[...]).enumerated() { root?[i] = byte }
                return blyan_status(BLYAN_OK)
            })
        return withExtendedLifetime(self) { body(&sink) }
    }

    private func write(
        _ view: blyan_bytes, _ error: UnsafeMutablePointer<blyan_error>?
    ) -> blyan_status {
        if writes.count == failing {
            error?.pointee.say("the disk is full")
            return blyan_status(BLYAN_E_IO)
        }
        writes.append(Int(view.size))
        bytes += UnsafeBufferPointer(start: view.data, count: Int(view.size))
        return blyan_status(BLYAN_OK)
    }
}

extension blyan_error {
    /// Sets the text.
    fileprivate mutating func say(_ message: String) {
        let bytes = Array(message.utf8.prefix(512))
        withUnsafeMutableBytes(of: &text) { $0.copyBytes(from: bytes) }
        text_length = UInt32(bytes.count)
    }
}
