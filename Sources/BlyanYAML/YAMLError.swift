/// What is wrong with a YAML or JSON document: file, line, column, what was found and expected.
public struct YAMLError: Error, Sendable, CustomStringConvertible {
    /// One sentence in lower case without full stop.
    public let message: String

    /// Makes an error.
    public init(_ message: String) { self.message = message }

    /// The message.
    public var description: String { message }
}
