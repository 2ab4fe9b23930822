/// What went wrong with a model's files or arithmetic: the object, found and expected, and what to do.
public struct ModelError: Error, Sendable, CustomStringConvertible {
    /// One sentence in lower case without full stop.
    public let message: String
    /// What to do next, or nil.
    public let hint: String?

    /// Makes an error.
    public init(_ message: String, hint: String? = nil) {
        self.message = message
        self.hint = hint
    }

    /// Message and hint, as the command line prints them.
    public var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }
}
