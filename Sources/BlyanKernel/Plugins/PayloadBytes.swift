/// A payload's bytes, verified before they are seen.
public protocol PayloadBytes: AnyObject, Sendable {
    /// Bytes of the whole payload.
    var size: UInt64 { get }

    /// The address of `length` bytes from `offset` on, verified as the node's policy says.
    ///
    /// - Returns: An address valid as long as this object lives.
    /// - Throws: ``KernelError`` with code `integrity` if bytes do not have the hash that was signed, `io` if they
    ///   cannot be read, `malformed` if the range leaves the payload.
    /// - Concurrency: any thread, also concurrently.
    func read(offset: UInt64, length: UInt64) throws(KernelError) -> UnsafeRawPointer
}
