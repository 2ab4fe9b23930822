internal import BlyanKernel
internal import CBlyanMath
internal import Foundation
internal import Synchronization

/// A value that a thread of its own computes.
package final class Background<Value: Sendable>: Sendable {
    private let result = Mutex<Swift.Result<Value, any Error>?>(nil)
    private let running = DispatchGroup()

    /// Begins at once; what asks to stop the caller's work asks to stop this.
    ///
    /// - Parameter yields: the thread runs only where nothing else wants the processor, and so do all threads that
    ///   begin in it; beside a chat it has the share that ``Breather`` gives.
    package init(yields: Bool = false, _ body: @escaping @Sendable () throws -> Value) {
        let cancellation = Cancellation.current
        running.enter()
        Thread.detachNewThread { [self] in
            if yields {
                BackgroundWork.begins()
                blyan_thread_background()
            }
            let found = Swift.Result {
                try Cancellation.$current.withValue(cancellation) { try body() }
            }
            result.withLock { $0 = found }
            if yields { BackgroundWork.ends() }
            running.leave()
        }
    }

    /// The value, once it is there.
    ///
    /// - Throws: What the body threw.
    package func value() throws -> Value {
        running.wait()
        guard let found = result.withLock({ $0 }) else {
            throw ModelError("a thread ended without its result")
        }
        return try found.get()
    }
}
