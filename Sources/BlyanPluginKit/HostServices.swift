public import CBlyanPlugin

// Safe and Sendable: the table is static and its functions may be called from any thread, by contract.
/// What the host offers to a plugin.
///
/// Any thread; valid for as long as the process runs.
@safe public struct HostServices: @unchecked Sendable {
    private let table: UnsafePointer<blyan_host>

    init(_ table: UnsafePointer<blyan_host>) { unsafe self.table = table }

    /// How much a log line matters.
    public enum LogLevel: Int32, Sendable {
        /// For the plugin's author.
        case debug = 0
        /// For the operator, in passing.
        case info = 1
        /// Something is not as it should be; work goes on.
        case warning = 2
        /// Something failed.
        case error = 3
    }

    /// Writes one line to the node's log.
    public func log(_ level: LogLevel, _ message: String) {
        var message = message
        message.withUTF8 { bytes in
            let text = unsafe blyan_string(
                data: UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self),
                size: UInt64(bytes.count))
            unsafe table.pointee.log(table.pointee.context, level.rawValue, text)
        }
    }

    /// Whether the work under way in the calling thread should stop.
    public var isCancelled: Bool {
        unsafe table.pointee.is_cancelled(table.pointee.context) != 0
    }

    /// The host's products on stored weights, or nil where it lacks them.
    ///
    /// Static.
    public var math: UnsafePointer<blyan_math>? {
        unsafe service(BLYAN_HOST_MATH)?.assumingMemoryBound(to: blyan_math.self)
    }

    /// A further service by id (a static table), or nil.
    public func service(_ id: String) -> UnsafeRawPointer? {
        unsafe table.pointee.get_service(table.pointee.context, id)
    }
}
