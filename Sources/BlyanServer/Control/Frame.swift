internal import BlyanKernel
internal import Foundation

/// What a client asks of the process that holds a home: to run a command as if it ran there.
struct ControlRequest: Codable, Sendable {
    /// The command line without the program's name.
    let arguments: [String]
    /// The client's working folder.
    let directory: String
    /// The folder that the client's `~` stands for.
    let tilde: String
    /// Whether the client's standard error is a terminal.
    let isTerminal: Bool
}

/// One message on the control socket: its kind, a 32-bit little-endian length, then that many bytes.
struct Frame {
    /// What a frame is.
    enum Kind: UInt8 {
        /// From a client, first: a ``ControlRequest`` as JSON.
        case request
        /// The answer to `asksPassphrase`: its bytes.
        case passphrase
        /// From the holder, first: the command runs now. What ends before this has done nothing.
        case accepted
        /// Bytes for the client's standard output.
        case output
        /// Bytes for the client's standard error.
        case error
        /// The command signs with a locked key, a ``KeyRequest``: the client is to give its passphrase.
        case asksPassphrase
        /// Last: the exit status, 32 bits.
        case exit
        /// The command works on a text: the client is to read it, by the path that the body is.
        case asksText
        /// The answer to `asksText`: a piece of it; an empty one ends it.
        case text
    }

    let kind: Kind
    let body: [UInt8]

    /// Bytes that a frame may have.
    static let limit = 16 << 20
    /// Bytes of text in one frame.
    static let piece = 1 << 20
}

/// One end of a connection on the control socket; the descriptor is the caller's to close.
struct ControlChannel: Sendable {
    let descriptor: Int32
    /// Seconds for which the other end may take nothing, asked while it takes nothing.
    var patience: @Sendable () -> Int = { .max }
    /// What to do if the other end has gone.
    var advice: String?

    private var gone: KernelError {
        KernelError(
            .io, "the process that holds the home has gone in the middle of this command",
            hint: advice)
    }

    /// Whether the other end has closed the connection.
    var isGone: Bool {
        var state = pollfd(fd: descriptor, events: 0, revents: 0)
        return unsafe poll(&state, 1, 0) > 0 && state.revents & Int16(POLLHUP | POLLERR) != 0
    }

    /// Sends a frame whole.
    func send(_ kind: Frame.Kind, _ body: some Collection<UInt8> = [UInt8]()) throws(KernelError) {
        guard body.count <= Frame.limit else {
            throw KernelError(
                .limit, "a control message of \(body.count) bytes exceeds \(Frame.limit)")
        }
        var bytes = [kind.rawValue]
        unsafe withUnsafeBytes(of: UInt32(body.count).littleEndian) {
            unsafe bytes.append(contentsOf: $0)
        }
        bytes.append(contentsOf: body)
        var sent = 0
        var waited = 0
        while sent < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { all in
                unsafe Foundation.send(
                    descriptor, all.baseAddress.map { unsafe $0 + sent }, all.count - sent,
                    Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if count > 0 {
                sent += count
                waited = 0
                continue
            }
            if count < 0, errno == EINTR { continue }
            guard count < 0, errno == EAGAIN, waited / 5 < patience() else {
                // After part of a frame nothing else can follow: later calls fail at once.
                shutdown(descriptor, Int32(SHUT_RDWR))
                throw gone
            }
            // A fifth of a second at a time: patience may end while this waits.
            var state = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&state, 1, 200)
            waited += 1
        }
    }

    /// The next frame.
    func receive() throws(KernelError) -> Frame {
        let head = try receive(5)
        let length = head[1...].reversed().reduce(0) { $0 << 8 | Int($1) }
        guard let kind = Frame.Kind(rawValue: head[0]), length <= Frame.limit else {
            throw KernelError(
                .malformed,
                "a control message of kind \(head[0]) and \(length) bytes is none that this build knows",
                hint: "use the same build of blyan as the process that holds the home")
        }
        return Frame(kind: kind, body: try receive(length))
    }

    private func receive(_ count: Int) throws(KernelError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = unsafe bytes.withUnsafeMutableBytes { all in
                unsafe recv(
                    descriptor, all.baseAddress.map { unsafe $0 + filled }, all.count - filled, 0)
            }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { throw gone }
            filled += got
        }
        return bytes
    }
}
