/// Whether the work of the current thread or task should stop: its client went away, or the node ends.
public enum Cancellation {
    // A task-local closure crashes when it is bound (Swift 6.3.1); one in a struct does not.
    private struct Request: Sendable {
        let isMade: @Sendable () -> Bool
    }

    @TaskLocal private static var request = Request { Task.isCancelled }

    /// Whether to stop, asked between pieces of work.
    public static var isRequested: Bool { request.isMade() }

    /// Runs `body`, in which `isRequested` answers whether to stop; whoever starts a command does this.
    public static func bind<Result>(
        _ isRequested: @escaping @Sendable () -> Bool, _ body: () throws -> Result
    ) rethrows -> Result {
        try $request.withValue(Request(isMade: isRequested), operation: body)
    }

    /// Ends work that nobody waits for.
    ///
    /// - Throws: ``KernelError`` with code `cancelled`.
    public static func check() throws(KernelError) {
        if isRequested { throw KernelError(.cancelled, "the work was stopped on request") }
    }
}
