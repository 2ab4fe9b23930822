package import CBlyanMath
internal import CBlyanPlugin

extension GemmLibrary {
    /// y[token][row] = x[token] · w[row] of weights as they lie: those that are not f32 are converted by the pool, part after part.
    ///
    /// - Parameters:
    ///   - y: rows of it lie `stride` apart.
    ///   - converted: room for a part, made larger as needed.
    ///   - limit: weights of a part at most, but for one row: 16 MiB of f32.
    package func multiply(
        _ weights: blyan_matrix, x: UnsafePointer<Float>, tokens: Int,
        y: UnsafeMutablePointer<Float>, stride: Int, _ pool: WorkerPool,
        converted: AlignedBuffer<Float>, limit: Int = 4 << 20
    ) {
        let (rows, columns) = unsafe (Int(weights.rows), Int(weights.columns))
        if unsafe weights.dtype == UInt32(BLYAN_DTYPE_F32),
            unsafe weights.row_stride == UInt64(4 * columns), let data = unsafe weights.data
        {
            unsafe multiply(
                GemmOperands(
                    x: x, w: UnsafeRawPointer(data).assumingMemoryBound(to: Float.self), y: y,
                    tokens: tokens, rows: rows, columns: columns, stride: stride))
            return
        }
        let fitting = limit / max(1, columns)
        let atOnce = max(1, min(rows, fitting < 16 ? fitting : fitting / 16 * 16))
        converted.reserve(atOnce * columns)
        let part = unsafe converted.pointer
        for begin in Swift.stride(from: 0, to: rows, by: atOnce) {
            let count = min(atOnce, rows - begin)
            let tasks = pool.shares(count)
            pool.run(tasks.count) { task in
                var matrix = unsafe weights
                unsafe blyan_math_decode(
                    &matrix, UInt64(begin + tasks[task].lowerBound),
                    UInt64(begin + tasks[task].upperBound),
                    part + tasks[task].lowerBound * columns)
            }
            unsafe multiply(
                GemmOperands(
                    x: x, w: UnsafePointer(part), y: y + begin, tokens: tokens, rows: count,
                    columns: columns, stride: stride))
        }
    }
}
