public import BlyanKernel
public import Foundation

// Unchecked: the descriptor is set once.
/// The right to hold a home: one process at a time.
///
/// The kernel's file lock goes with the process, so that a dead holder blocks nobody; the file's text names the holder.
public final class HomeLock: @unchecked Sendable {
    private let descriptor: Int32

    /// Takes the home.
    ///
    /// - Throws: ``KernelError`` with code `held` naming the process that holds it, or `io`.
    public init(home: URL) throws(KernelError) {
        let path = home.appendingPathComponent("lock").path
        descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw KernelError(
                .io, "cannot open \(path): \(unsafe String(cString: strerror(errno)))",
                hint: "make the home writable for this user")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let reason = errno
            let holder =
                FileManager.default.contents(atPath: path).map {
                    String(decoding: $0, as: UTF8.self)
                } ?? ""
            close(descriptor)
            guard reason == EWOULDBLOCK else {
                throw KernelError(
                    .io, "cannot lock \(path): \(unsafe String(cString: strerror(reason)))")
            }
            throw KernelError(
                .held,
                "the home \(home.path) is held by \(holder.isEmpty ? "another process" : holder)",
                hint:
                    "stop that process, or let it serve: other commands reach it by its control socket"
            )
        }
        let name =
            (CommandLine.arguments.first ?? "blyan").split(separator: "/").last.map(String.init)
            ?? "blyan"
        let command = ([name] + CommandLine.arguments.dropFirst().prefix(2)).joined(separator: " ")
        let text = Array("process \(getpid()) (\(command))".utf8)
        _ = ftruncate(descriptor, 0)
        _ = unsafe pwrite(descriptor, text, text.count, 0)
    }

    deinit { close(descriptor) }
}
