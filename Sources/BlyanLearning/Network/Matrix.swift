package import BlyanModel
internal import CBlyanMath

// Safe: every view lies within `owner`, which it keeps alive and which never grows; ranges are checked where views are made.
// Unchecked: workers write disjoint rows between two barriers of the pool.
/// Rows of f32 in memory: a whole buffer or a view of one.
///
/// Contents are undefined until written.
@safe package struct Matrix: @unchecked Sendable {
    private let owner: AlignedBuffer<Float>
    /// The first element; rows lie ``stride`` apart.
    let base: UnsafeMutablePointer<Float>
    package let rows: Int
    package let columns: Int
    let stride: Int

    /// New memory, undefined.
    package init(rows: Int, columns: Int) {
        self.init(AlignedBuffer(count: rows * columns), rows: rows, columns: columns)
    }

    /// All of a buffer that nobody reserves more of.
    package init(_ buffer: AlignedBuffer<Float>, rows: Int, columns: Int) {
        precondition(
            rows >= 0 && columns >= 0 && rows * columns <= buffer.count, "buffer too small")
        owner = buffer
        unsafe base = buffer.pointer
        self.rows = rows
        self.columns = columns
        stride = columns
    }

    private init(_ other: Matrix, skip: Int, rows: Int, columns: Int) {
        owner = other.owner
        unsafe base = other.base + skip
        self.rows = rows
        self.columns = columns
        stride = other.stride
    }

    /// A view of some rows.
    package func rows(_ range: Range<Int>) -> Matrix {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows leave the matrix")
        return Matrix(self, skip: range.lowerBound * stride, rows: range.count, columns: columns)
    }

    /// A view of some columns.
    func columns(_ range: Range<Int>) -> Matrix {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= columns, "columns leave the matrix")
        return Matrix(self, skip: range.lowerBound, rows: rows, columns: range.count)
    }

    func row(_ i: Int) -> UnsafeMutablePointer<Float> {
        precondition(i >= 0 && i < rows, "row leaves the matrix")
        return unsafe base + i * stride
    }

    /// Zero, everywhere.
    package func clear() {
        for i in 0..<rows { unsafe row(i).update(repeating: 0, count: columns) }
    }

    /// Row `i` becomes row `j` of another matrix.
    func copyRow(_ i: Int, from other: Matrix, _ j: Int) {
        precondition(other.columns == columns, "rows differ in length")
        unsafe row(i).update(from: other.row(j), count: columns)
    }

    /// Row `i` += factor · row `j` of another matrix.
    func addRow(_ i: Int, _ other: Matrix, _ j: Int, times factor: Float = 1) {
        precondition(other.columns == columns, "rows differ in length")
        unsafe blyan_math_axpy(factor, other.row(j), row(i), UInt64(columns))
    }

    /// Row `i` becomes factor times itself.
    func scaleRow(_ i: Int, by factor: Float) {
        let row = unsafe row(i)
        for k in 0..<columns { unsafe row[k] *= factor }
    }

    /// Row `i` · row `j` of another matrix.
    func dot(_ i: Int, _ other: Matrix, _ j: Int) -> Float {
        precondition(other.columns == columns, "rows differ in length")
        return unsafe blyan_math_dot(row(i), other.row(j), UInt64(columns))
    }

    /// One element.
    package subscript(_ i: Int, _ k: Int) -> Float {
        get {
            precondition(k >= 0 && k < columns, "column leaves the matrix")
            return unsafe row(i)[k]
        }
        nonmutating set {
            precondition(k >= 0 && k < columns, "column leaves the matrix")
            unsafe row(i)[k] = newValue
        }
    }

    /// All elements, row after row.
    package var values: [Float] {
        (0..<rows).flatMap { i in
            unsafe Array(UnsafeBufferPointer(start: row(i), count: columns))
        }
    }
}
