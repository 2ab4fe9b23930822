internal import CBlyanPlugin

/// How one element of a tensor is stored, little-endian.
enum ElementType: Equatable {
    case f16, bf16, f32, f64, f8
    case i8, i16, i32, i64, u8, u16, u32, u64, bool

    var size: UInt64 {
        switch self {
        case .f8, .i8, .u8, .bool: 1
        case .f16, .bf16, .i16, .u16: 2
        case .f32, .i32, .u32: 4
        case .f64, .i64, .u64: 8
        }
    }

    /// The code of the plugin contract, or nil where it has none: such elements are only decoded, to f32.
    var code: UInt32? {
        switch self {
        case .f16: UInt32(BLYAN_DTYPE_F16)
        case .bf16: UInt32(BLYAN_DTYPE_BF16)
        case .f32: UInt32(BLYAN_DTYPE_F32)
        case .i8: UInt32(BLYAN_DTYPE_I8)
        case .f8: UInt32(BLYAN_DTYPE_F8_E4M3)
        default: nil
        }
    }

    /// The type behind a class such as `torch.FloatStorage`.
    static let torchStorages: [String: ElementType] = [
        "FloatStorage": .f32, "DoubleStorage": .f64, "HalfStorage": .f16,
        "BFloat16Storage": .bf16, "LongStorage": .i64, "IntStorage": .i32, "ShortStorage": .i16,
        "CharStorage": .i8, "ByteStorage": .u8, "BoolStorage": .bool,
    ]

    /// The type behind an object such as `torch.float32`.
    static let torchTypes: [String: ElementType] = [
        "float32": .f32, "float64": .f64, "float16": .f16, "bfloat16": .bf16, "int64": .i64,
        "int32": .i32, "int16": .i16, "int8": .i8, "uint8": .u8, "uint16": .u16, "uint32": .u32,
        "uint64": .u64, "bool": .bool, "float8_e4m3fn": .f8,
    ]

    /// The type behind a code such as `f4` of `numpy.dtype`.
    static let numpyTypes: [String: ElementType] = [
        "f2": .f16, "f4": .f32, "f8": .f64, "i1": .i8, "i2": .i16, "i4": .i32, "i8": .i64,
        "u1": .u8, "u2": .u16, "u4": .u32, "u8": .u64, "b1": .bool,
    ]
}

/// Elements as f32.
enum Conversion {
    /// Writes `out.count` elements that begin `stride` elements apart.
    ///
    /// - Returns: false if a whole number or a f64 is too large for f32 to hold it.
    static func convert(
        _ type: ElementType, _ from: UnsafeRawPointer, stride: Int,
        to out: UnsafeMutableBufferPointer<Float>
    ) -> Bool {
        switch type {
        case .f32:
            if stride == 1, let base = out.baseAddress {
                unsafe UnsafeMutableRawPointer(base).copyMemory(
                    from: from, byteCount: 4 * out.count)
            } else {
                unsafe each(Float.self, from, stride, out) { $0 }
            }
        case .f16: unsafe each(UInt16.self, from, stride, out, half)
        case .bf16:
            unsafe each(UInt16.self, from, stride, out) { Float(bitPattern: UInt32($0) << 16) }
        case .f8: unsafe each(UInt8.self, from, stride, out, e4m3)
        case .i8: unsafe each(Int8.self, from, stride, out) { Float($0) }
        case .i16: unsafe each(Int16.self, from, stride, out) { Float($0) }
        case .u8: unsafe each(UInt8.self, from, stride, out) { Float($0) }
        case .u16: unsafe each(UInt16.self, from, stride, out) { Float($0) }
        case .bool: unsafe each(UInt8.self, from, stride, out) { $0 == 0 ? 0 : 1 }
        case .i32: return unsafe exact(Int32.self, from, stride, out)
        case .i64: return unsafe exact(Int64.self, from, stride, out)
        case .u32: return unsafe exact(UInt32.self, from, stride, out)
        case .u64: return unsafe exact(UInt64.self, from, stride, out)
        case .f64:
            var fits = true
            unsafe each(Double.self, from, stride, out) { value in
                let result = Float(value)
                if result.isInfinite, value.isFinite { fits = false }
                return result
            }
            return fits
        }
        return true
    }

    @inline(__always)
    private static func each<T: BitwiseCopyable>(
        _: T.Type, _ from: UnsafeRawPointer, _ stride: Int,
        _ out: UnsafeMutableBufferPointer<Float>,
        _ value: (T) -> Float
    ) {
        let step = stride * MemoryLayout<T>.size
        var at = 0
        for i in 0..<out.count {
            unsafe out[i] = value(from.loadUnaligned(fromByteOffset: at, as: T.self))
            at += step
        }
    }

    private static func exact<T: FixedWidthInteger & BitwiseCopyable>(
        _: T.Type, _ from: UnsafeRawPointer, _ stride: Int, _ out: UnsafeMutableBufferPointer<Float>
    ) -> Bool {
        var fits = true
        unsafe each(T.self, from, stride, out) { value in
            fits = fits && value.magnitude <= 1 << 24
            return Float(value)
        }
        return fits
    }

    /// IEEE 754 binary16, by moving the fraction into place and mending the exponent with one product.
    ///
    /// Without branches, so that it becomes vector code also where the CPU has no instruction for it.
    @inline(__always)
    static func half(_ bits: UInt16) -> Float {
        let magnitude = UInt32(bits & 0x7FFF)
        let sign = UInt32(bits & 0x8000) << 16
        // 2^(127 - 15) makes up for the two biases, subnormal numbers included.
        let value = Float(bitPattern: magnitude << 13) * 0x1p112
        // Infinity and not-a-number keep an exponent of all ones.
        let special: UInt32 = magnitude >= 0x7C00 ? 0x7F80_0000 : 0
        return Float(bitPattern: value.bitPattern | special | sign)
    }

    /// OCP FP8 E4M3: bias 7, no infinities, not-a-number is 0x7F and 0xFF.
    static func e4m3(_ code: UInt8) -> Float {
        let exponent = Int(code >> 3 & 15)
        let fraction = Float(code & 7)
        let magnitude: Float =
            if code & 0x7F == 0x7F {
                .nan
            } else if exponent == 0 {
                fraction / 512
            } else {
                Float(sign: .plus, exponent: exponent - 7, significand: 1 + fraction / 8)
            }
        return code & 0x80 == 0 ? magnitude : -magnitude
    }
}
