public import BlyanKernel
public import Foundation

// Unchecked: `lock` guards the mutable state; the rest is immutable.
/// The socket `HOME/control.sock`, through which commands reach the process that holds the home.
///
/// Only the same user may speak to it: the file has mode 0600 and the peer's user id is checked.
public final class ControlSocket: @unchecked Sendable {
    /// Runs one command for a client and gives its exit status; called on a thread of its own.
    public typealias Handler = @Sendable (_ arguments: [String], _ console: Console) -> Int32

    /// Seconds in which a client must send its request.
    private static let requestTime = 5
    /// Seconds for which a client may read nothing: a pager at its other end may rest.
    private static let readTime = 3600
    /// The same once this process is ending, and seconds that it waits for commands that were told to end.
    private static let endTime = 5

    private let descriptor: Int32
    private let path: String
    private let lock = NSCondition()
    // Whether a command runs, by the client's descriptor.
    private var clients: [Int32: Bool] = [:]
    private var isClosing = false
    private var isCancelling = false

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
    ///
    /// A client that has not sent its request is dropped, and so is one that stops reading.
    ///
    /// - Parameter cancelling: tell the commands to end; those that do not within seconds are left.
    /// - Returns: Whether all commands have ended, so that what they use can be closed.
    public func close(cancelling: Bool) -> Bool {
        lock.lock()
        isClosing = true
        isCancelling = cancelling
        shutdown(descriptor, Int32(SHUT_RDWR))
        for (client, isRunning) in clients where cancelling || !isRunning {
            // Whoever waits to hear from it hears the end; what is written to it still arrives.
            shutdown(client, Int32(SHUT_RD))
        }
        if cancelling {
            let limit = Date(timeIntervalSinceNow: 2 * Double(Self.endTime))
            while !clients.isEmpty, lock.wait(until: limit) {}
        } else {
            // Foundation traps on the distant future as a limit.
            while !clients.isEmpty { lock.wait() }
        }
        let haveEnded = clients.isEmpty
        lock.unlock()
        unsafe unlink(path)
        Foundation.close(descriptor)
        return haveEnded
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
            let isAdmitted = lock.withLock {
                guard !isClosing, Self.peerIsOwner(client) else { return false }
                clients[client] = false
                return true
            }
            guard isAdmitted else {
                Foundation.close(client)
                continue
            }
            let thread = Thread { [self] in
                serve(client, handler)
                lock.withLock {
                    clients[client] = nil
                    Foundation.close(client)
                    lock.broadcast()
                }
            }
            thread.stackSize = 8 << 20
            thread.start()
        }
    }

    private func serve(_ client: Int32, _ handler: Handler) {
        let channel = ControlChannel(descriptor: client) { [self] in
            lock.withLock { isClosing ? Self.endTime : Self.readTime }
        }
        Self.limitReceiving(client, seconds: Self.requestTime)
        guard let frame = try? channel.receive(), frame.kind == .request,
            let request = try? JSONDecoder().decode(ControlRequest.self, from: Data(frame.body)),
            begin(client), (try? channel.send(.accepted)) != nil
        else { return }
        // From here on it is a person who may take their time.
        Self.limitReceiving(client, seconds: 0)
        let writing = NSLock()
        let console = Console(
            isTerminal: request.isTerminal,
            directory: URL(fileURLWithPath: request.directory, isDirectory: true),
            tilde: request.tilde,
            passphrase: { request in
                try writing.withLock { try channel.send(.asksPassphrase, request.text.utf8) }
                let answer = try channel.receive()
                guard answer.kind == .passphrase else {
                    throw KernelError(.malformed, "the client sent no passphrase when asked")
                }
                return answer.body
            },
            reader: { path in
                try writing.withLock { try channel.send(.asksText, path.utf8) }
                var bytes: [UInt8] = []
                while true {
                    let piece = try channel.receive()
                    guard piece.kind == .text, bytes.count <= Console.textLimit else {
                        throw KernelError(.malformed, "the client sent no text when asked")
                    }
                    guard !piece.body.isEmpty else { return bytes }
                    bytes += piece.body
                }
            }
        ) { [self] stream, bytes in
            // Its last words on standard error are still heard.
            guard stream == .error || !lock.withLock({ isCancelling }) else {
                throw KernelError(.cancelled, "the process that holds the home is ending")
            }
            try writing.withLock {
                for start in stride(from: 0, to: bytes.count, by: Frame.piece) {
                    try channel.send(
                        stream == .output ? .output : .error,
                        bytes[start..<min(bytes.count, start + Frame.piece)])
                }
            }
        }
        let cancellation = Cancellation { [self] in
            lock.withLock { isCancelling } || channel.isGone
        }
        let status = Cancellation.$current.withValue(cancellation) {
            handler(request.arguments, console)
        }
        // A client that has gone does not hear the status; nothing is lost by that.
        try? channel.send(.exit, (0..<4).map { UInt8(truncatingIfNeeded: status >> (8 * $0)) })
    }

    /// Notes that a client's command runs, unless this process is ending.
    private func begin(_ client: Int32) -> Bool {
        lock.withLock {
            if !isClosing { clients[client] = true }
            return !isClosing
        }
    }

    private static func limitReceiving(_ client: Int32, seconds: Int) {
        var limit = timeval(tv_sec: seconds, tv_usec: 0)
        unsafe setsockopt(
            client, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    /// Asks the holder of `home` to run a command and writes what it answers to `console`.
    ///
    /// - Parameters:
    ///   - advice: what to do if the holder goes away in between.
    ///   - passphrase: asked if the command signs with a key that the holder has not opened.
    /// - Returns: The exit status, or nil if nobody listens there, or the holder ended before the command began.
    /// - Throws: ``KernelError`` with code `io` if the holder goes away in between; what `passphrase` and writing to
    ///   `console` throw.
    public static func forward(
        _ arguments: [String], home: URL, console: Console, advice: String? = nil,
        passphrase: (KeyRequest) throws -> [UInt8]
    ) throws -> Int32? {
        let descriptor = try makeSocket()
        defer { Foundation.close(descriptor) }
        let connected = try unsafe withAddress(of: home) { address, length in
            unsafe connect(descriptor, address, length)
        }
        guard connected == 0 else { return nil }
        let channel = ControlChannel(descriptor: descriptor, advice: advice)
        let request = try JSONEncoder().encode(
            ControlRequest(
                arguments: arguments, directory: console.directory.path, tilde: console.tilde,
                isTerminal: console.isTerminal))
        do throws(KernelError) {
            try channel.send(.request, request)
            guard try channel.receive().kind == .accepted else {
                throw KernelError(.malformed, "the holder of \(home.path) gave no answer")
            }
        } catch {
            guard error.code == .io else { throw error }
            return nil
        }
        while true {
            let frame = try channel.receive()
            switch frame.kind {
            case .output: try console.print(bytes: frame.body)
            case .error:
                console.note(String(decoding: frame.body, as: UTF8.self), terminator: "")
            case .asksPassphrase:
                guard let request = KeyRequest(String(decoding: frame.body, as: UTF8.self)) else {
                    throw KernelError(
                        .malformed, "the holder of \(home.path) asks for an unknown passphrase")
                }
                try channel.send(.passphrase, passphrase(request))
            case .asksText:
                let bytes = try console.read(String(decoding: frame.body, as: UTF8.self))
                for start in stride(from: 0, to: bytes.count, by: Frame.piece) {
                    try channel.send(.text, bytes[start..<min(bytes.count, start + Frame.piece)])
                }
                try channel.send(.text)
            case .exit: return frame.body.reversed().reduce(0) { $0 << 8 | Int32($1) }
            case .request, .passphrase, .text, .accepted:
                throw KernelError(
                    .malformed, "the holder of \(home.path) sent a \(frame.kind) message")
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
