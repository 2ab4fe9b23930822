import CBlyanMath
import CBlyanPlugin
import Foundation
import Testing

/// Random numbers that repeat: SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// A random matrix with its bytes placed so that nothing lies after them but the end of an allocation.
struct Weights {
    let dtype: UInt32
    let rows: Int, columns: Int
    let bytes: [UInt8]
    let scales: [Float]

    init(_ dtype: UInt32, rows: Int, columns: Int, _ random: inout SeededGenerator) {
        self.dtype = dtype
        self.rows = rows
        self.columns = columns
        var bytes: [UInt8] = []
        for _ in 0..<rows * columns {
            let value = Float.random(in: -2...2, using: &random)
            switch dtype {
            case UInt32(BLYAN_DTYPE_F32):
                withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
            case UInt32(BLYAN_DTYPE_F16):
                withUnsafeBytes(of: Float16(value)) { bytes.append(contentsOf: $0) }
            case UInt32(BLYAN_DTYPE_BF16):
                withUnsafeBytes(of: UInt16(value.bitPattern >> 16)) { bytes.append(contentsOf: $0) }
            default: bytes.append(UInt8(bitPattern: Int8.random(in: -128...127, using: &random)))
            }
        }
        self.bytes = bytes
        scales = (0..<rows).map { _ in Float.random(in: 0.001...0.1, using: &random) }
    }

    /// Products with `x` of `tokens` rows, in `chunks` of tokens and `pieces` of matrix rows.
    func multiply(_ x: [Float], tokens: Int, chunk: Int = .max, piece: Int = .max) -> [Float] {
        var y = [Float](repeating: .nan, count: tokens * rows)
        bytes.withUnsafeBufferPointer { data in
            scales.withUnsafeBufferPointer { scales in
                var matrix = blyan_matrix(
                    data: data.baseAddress, scales: scales.baseAddress, rows: UInt64(rows),
                    columns: UInt64(columns),
                    row_stride: UInt64(bytes.count / rows), dtype: dtype, reserved: 0)
                for first in stride(from: 0, to: tokens, by: min(chunk, tokens)) {
                    let count = min(chunk, tokens - first)
                    let size = Int(blyan_math_prepared_size(dtype, UInt64(count), UInt64(columns)))
                    let prepared = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
                    defer { prepared.deallocate() }
                    x.withUnsafeBufferPointer { x in
                        blyan_math_prepare(
                            dtype, x.baseAddress.map { $0 + first * columns }, UInt64(columns),
                            UInt64(count),
                            UInt64(columns), prepared)
                    }
                    y.withUnsafeMutableBufferPointer { y in
                        for row in stride(from: 0, to: rows, by: min(piece, rows)) {
                            blyan_math_matmul(
                                &matrix, UInt64(row), UInt64(min(rows, row + min(piece, rows))),
                                prepared, UInt64(count),
                                y.baseAddress.map { $0 + first * rows }, UInt64(rows))
                        }
                    }
                }
            }
        }
        return y
    }

    /// The value of an element in double precision.
    func value(_ row: Int, _ column: Int) -> Double {
        let i = row * columns + column
        return bytes.withUnsafeBytes { raw in
            switch dtype {
            case UInt32(BLYAN_DTYPE_F32):
                Double(raw.loadUnaligned(fromByteOffset: 4 * i, as: Float.self))
            case UInt32(BLYAN_DTYPE_F16):
                Double(raw.loadUnaligned(fromByteOffset: 2 * i, as: Float16.self))
            case UInt32(BLYAN_DTYPE_BF16):
                Double(
                    Float(
                        bitPattern: UInt32(
                            raw.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self)) << 16))
            default: Double(Int8(bitPattern: raw[i])) * Double(scales[row])
            }
        }
    }
}

/// The variants that this processor has, beside the portable one.
let variants = [BLYAN_ISA_AVX2, BLYAN_ISA_AVX512, BLYAN_ISA_NEON].map { Int32($0) }
private let dtypes = [BLYAN_DTYPE_F32, BLYAN_DTYPE_F16, BLYAN_DTYPE_BF16, BLYAN_DTYPE_I8].map {
    UInt32($0)
}
private let shapes = [
    (1, 1), (3, 15), (5, 16), (7, 17), (9, 63), (4, 64), (13, 65), (33, 130), (40, 512), (17, 1000),
]

