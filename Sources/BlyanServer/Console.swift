internal import BlyanKernel
public import Foundation

// Unchecked: all of it is set once, and the closures are thread-safe by contract.
/// Where a command's words go, and where it stands: its own terminal, or that of a client on the control socket.
public final class Console: @unchecked Sendable {
    /// Standard output or standard error.
    public enum Stream: String, Codable, Sendable { case output, error }

    private let write: @Sendable (Stream, [UInt8]) throws -> Void
    /// Asks a client for the key's passphrase; nil where the command's own process has it.
    public let passphrase: (@Sendable () throws -> [UInt8])?
    /// Whether the standard error that a person sees is a terminal: progress bars are drawn only there.
    public let isTerminal: Bool
    /// The folder that relative paths start from.
    public let directory: URL

    /// Makes a console.
    ///
    /// - Parameters:
    ///   - passphrase: asks a client for the key's passphrase.
    ///   - write: called from any thread; throws when nobody listens any more.
    public init(
        isTerminal: Bool, directory: URL, passphrase: (@Sendable () throws -> [UInt8])? = nil,
        write: @escaping @Sendable (Stream, [UInt8]) throws -> Void
    ) {
        self.isTerminal = isTerminal
        self.directory = directory
        self.passphrase = passphrase
        self.write = write
    }

    /// The process's own streams.
    public static let process = Console(
        isTerminal: isatty(2) == 1,
        directory: URL(fileURLWithPath: FileManager.default.currentDirectoryPath, isDirectory: true)
    ) { stream, bytes in
        var done = 0
        while done < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { all in
                unsafe Foundation.write(
                    stream == .output ? 1 : 2, all.baseAddress.map { unsafe $0 + done },
                    all.count - done)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw KernelError(
                    .io,
                    "cannot write to standard output: \(unsafe String(cString: strerror(errno)))")
            }
            done += count
        }
    }

    /// Writes text to standard output as it is.
    ///
    /// - Throws: When the client has gone, or the process that writes for it is ending.
    public func print(_ text: String, terminator: String = "\n") throws {
        try print(bytes: Array((text + terminator).utf8))
    }

    /// Writes bytes to standard output as they are.
    ///
    /// - Throws: When the client has gone, or the process that writes for it is ending.
    public func print(bytes: [UInt8]) throws { try write(.output, bytes) }

    /// Writes a line for a person to standard error; silently nothing when nobody listens.
    public func note(_ text: String, terminator: String = "\n") {
        try? write(.error, Array((text + terminator).utf8))
    }

    /// A path as the person meant it: `~` and relative paths resolved against ``directory``.
    public func url(_ path: String) -> URL {
        let expanded = (path as NSString).expandingTildeInPath
        return URL(fileURLWithPath: expanded, relativeTo: directory).standardizedFileURL
    }
}
