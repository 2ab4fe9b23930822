/// Rows turned into columns.
enum Transpose {
    /// Rows worked on at once: as many as a cache keeps lines of one address modulo a page.
    static let rows = 8

    /// Writes each column of up to ``rows`` rows as neighbours; elements of 1, 2 or 4 bytes, any alignment.
    ///
    /// - Parameters:
    ///   - sourcePitch: bytes from a row to the next.
    ///   - pitch: bytes from a column to the next.
    static func gather(
        _ source: UnsafeRawPointer, pitch sourcePitch: Int, rows: Int, columns: Int, width: Int,
        into out: UnsafeMutableRawPointer, pitch: Int
    ) {
        switch width {
        case 1: unsafe gather(UInt8.self, source, sourcePitch, rows, columns, out, pitch)
        case 2: unsafe gather(UInt16.self, source, sourcePitch, rows, columns, out, pitch)
        default: unsafe gather(UInt32.self, source, sourcePitch, rows, columns, out, pitch)
        }
    }

    @inline(__always)
    private static func gather<Word: FixedWidthInteger & BitwiseCopyable>(
        _: Word.Type, _ source: UnsafeRawPointer, _ sourcePitch: Int, _ rows: Int,
        _ columns: Int, _ out: UnsafeMutableRawPointer, _ pitch: Int
    ) {
        let width = MemoryLayout<Word>.size
        for column in 0..<columns {
            var from = unsafe source + column &* width
            var to = unsafe out + column &* pitch
            for _ in 0..<rows {
                unsafe to.storeBytes(of: from.loadUnaligned(as: Word.self), as: Word.self)
                unsafe from += sourcePitch
                unsafe to += width
            }
        }
    }
}
