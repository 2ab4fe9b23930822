internal import CBlyanPlugin

/// How GGUF stores numbers: plain, or blocks of small integers under a scale (ggml-common.h, ggml-quants.c).
package enum GGUFType: UInt32, Sendable, CaseIterable {
    case f32 = 0
    case f16 = 1
    case q4_0 = 2
    case q4_1 = 3
    case q5_0 = 6
    case q5_1 = 7
    case q8_0 = 8
    case q4_K = 12
    case q5_K = 13
    case q6_K = 14
    case bf16 = 30

    /// As llama.cpp writes it.
    package var name: String { "\(self)".uppercased() }

    /// Elements of a block.
    package var blockElements: Int {
        switch self {
        case .f32, .f16, .bf16: 1
        case .q4_K, .q5_K, .q6_K: 256
        default: 32
        }
    }

    /// Bytes of a block.
    package var blockBytes: Int {
        switch self {
        case .f32: 4
        case .f16, .bf16: 2
        case .q4_0: 18
        case .q4_1: 20
        case .q5_0: 22
        case .q5_1: 24
        case .q8_0: 34
        case .q4_K: 144
        case .q5_K: 176
        case .q6_K: 210
        }
    }

    /// Whether the numbers are small integers under scales.
    package var isQuantised: Bool { blockElements > 1 }

    /// The `BLYAN_DTYPE_` code of a type that is kept as stored.
    var plainDtype: UInt32 {
        switch self {
        case .f16: UInt32(BLYAN_DTYPE_F16)
        case .bf16: UInt32(BLYAN_DTYPE_BF16)
        default: UInt32(BLYAN_DTYPE_F32)
        }
    }

    /// A bound on the magnitude of a block's values, from its scales alone.
    func bound(_ block: UnsafeRawPointer) -> Float {
        func scale(_ offset: Int) -> Float { unsafe abs(Self.half(block, offset)) }
        switch self {
        case .q4_0: return scale(0) * 8
        case .q4_1: return scale(0) * 15 + scale(2)
        case .q5_0: return scale(0) * 16
        case .q5_1: return scale(0) * 31 + scale(2)
        case .q8_0: return scale(0) * 128
        case .q4_K: return scale(0) * 63 * 15 + scale(2) * 63
        case .q5_K: return scale(0) * 63 * 31 + scale(2) * 63
        case .q6_K: return scale(208) * 128 * 32
        case .f32, .f16, .bf16: return 0
        }
    }

    static func half(_ block: UnsafeRawPointer, _ offset: Int) -> Float {
        let bits = unsafe block.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
        return Float(Float16(bitPattern: UInt16(littleEndian: bits)))
    }
}
