public import CBlyanPlugin

// Safe: reads are checked by the host against the payload's size, and a view cannot outlive the payload value.
/// A payload as the host shows it: bytes come only through reads, which the host verifies first.
///
/// Valid during the call that got it. Any thread.
@safe public struct Payload: ~Copyable, ~Escapable {
    private let table: UnsafePointer<blyan_payload>

    /// A payload that the host lends; a plugin makes one itself only to test itself.
    @_lifetime(borrow table)
    public init(_ table: UnsafePointer<blyan_payload>) { unsafe self.table = table }

    /// Bytes of the whole payload.
    public var size: UInt64 { unsafe table.pointee.size }

    /// The verified bytes `[offset, offset + count)`, not copied.
    ///
    /// - Throws: `BLYAN_E_ARGUMENT` outside the payload; `BLYAN_E_INTEGRITY` or `BLYAN_E_IO` as the host says.
    @_lifetime(copy self)
    public func bytes(at offset: UInt64, count: UInt64) throws(PluginError) -> RawSpan {
        let buffer = try unsafe UnsafeRawBufferPointer(
            start: pointer(at: offset, count: count), count: Int(count))
        return unsafe _overrideLifetime(RawSpan(_unsafeBytes: buffer), copying: self)
    }

    /// As ``bytes(at:count:)``, as a pointer that is valid until the plugin call returns.
    public func pointer(at offset: UInt64, count: UInt64) throws(PluginError) -> UnsafePointer<
        UInt8
    > {
        var out: UnsafePointer<UInt8>?
        var error = blyan_error()
        error.struct_size = UInt32(MemoryLayout<blyan_error>.size)
        let status = unsafe table.pointee.read(table.pointee.context, offset, count, &out, &error)
        guard status == BLYAN_OK, let out = unsafe out else {
            throw PluginError(
                status == BLYAN_OK ? blyan_status(BLYAN_E_INTERNAL) : status, text(of: error))
        }
        return unsafe out
    }
}
