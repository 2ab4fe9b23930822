/// A light proof of work: the block's hash begins with as many zero bits as `difficulty` says.
public enum Stamp {
    /// Difficulties beyond this are refused: no one made such a stamp.
    public static let limit: Int64 = 64

    /// Whether a hash has the zero bits.
    public static func isValid(_ hash: Digest, difficulty: Int64) -> Bool {
        guard (0...limit).contains(difficulty) else { return false }
        var zeros: Int64 = 0
        for byte in hash.bytes {
            zeros += Int64(byte.leadingZeroBitCount)
            if byte != 0 { break }
        }
        return zeros >= difficulty
    }

    /// Searches a nonce, from "0" upwards, for the difficulty that the header states; ``BlockHeader/miner`` must be set.
    ///
    /// - Parameter isCancelled: asked every thousand tries.
    /// - Throws: ``KernelError`` with code `cancelled`, or `limit` for a difficulty beyond ``limit``.
    public static func search(_ header: BlockHeader, isCancelled: () -> Bool = { false })
        throws(KernelError)
        -> BlockHeader
    {
        guard (0...limit).contains(header.difficulty) else {
            throw KernelError(
                .limit, "a stamp of \(header.difficulty) bits is not from 0 to \(limit)")
        }
        var header = header
        var nonce: UInt64 = 0
        while true {
            header.nonce = String(nonce)
            if isValid(header.hash, difficulty: header.difficulty) { return header }
            nonce &+= 1
            if nonce % 1000 == 0, isCancelled() {
                throw KernelError(.cancelled, "the search for a stamp was stopped")
            }
        }
    }
}
