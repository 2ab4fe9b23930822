public import BlyanJSON
public import BlyanYAML
internal import Foundation

/// What went wrong in the kernel: an open set of codes, a sentence, and what to do about it.
///
/// The message names the object (block, payload, file, manifest line) and what was found and expected. It
/// never holds a key, a passphrase, payload bytes or a prompt.
public struct KernelError: Error, Sendable, CustomStringConvertible {
    /// The class of an error.
    ///
    /// New codes may be added; treat unknown ones as ``Code/io``-like failures.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        /// Stable name in kebab case, as `--json` prints it.
        public let description: String
        private init(_ name: String) { description = name }

        /// Bytes or text that do not follow their format.
        public static let malformed = Code("malformed")
        /// A block, payload or index that contradicts its hash, signature or links.
        public static let integrity = Code("integrity")
        /// A rule of the chain that a new block breaks.
        public static let rule = Code("rule")
        /// Something asked for that this home does not have.
        public static let notFound = Code("not-found")
        /// A stated limit is exceeded.
        public static let limit = Code("limit")
        /// The operating system refused; the message has call and errno.
        public static let io = Code("io")
        /// Another process holds the home.
        public static let held = Code("held")
        /// A key or passphrase is missing or wrong.
        public static let key = Code("key")
        /// A manifest or configuration is not valid.
        public static let config = Code("config")
        /// A plugin cannot be loaded, is not enabled, or failed.
        public static let plugin = Code("plugin")
        /// The work was stopped on request or by its deadline.
        public static let cancelled = Code("cancelled")
    }

    /// The class of the error.
    public let code: Code
    /// One sentence in lower case without full stop: which object, found and expected.
    public let message: String
    /// What to do next, or nil.
    public let hint: String?

    /// What the system refused just now, in its own words: `errno`.
    static func system(_ what: String) -> KernelError {
        KernelError(.io, "\(what): \(unsafe String(cString: strerror(errno)))")
    }

    /// Makes an error; `message` and `hint` must not hold secrets.
    public init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    /// Runs `body`; what is wrong with a document is an error of code `config`.
    public static func reading<R>(_ body: () throws(YAMLError) -> R) throws(KernelError) -> R {
        do throws(YAMLError) { return try body() } catch {
            throw KernelError(.config, error.message)
        }
    }

    /// Runs `body`; what is wrong with JSON is an error of code `malformed` or `limit`.
    public static func parsing<R>(_ body: () throws(JSONError) -> R) throws(KernelError) -> R {
        do throws(JSONError) { return try body() } catch {
            throw KernelError(error.isLimit ? .limit : .malformed, error.message)
        }
    }

    /// Message and hint, as the command line prints them.
    public var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }
}
