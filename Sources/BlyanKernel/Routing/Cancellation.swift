/// Whether the work of the current thread or task should stop: its client went away, or the node ends.
public enum Cancellation {
    /// Asked between pieces of work; whoever starts a command binds it.
    @TaskLocal public static var isRequested: @Sendable () -> Bool = { Task.isCancelled }

    /// Ends work that nobody waits for.
    ///
    /// - Throws: ``KernelError`` with code `cancelled`.
    public static func check() throws(KernelError) {
        if isRequested() { throw KernelError(.cancelled, "the work was stopped on request") }
    }
}
