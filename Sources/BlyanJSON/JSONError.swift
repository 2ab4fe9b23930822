/// What is wrong with a JSON text: what was found, and at which byte.
public struct JSONError: Error, Sendable, CustomStringConvertible {
    /// One sentence in lower case without full stop.
    public let message: String
    /// Whether a stated limit is exceeded; otherwise the text does not follow the format.
    public let isLimit: Bool

    /// Makes an error.
    init(_ message: String, isLimit: Bool = false) {
        self.message = message
        self.isLimit = isLimit
    }

    /// The message.
    public var description: String { message }
}
