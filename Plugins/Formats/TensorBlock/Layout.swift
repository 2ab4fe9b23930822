internal import BlyanPluginKit
internal import CBlyanPlugin

/// Constants and codes of FORMAT.md.
enum Layout {
    static let magic: [UInt8] = Array("TBLOCK01".utf8)
    static let directoryMagic: [UInt8] = Array("TBDIRECT".utf8)
    static let version: UInt32 = 1
    static let headerSize: UInt64 = 128
    static let reservedSize = 64
    static let page: UInt64 = 4096
    static let leafSize: UInt64 = 65_536
    /// Leaves of a branch, whose hashes follow those of the leaves where there is more than one.
    static let branchSize: UInt64 = 128
    /// Fixed part of the index, before the leaf hashes.
    static let indexHeadSize: UInt64 = 64
    static let hashSize: UInt64 = 32
    /// Fixed part of the directory, before its entries.
    static let directoryHeadSize = 16
    static let blockLimit = 65_536
    static let directoryLimit: UInt64 = 16 << 20
    static let nameLimit = Int(BLYAN_TENSOR_NAME_MAX)
    /// Bytes of data in one block, so that sums of what follows from it cannot overflow.
    static let dataLimit: UInt64 = 1 << 48

    /// `value` rounded up to a multiple of the page; for values that were checked against ``dataLimit``.
    static func aligned(_ value: UInt64) -> UInt64 { (value + page - 1) / page * page }

    static func malformed(_ what: String) -> PluginError { PluginError(BLYAN_E_MALFORMED, what) }

    /// Why a name cannot be a block's, or nil.
    ///
    /// Without control characters no name can hide a directory: counts and offsets have zero bytes.
    static func fault(inName bytes: some Collection<UInt8>) -> String? {
        guard !bytes.isEmpty, bytes.count <= nameLimit else {
            return "a name of \(bytes.count) bytes, expected 1 to \(nameLimit)"
        }
        guard String(validating: bytes, as: UTF8.self) != nil else {
            return "a name that is not UTF-8"
        }
        return bytes.contains { $0 < 0x20 || $0 == 0x7F } ? "a name with control characters" : nil
    }
}

/// How a number is stored; raw values are those of the header.
enum Element: UInt32 {
    case f16 = 1
    case int8 = 2
    case f8 = 3
    case bf16 = 4
    case f32 = 5

    /// Bytes.
    var width: Int {
        switch self {
        case .int8, .f8: 1
        case .f16, .bf16: 2
        case .f32: 4
        }
    }
}

/// Which elements are neighbours; raw values are those of the header.
enum Order: UInt32 {
    case rows = 0
    case columns = 1
}

/// How stored numbers become values; raw values are those of the header.
enum Scaling: UInt32 {
    case none = 0
    case symmetric = 1
    case affine = 2

    /// Bytes of scales and zero points a row.
    var bytesPerRow: UInt64 {
        switch self {
        case .none: 0
        case .symmetric: 4
        case .affine: 8
        }
    }
}

// Safe: every access is checked against the count; the bytes are the payload's and outlive the plugin call.
/// Reads little-endian integers one after the other.
@safe struct LittleEndian {
    private let bytes: UnsafeRawBufferPointer
    private var at = 0

    init(_ bytes: UnsafeRawBufferPointer) { unsafe self.bytes = unsafe bytes }

    /// Bytes not yet taken.
    var rest: Int { unsafe bytes.count - at }

    /// The next `count` bytes, or nil if there are fewer.
    mutating func take(_ count: Int) -> UnsafeRawBufferPointer? {
        guard count >= 0, count <= rest else { return nil }
        defer { at += count }
        return unsafe UnsafeRawBufferPointer(rebasing: bytes[at..<at + count])
    }

    /// The next integer, or nil at the end.
    mutating func integer<I: FixedWidthInteger & BitwiseCopyable>(_: I.Type = I.self) -> I? {
        guard let field = unsafe take(MemoryLayout<I>.size) else { return nil }
        return unsafe I(littleEndian: field.loadUnaligned(as: I.self))
    }

    /// Whether the next bytes are these; takes them if so.
    mutating func skip(_ expected: [UInt8]) -> Bool {
        let start = at
        if let found = unsafe take(expected.count), unsafe found.elementsEqual(expected) {
            return true
        }
        at = start
        return false
    }

    /// Whether the next `count` bytes are there and all zero; takes them if so.
    mutating func skipZeros(_ count: Int) -> Bool {
        guard let found = unsafe take(count) else { return false }
        return unsafe found.allSatisfy { $0 == 0 }
    }
}

extension Array<UInt8> {
    mutating func append<I: FixedWidthInteger>(little value: I) {
        for i in 0..<I.bitWidth / 8 { append(UInt8(truncatingIfNeeded: value >> I(8 * i))) }
    }
}
