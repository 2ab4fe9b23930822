import BlyanKernel

/// RFC 6962 §2.1, written from its text alone, so that plugins are not judged by the kernel's own tree.
enum MerkleTree {
    /// The leaf hashes of bytes cut every `size`.
    static func leaves(_ bytes: [UInt8], size: Int) -> [[UInt8]] {
        stride(from: 0, to: bytes.count, by: size).map {
            SHA256.hash([0] + bytes[$0..<min($0 + size, bytes.count)]).bytes
        }
    }

    /// The tree's root: of n leaves, the left subtree holds the largest power of two below n.
    static func root(_ leaves: ArraySlice<[UInt8]>) -> [UInt8] {
        guard leaves.count > 1 else {
            return leaves.first ?? SHA256.hash([]).bytes
        }
        var split = 1
        while split * 2 < leaves.count { split *= 2 }
        let middle = leaves.startIndex + split
        return SHA256.hash([1] + root(leaves[..<middle]) + root(leaves[middle...])).bytes
    }
}
