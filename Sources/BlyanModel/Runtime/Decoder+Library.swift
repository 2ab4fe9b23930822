internal import CBlyanMath
internal import CBlyanPlugin

extension Decoder {
    /// Tokens from which on a product is the library's.
    ///
    /// `blyan-bench gemm` has our own kernels ahead at 32 tokens, where converting the weights costs more than it
    /// gains, and both about even at 96: OpenBLAS is ahead with f32, bf16 and int8, and level with f16.
    package static let libraryTokens = 96
    /// Weights that are converted at once: 16 MiB of f32.
    private static let convertedCount = 4 << 20

    /// Whether the library multiplies so many tokens.
    func isLong(_ tokens: Int) -> Bool { library != nil && tokens >= Self.libraryTokens }

    /// As ``prepare(_:_:_:_:into:)``; nil where the library multiplies the activations as they are.
    func prepareUnlessLong(
        _ dtype: UInt32, _ x: UnsafePointer<Float>, _ tokens: Int, _ columns: Int,
        into buffer: AlignedBuffer<UInt8>
    ) -> UnsafeRawPointer? {
        isLong(tokens) ? nil : unsafe prepare(dtype, x, tokens, columns, into: buffer)
    }

    /// One product by the library, of weights that the pool converts to f32 part after part.
    func multiplyByLibrary(_ product: Product) {
        guard let library else { preconditionFailure("products are long where there is a library") }
        let rows = Int(unsafe product.matrix.rows)
        let columns = Int(unsafe product.matrix.columns)
        let isFloat = unsafe product.matrix.dtype == UInt32(BLYAN_DTYPE_F32)
        if isFloat, unsafe product.matrix.row_stride == UInt64(4 * columns),
            let data = unsafe product.matrix.data
        {
            unsafe library.multiply(
                GemmOperands(
                    x: product.x,
                    w: UnsafeRawPointer(data).assumingMemoryBound(to: Float.self),
                    y: product.output, tokens: product.tokens, rows: rows, columns: columns,
                    stride: product.stride))
            return
        }
        let fitting = Self.convertedCount / max(1, columns)
        let atOnce = min(rows, fitting < 16 ? max(1, fitting) : fitting / 16 * 16)
        scratch.converted.reserve(atOnce * columns)
        let converted = unsafe scratch.converted.pointer
        for begin in stride(from: 0, to: rows, by: max(1, atOnce)) {
            let count = min(atOnce, rows - begin)
            let tasks = pool.shares(count)
            pool.run(tasks.count) { task in
                var matrix = unsafe product.matrix
                unsafe blyan_math_decode(
                    &matrix, UInt64(begin + tasks[task].lowerBound),
                    UInt64(begin + tasks[task].upperBound),
                    converted + tasks[task].lowerBound * columns)
            }
            unsafe library.multiply(
                GemmOperands(
                    x: product.x, w: UnsafePointer(converted), y: product.output + begin,
                    tokens: product.tokens, rows: count, columns: columns, stride: product.stride))
        }
    }
}
