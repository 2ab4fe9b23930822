internal import CBlyanMath

// Safe: the C pool is owned by this object and freed in deinit.
// Unchecked: `run` is called by one step at a time, which the decoder's lock ensures.
/// The threads that share a step's work.
@safe package final class WorkerPool: @unchecked Sendable {
    private let pool: OpaquePointer
    /// Threads, the caller included.
    package let threads: Int

    /// A pool of `threads` (at least 1).
    ///
    /// - Parameter isBackground: its workers run only where nothing else wants the processor; who calls ``run(_:_:)`` is
    ///   one of the threads, and sees to itself: ``Background``.
    package init(threads: Int, isBackground: Bool = false) throws {
        let wanted = UInt32(clamping: max(1, threads))
        guard let pool = unsafe blyan_pool_new(wanted, isBackground ? 1 : 0) else {
            throw ModelError("cannot start \(wanted) worker threads")
        }
        unsafe self.pool = pool
        self.threads = Int(wanted)
    }

    deinit { unsafe blyan_pool_free(pool) }

    /// Calls `body(task)` once for each task below `tasks`, on several threads at once; returns when all are done.
    package func run(_ tasks: Int, _ body: (Int) -> Void) {
        guard tasks > 1, threads > 1 else {
            for task in 0..<tasks { body(task) }
            return
        }
        withoutActuallyEscaping(body) { escaping in
            var work = escaping
            unsafe withUnsafeMutablePointer(to: &work) { pointer in
                unsafe blyan_pool_run(
                    pool, UInt32(clamping: tasks),
                    { context, task in
                        let work = unsafe context?.assumingMemoryBound(to: ((Int) -> Void).self)
                        unsafe work?.pointee(Int(task))
                    }, pointer)
            }
        }
    }

    /// Row ranges for the threads: whole multiples of 16 rows, none much smaller than another.
    package func shares(_ rows: Int) -> [Range<Int>] {
        let pieces = threads == 1 ? 1 : threads * 2
        let step = max(16, ((rows + pieces - 1) / pieces + 15) / 16 * 16)
        return stride(from: 0, to: rows, by: step).map { $0..<min(rows, $0 + step) }
    }
}
