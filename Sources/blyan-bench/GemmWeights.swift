internal import BlyanModel
internal import CBlyanMath
internal import CBlyanPlugin

// Safe: the buffers are owned by this object and have the sizes that are told to those who use them.
/// One matrix of weights in a dtype, and its product with a prompt's activations in every way that is measured.
@safe final class GemmWeights {
    let dtype: UInt32
    let rows: Int
    let columns: Int
    private let data: AlignedBuffer<UInt8>
    private let scales: AlignedBuffer<Float>
    /// Where parts of the rows are converted to f32.
    private let converted = AlignedBuffer<Float>(count: 0)

    /// The same values in every dtype, as well as it can say them.
    init(_ dtype: UInt32, rows: Int, columns: Int) {
        self.dtype = dtype
        self.rows = rows
        self.columns = columns
        let width = [UInt32(BLYAN_DTYPE_F32): 4, UInt32(BLYAN_DTYPE_I8): 1][dtype] ?? 2
        data = AlignedBuffer(count: rows * columns * width)
        scales = AlignedBuffer(count: rows)
        var random = Random()
        let row = AlignedBuffer<Float>(count: columns)
        for r in 0..<rows {
            for k in 0..<columns { unsafe row.pointer[k] = random.next() }
            unsafe scales.pointer[r] = 1 / 127
            unsafe store(row.pointer, at: data.pointer + r * columns * width)
        }
    }

    private func store(_ row: UnsafePointer<Float>, at out: UnsafeMutablePointer<UInt8>) {
        let raw = UnsafeMutableRawPointer(out)
        switch dtype {
        case UInt32(BLYAN_DTYPE_F32):
            unsafe raw.copyMemory(from: row, byteCount: 4 * columns)
        case UInt32(BLYAN_DTYPE_F16):
            _ = unsafe blyan_math_to_f16(
                row, UInt64(columns), raw.assumingMemoryBound(to: UInt16.self))
        case UInt32(BLYAN_DTYPE_BF16):
            let out = unsafe raw.assumingMemoryBound(to: UInt16.self)
            for k in 0..<columns { unsafe out[k] = UInt16(row[k].bitPattern >> 16) }
        default:
            let out = unsafe raw.assumingMemoryBound(to: Int8.self)
            for k in 0..<columns { unsafe out[k] = Int8(row[k] * 127) }
        }
    }

    /// Our own kernels as the decoder calls them.
    ///
    /// Preparing the activations is counted, though the decoder does it once for all matrices that read them.
    func multiply(_ prompt: GemmPrompt, _ pool: WorkerPool) {
        unsafe blyan_math_prepare(
            dtype, prompt.x.pointer, UInt64(columns), UInt64(prompt.tokens), UInt64(columns),
            prompt.prepared.pointer)
        let tasks = pool.shares(rows)
        pool.run(tasks.count) { task in
            var matrix = unsafe self.matrix
            unsafe blyan_math_matmul(
                &matrix, UInt64(tasks[task].lowerBound), UInt64(tasks[task].upperBound),
                prompt.prepared.pointer, UInt64(prompt.tokens), prompt.y.pointer, UInt64(rows))
        }
    }

    /// A library's product, shared out over the pool; weights that are not f32 are converted part after part.
    func convertAndMultiply(_ prompt: GemmPrompt, _ library: GemmLibrary, _ pool: WorkerPool) {
        unsafe library.multiply(
            matrix, x: prompt.x.pointer, tokens: prompt.tokens, y: prompt.y.pointer, stride: rows,
            pool, converted: converted)
    }

    /// The exact sums of bytes alone.
    ///
    /// That is what a library could gain at most: no activations are quantised, no sums are scaled. It knows one scale a token, where our own have one for each 64 activations.
    func multiplyBytes(
        _ prompt: GemmPrompt, _ pool: WorkerPool, _ multiply: (GemmOperands<Int8, Int32>) -> Void
    ) {
        precondition(dtype == UInt32(BLYAN_DTYPE_I8), "these weights are no bytes")
        unsafe data.pointer.withMemoryRebound(to: Int8.self, capacity: rows * columns) { bytes in
            let tasks = pool.shares(rows)
            pool.run(tasks.count) { task in
                let begin = tasks[task].lowerBound
                unsafe multiply(
                    GemmOperands(
                        x: prompt.bytes.pointer, w: bytes + begin * columns,
                        y: prompt.sums.pointer + begin, tokens: prompt.tokens,
                        rows: tasks[task].count, columns: columns, stride: rows))
            }
        }
    }

    /// What ``multiplyBytes(_:_:)`` left, as numbers in y; not timed.
    func scaleSums(_ prompt: GemmPrompt) {
        for i in 0..<prompt.tokens * rows {
            unsafe prompt.y.pointer[i] =
                Float(prompt.sums.pointer[i]) * scales.pointer[i % rows] / 127
        }
    }

    private var matrix: blyan_matrix {
        unsafe blyan_matrix(
            data: data.pointer, scales: scales.pointer, rows: UInt64(rows),
            columns: UInt64(columns), row_stride: UInt64(data.count / rows), dtype: dtype,
            reserved: 0)
    }
}

// Safe: the buffers are owned by this object and have the sizes of its prompt.
/// The activations of a prompt, and room for what is made of them.
@safe final class GemmPrompt {
    let tokens: Int
    let x: AlignedBuffer<Float>
    let y: AlignedBuffer<Float>
    let prepared: AlignedBuffer<UInt8>
    /// x in 127ths, and its products' sums.
    let bytes: AlignedBuffer<Int8>
    let sums: AlignedBuffer<Int32>
    private let rows: Int

    init(tokens: Int, rows: Int, columns: Int) {
        self.tokens = tokens
        self.rows = rows
        x = AlignedBuffer(count: tokens * columns)
        y = AlignedBuffer(count: tokens * rows)
        bytes = AlignedBuffer(count: tokens * columns)
        sums = AlignedBuffer(count: tokens * rows)
        let sizes = [UInt32(BLYAN_DTYPE_F32), UInt32(BLYAN_DTYPE_I8)].map {
            blyan_math_prepared_size($0, UInt64(tokens), UInt64(columns))
        }
        prepared = AlignedBuffer(count: Int(sizes.max() ?? 0))
        var random = Random()
        for i in 0..<tokens * columns {
            let value = random.next()
            unsafe x.pointer[i] = value
            unsafe bytes.pointer[i] = Int8((value * 127).rounded())
        }
    }

    /// Makes every result a NaN, and every sum one that no product has.
    func forget() {
        for i in 0..<tokens * rows {
            unsafe y.pointer[i] = .nan
            unsafe sums.pointer[i] = .max
        }
    }

    /// What the last product left.
    var result: [Float] { y.array(0..<tokens * rows) }
    /// The first token's part of it.
    var firstRow: [Float] { y.array(0..<rows) }
}

/// Numbers between -1 and 1, the same in every run.
private struct Random {
    private var state: UInt32 = 2_463_534_242

    mutating func next() -> Float {
        state ^= state << 13
        state ^= state >> 17
        state ^= state << 5
        return Float(Int32(bitPattern: state)) / 2_147_483_648
    }
}
