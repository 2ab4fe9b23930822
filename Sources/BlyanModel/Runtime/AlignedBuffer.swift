internal import Foundation

// Safe: the storage is owned by this object alone, freed in deinit, and `count` bounds it.
// Unchecked: workers write disjoint ranges between two barriers of the pool.
/// Memory for numbers, aligned to 64 bytes, that kernels read and write.
///
/// Contents are undefined until written. One owner at a time: the decoder hands disjoint ranges to its workers.
@safe package final class AlignedBuffer<Element: BitwiseCopyable>: @unchecked Sendable {
    package private(set) var count: Int
    private var storage: UnsafeMutableRawPointer

    package init(count: Int) {
        self.count = count
        unsafe storage = UnsafeMutableRawPointer.allocate(
            byteCount: max(64, count * MemoryLayout<Element>.stride), alignment: 64)
    }

    deinit { unsafe storage.deallocate() }

    /// The first element; valid until the next ``reserve(_:)`` and as long as the buffer lives.
    package var pointer: UnsafeMutablePointer<Element> {
        unsafe storage.assumingMemoryBound(to: Element.self)
    }

    /// Grows to at least `count` elements; the contents are lost when it does.
    package func reserve(_ count: Int) {
        guard count > self.count else { return }
        unsafe storage.deallocate()
        self.count = count
        unsafe storage = UnsafeMutableRawPointer.allocate(
            byteCount: max(64, count * MemoryLayout<Element>.stride), alignment: 64)
    }

    /// A copy of elements `range`.
    package func array(_ range: Range<Int>) -> [Element] {
        precondition(range.upperBound <= count, "range leaves the buffer")
        return unsafe Array(
            UnsafeBufferPointer(start: pointer + range.lowerBound, count: range.count))
    }
}
