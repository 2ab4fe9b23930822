/// Whether the work of the current thread or task should stop: its client went away, or the node ends.
///
/// A struct around the closure, because a task-local closure crashes when it is bound (Swift 6.3.1).
public struct Cancellation: Sendable {
    /// Whoever starts a command binds it.
    @TaskLocal public static var current = Cancellation { Task.isCancelled }

    /// Asked between pieces of work.
    public let isRequested: @Sendable () -> Bool

    /// A request to stop that stands once `isRequested` answers so.
    public init(_ isRequested: @escaping @Sendable () -> Bool) { self.isRequested = isRequested }

    /// Ends work that nobody waits for.
    ///
    /// - Throws: ``KernelError`` with code `cancelled`.
    public static func check() throws(KernelError) {
        if current.isRequested() { throw KernelError(.cancelled, "stopped on request") }
    }
}
