internal import BlyanKernel
public import CBlyanPlugin

/// One tensor of a payload, checked: every range lies in the payload and agrees with shape and dtype.
public struct TensorDescription: Sendable {
    /// As the plugin gave it, for kernels that take the C struct.
    public let raw: blyan_tensor
    /// Short name such as `gate`.
    public let name: String
    /// Output features; 1 for a vector.
    public let rows: Int
    /// Input features.
    public let columns: Int
    /// A `BLYAN_DTYPE_` code.
    public var dtype: UInt32 { raw.dtype }
    /// The element type for a person: "f16", "int8", ...
    public var dtypeName: String {
        let names = [
            Int(BLYAN_DTYPE_F16): "f16", Int(BLYAN_DTYPE_I8): "int8",
            Int(BLYAN_DTYPE_F8_E4M3): "f8-e4m3",
            Int(BLYAN_DTYPE_BF16): "bf16", Int(BLYAN_DTYPE_F32): "f32",
        ]
        return names[Int(raw.dtype)] ?? "dtype \(raw.dtype)"
    }
    /// Bytes of the elements in the payload; empty where values do not lie there as numbers.
    public let data: Range<UInt64>
    /// Bytes of the row scales, or empty.
    public let scales: Range<UInt64>
    /// Bytes of the row zeros, or empty.
    public let zeros: Range<UInt64>

    /// At most so many tensors in one payload.
    public static let countLimit = 65_536

    /// Bytes an element of a dtype, or nil for an unknown one.
    public static func byteCount(ofDtype dtype: UInt32) -> UInt64? {
        switch Int(dtype) {
        case BLYAN_DTYPE_F16, BLYAN_DTYPE_BF16: 2
        case BLYAN_DTYPE_I8, BLYAN_DTYPE_F8_E4M3: 1
        case BLYAN_DTYPE_F32: 4
        default: nil
        }
    }

    /// Checks one tensor against a payload of `payloadSize` bytes.
    ///
    /// - Throws: ``KernelError/Code/malformed`` with the tensor's name, found and expected.
    init(_ raw: blyan_tensor, payloadSize: UInt64) throws(KernelError) {
        guard raw.struct_size == UInt32(MemoryLayout<blyan_tensor>.size),
            (1...UInt32(BLYAN_TENSOR_NAME_MAX)).contains(raw.name_length),
            let name = unsafe withUnsafeBytes(
                of: raw.name,
                { unsafe String(validating: $0.prefix(Int(raw.name_length)), as: UTF8.self) })
        else { throw KernelError(.malformed, "a tensor has no valid name") }
        func refuse(_ what: String) -> KernelError {
            KernelError(.malformed, "tensor \(name): \(what)")
        }
        guard let rows = Int(exactly: raw.rows), let columns = Int(exactly: raw.columns), rows > 0,
            columns > 0, let size = Self.byteCount(ofDtype: raw.dtype)
        else { throw refuse("shape \(raw.rows) x \(raw.columns), dtype \(raw.dtype)") }
        self.raw = raw
        self.name = name
        self.rows = rows
        self.columns = columns
        func range(
            _ what: String, _ offset: UInt64, _ length: UInt64, expected: UInt64
        ) throws(KernelError) -> Range<UInt64> {
            let (end, overflow) = offset.addingReportingOverflow(length)
            guard !overflow, end <= payloadSize else {
                throw refuse(
                    "\(what) at \(offset) with \(length) bytes leave the payload of \(payloadSize)")
            }
            guard length == expected else {
                throw refuse("\(what) have \(length) bytes, expected \(expected)")
            }
            return offset..<end
        }
        // Values that do not lie in the payload as numbers have no place, and are decoded.
        let places = [
            raw.data_offset, raw.data_length, raw.scale_offset, raw.scale_length,
            raw.zero_offset, raw.zero_length,
        ]
        guard !places.allSatisfy({ $0 == 0 }) else {
            data = 0..<0
            scales = 0..<0
            zeros = 0..<0
            return
        }
        // Lines lie row_stride apart, each of `width` elements; the last one may end at its last element.
        let (lines, width): (UInt64, UInt64)
        switch Int(raw.layout) {
        case BLYAN_LAYOUT_ROWS: (lines, width) = (raw.rows, raw.columns)
        case BLYAN_LAYOUT_COLUMNS: (lines, width) = (raw.columns, raw.rows)
        default: throw refuse("layout \(raw.layout) is not known")
        }
        let line = width.multipliedReportingOverflow(by: size)
        let before = (lines - 1).multipliedReportingOverflow(by: raw.row_stride)
        let total = before.partialValue.addingReportingOverflow(line.partialValue)
        guard !line.overflow, !before.overflow, !total.overflow, raw.row_stride >= line.partialValue
        else { throw refuse("a stride of \(raw.row_stride) does not fit \(rows) x \(columns)") }
        guard raw.data_offset % size == 0, raw.row_stride % size == 0 else {
            throw refuse("elements of \(size) bytes are not aligned")
        }
        data = try range("data", raw.data_offset, raw.data_length, expected: total.partialValue)
        let perRow = raw.rows.multipliedReportingOverflow(by: 4)
        guard !perRow.overflow else { throw refuse("\(raw.rows) rows are too many") }
        let (scaled, affine) =
            switch Int(raw.quantisation) {
            case BLYAN_QUANT_NONE: (false, false)
            case BLYAN_QUANT_ROW_SYMMETRIC: (true, false)
            case BLYAN_QUANT_ROW_AFFINE: (true, true)
            default: throw refuse("quantisation \(raw.quantisation) is not known")
            }
        guard raw.scale_offset % 4 == 0, raw.zero_offset % 4 == 0 else {
            throw refuse("scales or zeros are not aligned to 4 bytes")
        }
        scales = try range(
            "scales", raw.scale_offset, raw.scale_length, expected: scaled ? perRow.partialValue : 0
        )
        zeros = try range(
            "zeros", raw.zero_offset, raw.zero_length, expected: affine ? perRow.partialValue : 0)
    }
}
