internal import CBlyanMath
internal import CBlyanPlugin

/// Turns the rows of a GGUF tensor into rows that can be stored: dequantised, and put in order.
package struct GGUFRows: Sendable {
    /// How the rows are stored.
    package let type: GGUFType
    /// The `BLYAN_DTYPE_` code that they become.
    package let target: UInt32
    package let rows: Int
    package let columns: Int
    /// Rows of a head where each head's rows lie as (pair, half) and are wanted as (half, pair); else nil.
    package let headSize: Int?

    /// Describes a conversion; `columns` must be whole blocks of `type`, and `headSize` even and divide `rows`.
    package init(type: GGUFType, target: UInt32, rows: Int, columns: Int, headSize: Int?) {
        self.type = type
        self.target = target
        self.rows = rows
        self.columns = columns
        self.headSize = headSize
    }

    /// Whether nothing is to be done.
    var isAsStored: Bool { !type.isQuantised && headSize == nil }

    private var rowBytes: Int { columns * (target == UInt32(BLYAN_DTYPE_F32) ? 4 : 2) }

    /// Bytes of all rows after conversion.
    package var byteCount: Int { rows * rowBytes }

    /// Converts `source`, which holds all rows, into `out`, which has ``byteCount`` bytes, aligned for floats.
    package func convert(_ source: UnsafeRawBufferPointer, into out: UnsafeMutablePointer<UInt8>) {
        let storedBytes = columns / type.blockElements * type.blockBytes
        guard let base = source.baseAddress, source.count == rows * storedBytes else {
            return
        }
        let floats = AlignedBuffer<Float>(count: columns)
        let isHalf = target == UInt32(BLYAN_DTYPE_F16)
        for row in 0..<rows {
            let stored = unsafe base + place(of: row) * storedBytes
            let target = unsafe UnsafeMutableRawPointer(out + row * rowBytes)
            guard type.isQuantised else {
                unsafe target.copyMemory(from: stored, byteCount: rowBytes)
                continue
            }
            guard isHalf else {
                unsafe type.decode(
                    stored, blocks: columns / type.blockElements,
                    into: target.assumingMemoryBound(to: Float.self))
                continue
            }
            unsafe type.decode(
                stored, blocks: columns / type.blockElements, into: floats.pointer)
            _ = unsafe blyan_math_to_f16(
                floats.pointer, UInt64(columns), target.assumingMemoryBound(to: UInt16.self))
        }
    }

    /// Where the row that comes out at `row` is stored.
    private func place(of row: Int) -> Int {
        guard let headSize else { return row }
        let (head, within) = (row / headSize, row % headSize)
        let (half, pair) = (within / (headSize / 2), within % (headSize / 2))
        return head * headSize + 2 * pair + half
    }
}
