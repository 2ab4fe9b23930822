/// What the machine keeps on its stack: small, and without ownership.
///
/// Anything longer lies in the machine's lists under a number, so that neither deep nesting nor a container inside
/// itself costs anything to free.
enum Value: Equatable {
    case none
    case bool(Bool)
    case int(Int64)
    /// The number that begins PyTorch's file without zip.
    case magic
    case text(Int)
    case bytes(Int)
    case tuple(Int)
    case list(Int)
    case dict(Int)
    case global(Global)
    /// A storage as one pickle mentions it.
    case storage(Int)
    case tensor(Int)
    case arrayType(Int)
    case array(Int)
    /// Something complete that holds no tensor: a fraction, a large number, a set, a scalar, a device.
    case leaf
}

/// Text or, from Python 2, bytes.
struct Text {
    let blob: Blob
    /// Its characters, if short and valid.
    let string: String?
    /// Written as a byte string by Python 2.
    let isBinary: Bool
}

/// A storage: bytes that tensors look at.
struct Storage {
    let key: String
    let byteCount: UInt64
    /// Bytes an element of the class that named it first.
    let elementSize: UInt64
    /// Where the bytes are; nil until the container says so.
    var blob: Blob?
    /// CRC-32 of the bytes, where the container has one.
    var checksum: UInt32?
}

/// A storage through the eyes of a class: `torch.FloatStorage`, or an untyped one.
struct StorageReference {
    let storage: Int
    let type: ElementType?
}

/// Where a tensor's bytes come from.
enum TensorData: Equatable {
    case storage(Int)
    case bytes(Int)
}

/// A tensor: a shape over bytes.
///
/// Offset and strides count elements.
struct Tensor {
    let type: ElementType
    let data: TensorData
    let offset: UInt64
    let sizes: [UInt64]
    let strides: [UInt64]

    /// Elements; it was held against the limit when the tensor was made.
    var count: UInt64 { sizes.reduce(1, &*) }
}

/// A `numpy.dtype`.
struct ArrayType {
    let type: ElementType
    var isBuilt = false
}
