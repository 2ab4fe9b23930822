internal import BlyanKernel
public import Foundation

// Unchecked: all of it is set once, and the closures are thread-safe by contract.
/// Where a command's words go, and where it stands: its own terminal, or that of a client on the control socket.
public final class Console: @unchecked Sendable {
    /// Standard output or standard error.
    public enum Stream: String, Codable, Sendable { case output, error }

    private let write: @Sendable (Stream, [UInt8]) throws -> Void
    /// Asks a client for a key's passphrase; nil where the command's own process has it.
    public let passphrase: (@Sendable (KeyRequest) throws -> [UInt8])?
    /// Asks a client for the passphrase of the node's key; nil where the command's own process has it.
    public var nodePassphrase: (@Sendable () throws -> [UInt8])? {
        guard let passphrase else { return nil }
        return { try passphrase(.node) }
    }
    /// Whether the standard error that a person sees is a terminal: progress bars are drawn only there.
    public let isTerminal: Bool
    /// The folder that relative paths start from.
    public let directory: URL
    /// The folder that `~` stands for.
    public let tilde: String
    private let reader: (@Sendable (String) throws -> [UInt8])?

    /// Bytes that a text to work on may have.
    static let textLimit = 256 << 20

    /// Makes a console.
    ///
    /// - Parameters:
    ///   - passphrase: asks a client for a key's passphrase.
    ///   - reader: asks a client for a text; nil where the command's own process reads it.
    ///   - write: called from any thread; throws when nobody listens any more.
    public init(
        isTerminal: Bool, directory: URL, tilde: String,
        passphrase: (@Sendable (KeyRequest) throws -> [UInt8])? = nil,
        reader: (@Sendable (String) throws -> [UInt8])? = nil,
        write: @escaping @Sendable (Stream, [UInt8]) throws -> Void
    ) {
        self.isTerminal = isTerminal
        self.directory = directory
        self.tilde = tilde
        self.reader = reader
        self.passphrase = passphrase
        self.write = write
    }

    /// The process's own streams.
    public static let process = Console(
        isTerminal: isatty(2) == 1,
        directory: URL(
            fileURLWithPath: FileManager.default.currentDirectoryPath, isDirectory: true),
        tilde: ProcessInfo.processInfo.environment["HOME"].flatMap { $0.isEmpty ? nil : $0 }
            ?? NSHomeDirectory()
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
                if stream == .output, errno == EPIPE { throw BrokenPipe() }
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
        let expanded =
            path == "~" || path.hasPrefix("~/")
            ? tilde + path.dropFirst() : (path as NSString).expandingTildeInPath
        return URL(fileURLWithPath: expanded, relativeTo: directory).standardizedFileURL
    }

    /// All bytes of a file, pipe or device that the person named; `-` is standard input.
    ///
    /// A client reads for itself: its standard input and its descriptors are not those of the process that works.
    ///
    /// - Throws: ``KernelError`` with code `io` and the system's words, or `limit`.
    public func read(_ path: String) throws -> [UInt8] {
        if let reader { return try reader(path) }
        let file = path == "-" ? "standard input" : url(path).path
        func failure() -> KernelError {
            KernelError(.io, "cannot read \(file): \(unsafe String(cString: strerror(errno)))")
        }
        let descriptor = path == "-" ? dup(0) : unsafe open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure() }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = unsafe Foundation.read(descriptor, &piece, piece.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure() }
            guard count > 0 else { return bytes }
            bytes += piece[..<count]
            guard bytes.count <= Self.textLimit else {
                throw KernelError(.limit, "\(file) has more than \(Self.textLimit) bytes")
            }
        }
    }
}

/// Whoever read standard output has gone: no error, and nothing more to say.
public struct BrokenPipe: Error {}