/// Serialised: the chosen variant is one for the process.
@Suite(.serialized) struct KernelTests {
    func withVariant(_ isa: Int32, _ body: () -> Void) {
        let before = blyan_math_isa()
        guard blyan_math_select(isa) == 0 else { return }
        body()
        _ = blyan_math_select(before)
    }

    func withPortable<R>(_ body: () -> R) -> R {
        let before = blyan_math_isa()
        _ = blyan_math_select(Int32(BLYAN_ISA_PORTABLE))
        defer { _ = blyan_math_select(before) }
        return body()
    }

    @Test(arguments: dtypes) func everyVariantGivesThePortableBits(dtype: UInt32) {
        var random = SeededGenerator(state: UInt64(dtype))
        for (rows, columns) in shapes {
            let weights = Weights(dtype, rows: rows, columns: columns, &random)
            for tokens in [1, 2, 7, 20] {
                let x = (0..<tokens * columns).map { _ in Float.random(in: -3...3, using: &random) }
                let expected = withPortable { weights.multiply(x, tokens: tokens) }
                for isa in variants {
                    withVariant(isa) {
                        let found = weights.multiply(x, tokens: tokens)
                        #expect(
                            found.map(\.bitPattern) == expected.map(\.bitPattern),
                            "\(String(cString: blyan_math_isa_name(isa))) \(rows)x\(columns), \(tokens) tokens"
                        )
                    }
                }
            }
        }
    }

    @Test(arguments: dtypes) func batchAndSplitDoNotChangeABit(dtype: UInt32) {
        var random = SeededGenerator(state: 77 + UInt64(dtype))
        let weights = Weights(dtype, rows: 37, columns: 200, &random)
        let tokens = 101
        let x = (0..<tokens * 200).map { _ in Float.random(in: -3...3, using: &random) }
        let whole = weights.multiply(x, tokens: tokens).map(\.bitPattern)
        for chunk in [1, 2, 5, 6, 48, 100] {
            for piece in [1, 3, 16] {
                #expect(
                    weights.multiply(x, tokens: tokens, chunk: chunk, piece: piece).map(
                        \.bitPattern) == whole)
            }
        }
    }

    /// Rounding of int8 activations is at most half a step of each block's scale.
    @Test(arguments: dtypes) func productsAreCloseToDoublePrecision(dtype: UInt32) {
        var random = SeededGenerator(state: 5 + UInt64(dtype))
        let weights = Weights(dtype, rows: 11, columns: 300, &random)
        let x = (0..<300).map { _ in Float.random(in: -1...1, using: &random) }
        let y = weights.multiply(x, tokens: 1)
        for row in 0..<11 {
            var exact = 0.0
            var magnitude = 0.0
            for column in 0..<300 {
                exact += weights.value(row, column) * Double(x[column])
                magnitude += abs(weights.value(row, column))
            }
            let bound = dtype == UInt32(BLYAN_DTYPE_I8) ? magnitude / 127 * 0.51 : magnitude * 1e-5
            #expect(abs(Double(y[row]) - exact) <= bound)
        }
    }

    /// Quantising activations must not turn what is no number into one.
    @Test(arguments: dtypes) func notANumberStaysNotANumber(dtype: UInt32) {
        var random = SeededGenerator(state: 5)
        let weights = Weights(dtype, rows: 3, columns: 70, &random)
        for place in [0, 63, 64, 69] {
            var x = [Float](repeating: 1, count: 70)
            x[place] = .nan
            let y = weights.multiply(x, tokens: 1)
            #expect(y.allSatisfy { $0.isNaN })
        }
    }

    @Test func everyHalfIsConvertedExactly() {
        let codes = (0..<65536).map { UInt16($0) }
        for isa in [Int32(BLYAN_ISA_PORTABLE)] + variants {
            withVariant(isa) {
                var halves = [Float](repeating: 0, count: 65536)
                blyan_math_to_f32(UInt32(BLYAN_DTYPE_F16), codes, 65536, &halves)
                var brains = halves
                blyan_math_to_f32(UInt32(BLYAN_DTYPE_BF16), codes, 65536, &brains)
                for code in codes {
                    let half = Float(Float16(bitPattern: code))
                    #expect(half.isNaN ? halves[Int(code)].isNaN : halves[Int(code)] == half)
                    #expect(brains[Int(code)].bitPattern == UInt32(code) << 16)
                }
                var back = [UInt16](repeating: 0, count: 65536)
                blyan_math_to_f16(halves, 65536, &back)
                for code in codes where !halves[Int(code)].isNaN {
                    #expect(back[Int(code)] == code)
                }
            }
        }
    }

    @Test func countsWhatHalfCannotHold() {
        var out = [UInt16](repeating: 0, count: 4)
        #expect(blyan_math_to_f16([65504, 65520, -1e9, .infinity], 4, &out) == 2)
    }

    @Test func vectorOperationsGiveThePortableBits() {
        var random = SeededGenerator(state: 9)
        for n in [1, 5, 16, 31, 64, 100] {
            let a = (0..<n).map { _ in Float.random(in: -20...20, using: &random) }
            let b = (0..<n).map { _ in Float.random(in: -2...2, using: &random) }
            func run() -> [UInt32] {
                var out = [Float](repeating: 0, count: n)
                var all: [Float] = [blyan_math_dot(a, b, UInt64(n))]
                blyan_math_rms_norm(a, b, UInt64(n), 1e-5, &out)
                all += out
                blyan_math_swiglu(a, b, &out, UInt64(n))
                all += out
                blyan_math_axpy(0.3, a, &out, UInt64(n))
                return (all + out).map(\.bitPattern)
            }
            let expected = withPortable(run)
            for isa in variants { withVariant(isa) { #expect(run() == expected) } }
        }
    }

    @Test func siluIsCloseToTheLibrary() {
        let gates = stride(from: Float(-100), through: 100, by: 0.037).map { $0 }
        var out = gates
        blyan_math_swiglu(
            gates, [Float](repeating: 1, count: gates.count), &out, UInt64(gates.count))
        for (gate, found) in zip(gates, out) {
            let exact = Double(gate) / (1 + exp(-Double(gate)))
            #expect(
                abs(Double(found) - exact) <= 1e-6 * max(abs(exact), 1e-30) + 1e-37, "silu(\(gate))"
            )
        }
    }

    @Test func attentionIsASoftmaxOverTheWindow() {
        var random = SeededGenerator(state: 21)
        let (positions, size) = (45, 24)
        let keys = (0..<positions * size).map { _ in Float.random(in: -1...1, using: &random) }
        let values = (0..<positions * size).map { _ in Float.random(in: -1...1, using: &random) }
        let q = (0..<size).map { _ in Float.random(in: -1...1, using: &random) }
        for (begin, end) in [(0, 1), (0, 16), (3, 45), (44, 45), (10, 27)] {
            func run() -> [Float] {
                var scores = [Float](repeating: 0, count: end - begin)
                var out = [Float](repeating: 0, count: size)
                blyan_math_attend(
                    q, keys, values, UInt64(size), UInt64(begin), UInt64(end), UInt64(size), 0.2,
                    &scores, &out)
                return out
            }
            var exact = [Double](repeating: 0, count: size)
            var total = 0.0
            for j in begin..<end {
                let dot = (0..<size).reduce(0.0) {
                    $0 + Double(q[$1]) * Double(keys[j * size + $1])
                }
                let weight = exp(0.2 * dot)
                total += weight
                for k in 0..<size { exact[k] += weight * Double(values[j * size + k]) }
            }
            for (found, wanted) in zip(run(), exact) {
                #expect(abs(Double(found) - wanted / total) < 1e-5)
            }
            let expected = withPortable(run).map(\.bitPattern)
            for isa in variants {
                withVariant(isa) { #expect(run().map(\.bitPattern) == expected) }
            }
        }
    }

    @Test func aPoolDoesEachTaskOnce() {
        for threads in [1, 2, 5] {
            guard let pool = blyan_pool_new(UInt32(threads), 0) else {
                Issue.record("no pool of \(threads)")
                continue
            }
            defer { blyan_pool_free(pool) }
            for round in 0..<2000 {
                let tasks = round % 17
                var hits = [Int32](repeating: 0, count: 17)
                hits.withUnsafeMutableBufferPointer { hits in
                    blyan_pool_run(
                        pool, UInt32(tasks),
                        { context, task in
                            context?.assumingMemoryBound(to: Int32.self)[Int(task)] += 1
                        },
                        hits.baseAddress)
                }
                #expect(hits == (0..<17).map { $0 < tasks ? 1 : 0 })
            }
        }
    }
}
