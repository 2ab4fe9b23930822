internal import ArgumentParser
internal import CBlyanMath
internal import CBlyanPlugin
internal import Foundation

struct MathBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "math",
        abstract: "The kernels alone: GB/s of weights for one token, Gop/s for a batch, one thread."
    )

    @Option(help: "Tokens of the batch.")
    var tokens = 512

    func run() throws {
        var figures: [String: Double] = [:]
        let names: [(String, UInt32, Int)] = [
            ("f32", UInt32(BLYAN_DTYPE_F32), 4), ("f16", UInt32(BLYAN_DTYPE_F16), 2),
            ("bf16", UInt32(BLYAN_DTYPE_BF16), 2), ("int8", UInt32(BLYAN_DTYPE_I8), 1),
        ]
        for (name, dtype, width) in names {
            // 512 MiB for one token, so that no cache holds it; 1408 x 512 for a batch.
            let large = Matrix(dtype, width, rows: (512 << 20) / (512 * width), columns: 512)
            let one = (0..<5).map { _ in large.time(tokens: 1) }
            figures["decode_\(name)_GB_per_s"] = Double(large.byteCount) / median(one) / 1e9
            let small = Matrix(dtype, width, rows: 1408, columns: 512)
            let many = (0..<15).map { _ in small.time(tokens: tokens) }
            figures["batch_\(name)_Gop_per_s"] =
                2 * 1408 * 512 * Double(tokens) / median(many) / 1e9
        }
        try report(figures)
    }

    // Safe: the buffers are owned by this object and have the sizes that the kernels are told.
    @safe private final class Matrix {
        private let data: UnsafeMutablePointer<UInt8>
        private let scales: [Float]
        private let dtype: UInt32
        private let rows: Int, columns: Int
        let byteCount: Int

        init(_ dtype: UInt32, _ width: Int, rows: Int, columns: Int) {
            byteCount = rows * columns * width
            unsafe data = .allocate(capacity: byteCount)
            // The last byte of an element holds the exponent: no denormals, which processors are slow on.
            for i in 0..<byteCount {
                let byte = UInt8(truncatingIfNeeded: i &* 37) & 0x3F
                unsafe data[i] = i % width == width - 1 ? byte | 0x20 : byte
            }
            scales = [Float](repeating: 0.01, count: rows)
            self.dtype = dtype
            self.rows = rows
            self.columns = columns
        }

        deinit { unsafe data.deallocate() }

        func time(tokens: Int) -> Double {
            let x = (0..<tokens * columns).map { Float($0 % 13) - 6 }
            var y = [Float](repeating: 0, count: tokens * rows)
            let size = Int(blyan_math_prepared_size(dtype, UInt64(tokens), UInt64(columns)))
            let prepared = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
            defer { unsafe prepared.deallocate() }
            unsafe blyan_math_prepare(
                dtype, x, UInt64(columns), UInt64(tokens), UInt64(columns), prepared)
            return unsafe scales.withUnsafeBufferPointer { scales in
                var matrix = unsafe blyan_matrix(
                    data: data, scales: scales.baseAddress, rows: UInt64(rows),
                    columns: UInt64(columns),
                    row_stride: UInt64(byteCount / rows), dtype: dtype, reserved: 0)
                return seconds {
                    unsafe blyan_math_matmul(
                        &matrix, 0, UInt64(rows), prepared, UInt64(tokens), &y, UInt64(rows))
                }
            }
        }
    }
}
