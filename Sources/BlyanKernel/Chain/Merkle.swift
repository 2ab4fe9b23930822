internal import Foundation

/// Merkle tree hash of RFC 6962, section 2.1, over SHA-256.
public enum Merkle {
    /// Leaves that a format gives no table for have this many bytes.
    public static let defaultLeafSize = 65_536

    // Asked for once: Foundation opens two files of the system for each answer.
    private static let cores = ProcessInfo.processInfo.activeProcessorCount

    /// Hash of a leaf: SHA-256(0x00 ‖ bytes).
    public static func leaf(_ bytes: UnsafeRawBufferPointer) -> Digest {
        var hasher = SHA256()
        hasher.update([0])
        unsafe hasher.update(bytes)
        return hasher.finalize()
    }

    /// Root over leaf hashes; of no leaves the hash of nothing.
    ///
    /// An inner node is SHA-256(0x01 ‖ left ‖ right). Adjacent nodes are joined level by level and an odd one is
    /// carried up, which gives the RFC's tree. Large levels are joined on all cores: it is what opening a large
    /// payload waits for.
    public static func root(_ leaves: [Digest]) -> Digest {
        guard !leaves.isEmpty else { return SHA256.hash([]) }
        var level = [UInt8](repeating: 0, count: 32 * leaves.count)
        unsafe level.withUnsafeMutableBytes { bytes in
            for (i, leaf) in leaves.enumerated() { unsafe leaf.store(to: bytes, at: 32 * i) }
        }
        while level.count > 32 {
            let pairs = level.count / 64
            let pieces = max(1, min(cores, pairs / 512))
            var next = [UInt8](repeating: 0, count: 32 * pairs)
            unsafe level.withUnsafeBytes { from in
                unsafe next.withUnsafeMutableBytes { to in
                    guard let from = from.baseAddress, let to = to.baseAddress else { return }
                    // Unchecked: each piece reads and writes a range of its own.
                    nonisolated(unsafe) let (source, target) = unsafe (from, to)
                    DispatchQueue.concurrentPerform(iterations: pieces) { piece in
                        let first = piece * pairs / pieces
                        unsafe SHA256.joinPairs(
                            source + 64 * first, (piece + 1) * pairs / pieces - first,
                            into: target + 32 * first)
                    }
                }
            }
            level = next + level.suffix(level.count % 64)
        }
        return Digest(level) ?? .zero
    }

    /// Checks that ranges partition bytes [0, covered): in order, none empty, no hole, no overlap.
    ///
    /// - Throws: ``KernelError`` with code `malformed` naming the first range that does not follow.
    public static func checkPartition(_ ranges: [(offset: UInt64, length: UInt64)], covered: UInt64)
        throws(KernelError)
    {
        var end: UInt64 = 0
        for (i, range) in ranges.enumerated() {
            let (next, overflow) = range.offset.addingReportingOverflow(range.length)
            guard range.offset == end, range.length > 0, !overflow, next <= covered else {
                throw KernelError(
                    .malformed,
                    "leaf \(i) at \(range.offset) with \(range.length) bytes does not follow byte \(end) of \(covered)"
                )
            }
            end = next
        }
        guard end == covered else {
            throw KernelError(.malformed, "leaves end at byte \(end), \(covered) are covered")
        }
    }
}
