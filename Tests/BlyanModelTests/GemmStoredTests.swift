import BlyanModel
import CBlyanMath
import CBlyanPlugin
import Testing

/// Weights as they lie, converted part after part for a library that knows f32 alone.
@Suite struct GemmStoredTests {
    /// A library that sums in the plainest way.
    private static let plain = GemmLibrary(
        name: "plain", version: "",
        product: { p in
            for i in 0..<p.m {
                for j in 0..<p.n {
                    var sum: Float = 0
                    for k in 0..<p.k {
                        sum +=
                            p.a[p.transposesA ? k * p.strideA + i : i * p.strideA + k]
                            * p.b[p.transposesB ? j * p.strideB + k : k * p.strideB + j]
                    }
                    let old = p.beta == 0 ? 0 : p.beta * p.c[i * p.strideC + j]
                    p.c[i * p.strideC + j] = p.alpha * sum + old
                }
            }
        })

    private static let dtypes: [Int] = [
        Int(BLYAN_DTYPE_F32), Int(BLYAN_DTYPE_F16), Int(BLYAN_DTYPE_BF16), Int(BLYAN_DTYPE_I8),
    ]

    /// Small whole numbers, which every dtype holds exactly, as do their sums.
    private func weight(_ row: Int, _ k: Int) -> Float { Float((row * 7 + k * 5) % 23 - 11) }

    private func bytes(_ value: Float, _ dtype: Int) -> [UInt8] {
        switch dtype {
        case Int(BLYAN_DTYPE_F32):
            withUnsafeBytes(of: value.bitPattern.littleEndian) { [UInt8]($0) }
        case Int(BLYAN_DTYPE_F16):
            withUnsafeBytes(of: Float16(value).bitPattern.littleEndian) { [UInt8]($0) }
        case Int(BLYAN_DTYPE_BF16):
            withUnsafeBytes(of: UInt16(value.bitPattern >> 16).littleEndian) { [UInt8]($0) }
        default: [UInt8(bitPattern: Int8(value))]
        }
    }

    /// One part, several with a rest, a row at a time; rows that lie apart; 1 and 3 threads.
    @Test(arguments: dtypes, [1 << 20, 24 * 16, 24 * 3, 1])
    func everyDtypeAndPartIsExact(dtype: Int, limit: Int) throws {
        let (rows, columns, tokens, gap) = (47, 24, 5, 8)
        var data: [UInt8] = []
        for row in 0..<rows {
            for k in 0..<columns { data += bytes(weight(row, k), dtype) }
            data += [UInt8](repeating: 99, count: gap)
        }
        let scales: [Float] = (0..<rows).map { [1, 2, 4][$0 % 3] }
        let x = (0..<tokens * columns).map { Float($0 % 13 - 6) }
        for threads in [1, 3] {
            let pool = try WorkerPool(threads: threads)
            var y = [Float](repeating: .nan, count: tokens * (rows + 2))
            data.withUnsafeBufferPointer { data in
                scales.withUnsafeBufferPointer { scales in
                    let matrix = blyan_matrix(
                        data: data.baseAddress, scales: scales.baseAddress, rows: UInt64(rows),
                        columns: UInt64(columns), row_stride: UInt64(data.count / rows),
                        dtype: UInt32(dtype), reserved: 0)
                    Self.plain.multiply(
                        matrix, x: x, tokens: tokens, y: &y, stride: rows + 2, pool,
                        converted: AlignedBuffer(count: 0), limit: limit)
                }
            }
            for token in 0..<tokens {
                for row in 0..<rows {
                    let scale: Float = dtype == Int(BLYAN_DTYPE_I8) ? scales[row] : 1
                    var expected: Float = 0
                    for k in 0..<columns {
                        expected += x[token * columns + k] * weight(row, k) * scale
                    }
                    #expect(y[token * (rows + 2) + row] == expected, "token \(token), row \(row)")
                }
                #expect(y[token * (rows + 2) + rows].isNaN, "what lies between rows is left alone")
            }
        }
    }
}
