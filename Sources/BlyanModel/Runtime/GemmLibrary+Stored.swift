package import CBlyanMath
internal import CBlyanPlugin

extension GemmLibrary {
    /// y[token][row] = x[token] · w[row] of weights as they lie, rows shared out over the pool; those that are not f32 are converted, part after part.
    ///
    /// - Parameters:
    ///   - y: rows of it lie `stride` apart.
    ///   - converted: room for the parts under way, made larger as needed.
    ///   - limit: weights under way at most, but for one row a thread: 16 MiB of f32.
    package func multiply(
        _ weights: blyan_matrix, x: UnsafePointer<Float>, tokens: Int,
        y: UnsafeMutablePointer<Float>, stride: Int, _ pool: WorkerPool,
        converted: AlignedBuffer<Float>, limit: Int = 4 << 20
    ) {
        let (rows, columns) = unsafe (Int(weights.rows), Int(weights.columns))
        let tasks = pool.shares(rows)
        if unsafe weights.dtype == UInt32(BLYAN_DTYPE_F32),
            unsafe weights.row_stride == UInt64(4 * columns), let data = unsafe weights.data
        {
            let w = unsafe UnsafeRawPointer(data).assumingMemoryBound(to: Float.self)
            pool.run(tasks.count) { task in
                let part = tasks[task]
                unsafe multiply(
                    GemmOperands(
                        x: x, w: w + part.lowerBound * columns, y: y + part.lowerBound,
                        tokens: tokens, rows: part.count, columns: columns, stride: stride))
            }
            return
        }
        let fitting = limit / max(1, columns * tasks.count)
        let atOnce = max(1, min(rows, fitting < 16 ? fitting : fitting / 16 * 16))
        converted.reserve(tasks.count * atOnce * columns)
        let room = unsafe converted.pointer
        pool.run(tasks.count) { task in
            let part = unsafe room + task * atOnce * columns
            for begin in Swift.stride(
                from: tasks[task].lowerBound, to: tasks[task].upperBound, by: atOnce)
            {
                let count = min(atOnce, tasks[task].upperBound - begin)
                var matrix = unsafe weights
                unsafe blyan_math_decode(&matrix, UInt64(begin), UInt64(begin + count), part)
                unsafe multiply(
                    GemmOperands(
                        x: x, w: UnsafePointer(part), y: y + begin, tokens: tokens, rows: count,
                        columns: columns, stride: stride))
            }
        }
    }
}
