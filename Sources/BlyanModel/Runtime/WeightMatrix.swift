package import BlyanKernel
internal import CBlyanMath

// Safe: the pointers come from `source`, which this object keeps alive.
// Unchecked: immutable after init.
/// A stored matrix that kernels multiply with: where it lies, not a copy.
///
/// Bytes are reached through the payload, which verifies them as the node's policy says; a matrix whose
/// format gives no view is decoded once to f32 that this object owns.
@safe package final class WeightMatrix: @unchecked Sendable {
    package let rows: Int
    let columns: Int
    let dtype: UInt32
    private let rowStride: Int
    private let source: Source

    /// Where the numbers are.
    private enum Source {
        case payload(any PayloadBytes, data: Range<UInt64>, scales: Range<UInt64>?)
        case decoded(AlignedBuffer<Float>)
    }

    /// A matrix that lies in a payload, row-major.
    package init(
        payload: any PayloadBytes, rows: Int, columns: Int, dtype: UInt32, rowStride: Int,
        data: Range<UInt64>, scales: Range<UInt64>?
    ) {
        self.rows = rows
        self.columns = columns
        self.dtype = dtype
        self.rowStride = rowStride
        source = .payload(payload, data: data, scales: scales)
    }

    /// A matrix of f32 that is held in memory, row after row.
    package init(decoded: AlignedBuffer<Float>, rows: Int, columns: Int) {
        self.rows = rows
        self.columns = columns
        dtype = UInt32(BLYAN_DTYPE_F32)
        rowStride = columns * 4
        source = .decoded(decoded)
    }

    /// The matrix for the C kernels, all of it verified.
    ///
    /// - Returns: A view valid as long as this object lives.
    /// - Throws: ``KernelError`` if bytes do not have the hash that was signed, or cannot be read.
    func verified() throws(KernelError) -> blyan_matrix { try unsafe view(rows: 0..<rows) }

    /// The matrix for the C kernels, with only `rows` verified: no other row may be read through it.
    func view(rows range: Range<Int>) throws(KernelError) -> blyan_matrix {
        let base: UnsafePointer<UInt8>
        var scaleBase: UnsafePointer<Float>?
        switch source {
        case .decoded(let buffer):
            unsafe base = UnsafeRawPointer(buffer.pointer).assumingMemoryBound(to: UInt8.self)
        case .payload(let payload, let data, let scales):
            let skip = UInt64(range.lowerBound) * UInt64(rowStride)
            let length = min(
                UInt64(range.count) * UInt64(rowStride),
                UInt64(data.count) - min(skip, UInt64(data.count)))
            let first = try unsafe payload.read(offset: data.lowerBound + skip, length: length)
            unsafe base = (first - Int(skip)).assumingMemoryBound(to: UInt8.self)
            if let scales {
                unsafe scaleBase = try payload.read(
                    offset: scales.lowerBound, length: UInt64(scales.count)
                ).assumingMemoryBound(to: Float.self)
            }
        }
        return unsafe blyan_matrix(
            data: base, scales: scaleBase, rows: UInt64(rows), columns: UInt64(columns),
            row_stride: UInt64(rowStride), dtype: dtype, reserved: 0)
    }

    /// Rows `range` as f32.
    func decode(rows range: Range<Int>, into out: UnsafeMutablePointer<Float>) throws(KernelError) {
        var matrix = try unsafe view(rows: range)
        unsafe blyan_math_decode(&matrix, UInt64(range.lowerBound), UInt64(range.upperBound), out)
    }

    /// A vector (1 × N) as f32, for norms and biases.
    func vector() throws(KernelError) -> [Float] {
        let buffer = AlignedBuffer<Float>(count: rows * columns)
        try unsafe decode(rows: 0..<rows, into: buffer.pointer)
        return buffer.array(0..<rows * columns)
    }
}
