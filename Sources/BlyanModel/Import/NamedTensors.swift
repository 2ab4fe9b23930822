internal import CBlyanPlugin

/// Tensors by name, as a checkpoint's files hold them.
package protocol NamedTensors: Sendable {
    /// Names, shapes, dtypes and where the bytes are.
    var entries: [String: TensorEntry] { get }
    /// The files behind it.
    var files: [MappedFile] { get }
}

/// Something that lends bytes: a mapped file, or what a plugin decoded.
package protocol LentBytes: Sendable {
    /// Calls `body` with the bytes of `range`, valid during the call.
    ///
    /// - Throws: what `body` throws, or ``ModelError`` if the bytes cannot be had or changed meanwhile.
    func withBytes(_ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Void) throws
}

/// One stored tensor: its name, shape, dtype, and where its bytes are, row-major and little-endian.
package struct TensorEntry: Sendable {
    /// As the checkpoint spells it.
    package let name: String
    /// Sizes, outermost first.
    package let shape: [Int]
    /// Whether a plugin described it, as the first size and the product of the others.
    package let isFlattened: Bool
    /// As safetensors spells it, such as "BF16".
    package let dtypeName: String
    /// What lends the bytes.
    package let bytes: any LentBytes
    /// Where in it they lie: exactly as many as shape and dtype need.
    package let range: Range<Int>

    /// Describes a tensor; `range` must fit shape and dtype, and lie within `bytes`.
    package init(
        name: String, shape: [Int], isFlattened: Bool = false, dtypeName: String,
        bytes: any LentBytes, range: Range<Int>
    ) {
        self.name = name
        self.shape = shape
        self.isFlattened = isFlattened
        self.dtypeName = dtypeName
        self.bytes = bytes
        self.range = range
    }

    /// The `BLYAN_DTYPE_` code of a dtype that is kept as stored.
    ///
    /// - Throws: ``ModelError`` naming tensor and dtype.
    func dtype() throws(ModelError) -> UInt32 {
        switch dtypeName {
        case "F32": UInt32(BLYAN_DTYPE_F32)
        case "F16": UInt32(BLYAN_DTYPE_F16)
        case "BF16": UInt32(BLYAN_DTYPE_BF16)
        default:
            throw ModelError(
                "tensor \(name) has dtype \(dtypeName), expected F32, F16 or BF16",
                hint: "convert the checkpoint to one of these dtypes first")
        }
    }

    /// The shape as errors spell it.
    var shapeText: String { "[\(shape.map(String.init).joined(separator: ", "))]" }
}
