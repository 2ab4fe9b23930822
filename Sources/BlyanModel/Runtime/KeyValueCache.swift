internal import Foundation

// Safe: the mapping is owned by this object and unmapped in deinit; rows are bounded by `capacity`.
// Unchecked: one step at a time writes it, and its workers write disjoint rows.
/// Keys and values of one request, f32, a row a position for each layer.
///
/// Address space for all positions is reserved at once; memory is used as positions are written.
@safe package final class KeyValueCache: @unchecked Sendable {
    /// Positions that fit.
    let capacity: Int
    /// Floats a row: key/value heads × head size.
    let width: Int
    private let base: UnsafeMutableRawPointer
    private let byteCount: Int

    init(layers: Int, capacity: Int, width: Int) throws {
        self.capacity = capacity
        self.width = width
        let (perLayer, o1) = capacity.multipliedReportingOverflow(by: width * 4)
        let (total, o2) = perLayer.multipliedReportingOverflow(by: 2 * layers)
        guard !o1, !o2, total > 0 else {
            throw ModelError("a key/value cache of \(capacity) positions is too large")
        }
        byteCount = total
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let mapping = unsafe mmap(nil, total, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
            throw ModelError(
                "cannot reserve \(total) bytes for \(capacity) positions: errno \(errno)")
        }
        unsafe base = mapping
    }

    deinit { unsafe munmap(base, byteCount) }

    /// Row 0 of a layer's keys.
    func keys(_ layer: Int) -> UnsafeMutablePointer<Float> {
        unsafe (base + 2 * layer * capacity * width * 4).assumingMemoryBound(to: Float.self)
    }

    /// Row 0 of a layer's values.
    func values(_ layer: Int) -> UnsafeMutablePointer<Float> {
        unsafe (base + (2 * layer + 1) * capacity * width * 4).assumingMemoryBound(to: Float.self)
    }
}
