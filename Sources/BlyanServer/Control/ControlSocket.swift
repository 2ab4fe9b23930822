public import BlyanKernel
public import Foundation

// Unchecked: `lock` guards the list of clients; the rest is immutable.
/// The socket `HOME/control.sock`, through which commands reach the process that holds the home.
///
/// Only the same user may speak to it: the file has mode 0600 and the peer's user id is checked.
public final class ControlSocket: @unchecked Sendable {
    /// Runs one command for a client and gives its exit status; called on a thread of its own.
    public typealias Handler = @Sendable (_ arguments: [String], _ console: Console) -> Int32

    private let descriptor: Int32
    private let path: String
    private let lock = NSCondition()
    private var active = 0
    private var closing = false

    /// Listens in `home`.
    ///
    /// Replaces the socket of a dead holder. The caller holds the home's lock.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    public init(home: URL, handler: @escaping Handler) throws(KernelError) {
        path = home.appendingPathComponent("control.sock").path
        unsafe unlink(path)
        descriptor = try Self.makeSocket()
        let old = umask(0o177)
        defer { umask(old) }
        let bound = try unsafe Self.withAddress(of: home) { address, length in
            unsafe bind(descriptor, address, length)
        }
        guard bound == 0, listen(descriptor, 64) == 0 else {
            let reason = unsafe String(cString: strerror(errno))
            Foundation.close(descriptor)
            throw KernelError(.io, "cannot listen on \(path): \(reason)")
        }
        Thread.detachNewThread { [self] in accept(handler) }
    }

    /// Stops listening, waits for the commands under way, and removes the socket.
    public func close() {
        lock.lock()
        closing = true
        shutdown(descriptor, Int32(SHUT_RDWR))
        while active > 0 { lock.wait() }
        lock.unlock()
        unsafe unlink(path)
        Foundation.close(descriptor)
    }

    private func accept(_ handler: @escaping Handler) {
        while true {
            let client = Foundation.accept(descriptor, nil, nil)
            if client < 0, errno == EINTR || errno == ECONNABORTED { continue }
            if client < 0, errno == EMFILE || errno == ENFILE {
                usleep(10_000)
                continue
            }
            guard client >= 0 else { return }
            let admitted = lock.withLock {
                guard !closing, Self.peerIsOwner(client) else { return false }
                active += 1
                return true
            }
            guard admitted else {
                Foundation.close(client)
                continue
            }
            let thread = Thread { [self] in
                serve(client, handler)
                Foundation.close(client)
                lock.withLock {
                    active -= 1
                    lock.broadcast()
                }
            }
            thread.stackSize = 8 << 20
            thread.start()
        }
    }

    private func serve(_ client: Int32, _ handler: Handler) {
        guard let request = try? Frame.receive(ControlRequest.self, from: client) else { return }
        let writing = NSLock()
        let console = Console(
            isTerminal: request.isTerminal,
            directory: URL(fileURLWithPath: request.directory, isDirectory: true)
        ) { stream, bytes in
            try writing.withLock { try Frame.send(ControlReply.text(stream, bytes), to: client) }
        }
        let status = handler(request.arguments, console)
        // A client that has gone does not hear the status; nothing is lost by that.
        try? Frame.send(ControlReply.exit(status), to: client)
    }

    /// Asks the holder of `home` to run a command and writes what it answers to `console`.
    ///
    /// - Returns: The exit status, or nil if nobody listens there.
    /// - Throws: ``KernelError`` with code `io` if the holder goes away in between; what writing to `console` throws.
    public static func forward(_ arguments: [String], home: URL, console: Console) throws -> Int32?
    {
        let descriptor = try makeSocket()
        defer { Foundation.close(descriptor) }
        let connected = try unsafe withAddress(of: home) { address, length in
            unsafe connect(descriptor, address, length)
        }
        guard connected == 0 else { return nil }
        try Frame.send(
            ControlRequest(
                arguments: arguments, directory: console.directory.path,
                isTerminal: console.isTerminal), to: descriptor)
        while true {
            switch try Frame.receive(ControlReply.self, from: descriptor) {
            case .text(.output, let bytes): try console.print(bytes: bytes)
            case .text(.error, let bytes):
                console.note(String(decoding: bytes, as: UTF8.self), terminator: "")
            case .exit(let status): return status
            }
        }
    }

    private static func makeSocket() throws(KernelError) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else {
            throw KernelError(
                .io, "cannot make a socket: \(unsafe String(cString: strerror(errno)))")
        }
        return descriptor
    }

    private static func peerIsOwner(_ client: Int32) -> Bool {
        // struct ucred of socket(7), which Glibc's module hides: pid, uid, gid.
        var peer: (pid: pid_t, uid: uid_t, gid: gid_t) = (0, .max, .max)
        var length = socklen_t(MemoryLayout.size(ofValue: peer))
        let known = unsafe getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &length)
        return known == 0 && peer.uid == geteuid()
    }

    /// Addresses are 108 bytes at most, a home's path may be longer: so it is named through its open descriptor.
    private static func withAddress(
        of home: URL, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws(KernelError) -> Int32 {
        let folder = unsafe open(home.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else {
            throw KernelError(
                .io, "cannot open \(home.path): \(unsafe String(cString: strerror(errno)))")
        }
        defer { Foundation.close(folder) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let name = Array("/proc/self/fd/\(folder)/control.sock".utf8)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: name) }
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
