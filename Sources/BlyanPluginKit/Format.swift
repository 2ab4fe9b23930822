public import CBlyanPlugin

/// A plugin of kind format: knows how tensors lie in a payload.
///
/// Every call may come from any thread.
public protocol Format: Plugin {
    /// The tensors of a payload in payload order, as both `view` and `decode` number them.
    ///
    /// Offsets and lengths are all 0 where values do not lie in the payload as numbers: such a tensor is decoded.
    func list(_ payload: borrowing Payload) throws(PluginError) -> [blyan_tensor]
    /// Writes rows `rows` of tensor number `index` as f32, row after row, to `out`, which has their exact size.
    func decode(
        _ payload: borrowing Payload, index: Int, rows: Range<UInt64>,
        into out: UnsafeMutableBufferPointer<Float>) throws(PluginError)
    /// Does one stage for one row range. Required for ``FormatAbility/compute``.
    func compute(_ payload: borrowing Payload, _ work: blyan_compute) throws(PluginError)
    /// Writes one payload. Required for ``FormatAbility/encode``. The same input gives the same bytes.
    func encode(
        _ sources: [blyan_source], options: String, into sink: Sink
    ) throws(PluginError) -> Encoded
}

/// What a format can do beyond ``Format/list(_:)`` and decode, which all can.
public enum FormatAbility: Sendable {
    /// The host multiplies on the mapped bytes that ``Format/list(_:)`` describes.
    case view
    /// ``Format/compute(_:_:)``.
    case compute
    /// ``Format/encode(_:options:into:)``.
    case encode
}

extension Format {
    /// Answers `BLYAN_E_UNSUPPORTED`.
    public func compute(_ payload: borrowing Payload, _ work: blyan_compute) throws(PluginError) {
        throw PluginError(BLYAN_E_UNSUPPORTED, "\(Self.name) does not compute")
    }

    /// Answers `BLYAN_E_UNSUPPORTED`.
    public func encode(
        _ sources: [blyan_source], options: String, into sink: Sink
    ) throws(PluginError) -> Encoded {
        throw PluginError(BLYAN_E_UNSUPPORTED, "\(Self.name) does not encode")
    }
}

/// What encode leaves to be signed.
public struct Encoded: Sendable, Equatable {
    /// Merkle leaves partition the payload's bytes `[0, covered)`.
    public var covered: UInt64
    /// Bytes a leaf.
    public var leafSize: UInt64
    /// Where the leaf hashes lie, at or after ``covered``; 0: not stored.
    public var leafHashesOffset: UInt64

    /// Makes a description.
    public init(covered: UInt64, leafSize: UInt64, leafHashesOffset: UInt64 = 0) {
        self.covered = covered
        self.leafSize = leafSize
        self.leafHashesOffset = leafHashesOffset
    }
}

// Safe: a table that the host owns for the length of the call, reached only through checked calls.
/// Where encoded bytes go.
///
/// Valid during the encode call; serial.
@safe public struct Sink {
    private let table: UnsafePointer<blyan_sink>

    /// A sink that the host lends; a plugin makes one itself only to test itself.
    public init(_ table: UnsafePointer<blyan_sink>) { unsafe self.table = table }

    /// Appends bytes to the payload.
    public func write(_ bytes: UnsafeRawBufferPointer) throws(PluginError) {
        var error = blyan_error()
        error.struct_size = UInt32(MemoryLayout<blyan_error>.size)
        let view = unsafe blyan_bytes(
            data: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), size: UInt64(bytes.count))
        let status = unsafe table.pointee.write(table.pointee.context, view, &error)
        guard status == BLYAN_OK else { throw PluginError(status, text(of: error)) }
    }

    /// Appends bytes to the payload.
    public func write(_ bytes: [UInt8]) throws(PluginError) {
        let result = unsafe bytes.withUnsafeBytes { view in
            Result { () throws(PluginError) in try unsafe write(view) }
        }
        try result.get()
    }

    /// The RFC 6962 leaf hashes of everything written so far, the hashes of branches of 128 leaves after them if they are
    /// more, 32 bytes each, and the root.
    ///
    /// Call it once; covered bytes may not follow. The hashes are valid until encode returns.
    public func leaves(
        ofSize leafSize: UInt64
    ) throws(PluginError) -> (hashes: UnsafeRawBufferPointer, root: [UInt8]) {
        var error = blyan_error()
        error.struct_size = UInt32(MemoryLayout<blyan_error>.size)
        var hashes: UnsafePointer<UInt8>?
        var count: UInt64 = 0
        var root = [UInt8](repeating: 0, count: 32)
        let status = unsafe table.pointee.leaves(
            table.pointee.context, leafSize, &hashes, &count, &root, &error)
        guard status == BLYAN_OK else { throw PluginError(status, text(of: error)) }
        return unsafe (UnsafeRawBufferPointer(start: hashes, count: Int(count) * 32), root)
    }
}

extension blyan_tensor {
    /// A tensor with its name and `struct_size` set and everything else zero.
    ///
    /// - Throws: `BLYAN_E_LIMIT` for a name over 127 bytes.
    public init(name: String) throws(PluginError) {
        self.init()
        let bytes = Array(name.utf8)
        guard bytes.count <= Int(BLYAN_TENSOR_NAME_MAX) else {
            throw PluginError(
                BLYAN_E_LIMIT,
                "tensor name of \(bytes.count) bytes, at most \(BLYAN_TENSOR_NAME_MAX)")
        }
        struct_size = UInt32(MemoryLayout<blyan_tensor>.size)
        name_length = UInt32(bytes.count)
        unsafe withUnsafeMutableBytes(of: &self.name) { buffer in
            unsafe buffer.copyBytes(from: bytes)
        }
    }
}

extension blyan_source {
    /// A copy of the tensor's name.
    public var text: String { unsafe string(name) }
}
