/// Merkle tree hash of RFC 6962, section 2.1, over SHA-256.
public enum Merkle {
    /// Leaves that a format gives no table for have this many bytes.
    public static let defaultLeafSize = 65_536

    /// Leaves of a branch: a payload of more stores the hashes of its branches after those of its leaves, so that a
    /// reader who wants one leaf need not hash the whole tree.
    public static let branchSize = 128

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
    /// carried up, which gives the RFC's tree.
    public static func root(_ leaves: some Collection<Digest>) -> Digest {
        guard !leaves.isEmpty else { return SHA256.hash([]) }
        var level = [UInt8](repeating: 0, count: 32 * leaves.count)
        return unsafe level.withUnsafeMutableBytes { bytes in
            for (i, leaf) in leaves.enumerated() { unsafe leaf.store(to: bytes, at: 32 * i) }
            guard let start = bytes.baseAddress else { return .zero }
            var count = leaves.count
            while count > 1 {
                // In place: a node is written where its left child or an earlier node was.
                unsafe SHA256.joinPairs(start, count / 2, into: start)
                if count % 2 == 1 {
                    unsafe (start + 32 * (count / 2)).copyMemory(
                        from: start + 32 * (count - 1), byteCount: 32)
                }
                count = (count + 1) / 2
            }
            return unsafe Digest(reading: start)
        }
    }

    /// What a payload stores of its tree: the hashes of its leaves and, if they are more than one branch, of its branches,
    /// the last of which may have fewer than ``branchSize`` leaves.
    public static func stored(_ leaves: [Digest]) -> [Digest] {
        guard leaves.count > branchSize else { return leaves }
        return leaves
            + stride(from: 0, to: leaves.count, by: branchSize).map {
                root(leaves[$0..<min($0 + branchSize, leaves.count)])
            }
    }

    /// Hashes that ``stored(_:)`` gives for `leaves` leaves.
    static func storedCount(_ leaves: Int) -> Int {
        leaves > branchSize ? leaves + (leaves - 1) / branchSize + 1 : leaves
    }
}
