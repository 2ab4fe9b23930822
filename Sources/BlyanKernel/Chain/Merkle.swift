internal import Foundation
internal import Synchronization

/// Merkle tree hash of RFC 6962, section 2.1, over SHA-256.
public enum Merkle {
    /// Leaves that a format gives no table for have this many bytes.
    public static let defaultLeafSize = 65_536

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
        var level = leaves
        while level.count > 1 {
            let pairs = level.count / 2
            let pieces = max(1, min(ProcessInfo.processInfo.activeProcessorCount, pairs / 512))
            let next = Mutex<[[Digest]]>(Array(repeating: [], count: pieces))
            let below = level
            DispatchQueue.concurrentPerform(iterations: pieces) { piece in
                var hasher = SHA256()
                let nodes = (piece * pairs / pieces..<(piece + 1) * pairs / pieces).map {
                    hasher.hash(1, below[2 * $0], below[2 * $0 + 1])
                }
                next.withLock { $0[piece] = nodes }
            }
            level = next.withLock { $0.flatMap { $0 } } + below.suffix(below.count % 2)
        }
        return level[0]
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
