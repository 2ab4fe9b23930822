internal import BlyanKernel
internal import Foundation

/// What a client asks of the process that holds a home: to run a command as if it ran there.
package struct ControlRequest: Codable, Sendable {
    /// The command line without the program's name.
    package let arguments: [String]
    /// The client's working folder.
    package let directory: String
    /// Whether the client's standard error is a terminal.
    package let isTerminal: Bool

    package init(arguments: [String], directory: String, isTerminal: Bool) {
        self.arguments = arguments
        self.directory = directory
        self.isTerminal = isTerminal
    }
}

/// What the holder answers, in order; `exit` is the last.
enum ControlReply: Codable, Sendable {
    case text(Console.Stream, [UInt8])
    case exit(Int32)
}

/// One message on the control socket: a 32-bit little-endian length, then that many bytes of JSON.
enum Frame {
    /// Bytes that a frame may have.
    static let limit = 16 << 20

    static func send(_ value: some Encodable, to descriptor: Int32) throws(KernelError) {
        let body: Data
        do { body = try JSONEncoder().encode(value) } catch {
            throw KernelError(.malformed, "cannot encode a control message: \(error)")
        }
        var bytes = [UInt8]()
        unsafe withUnsafeBytes(of: UInt32(body.count).littleEndian) {
            unsafe bytes.append(contentsOf: $0)
        }
        bytes.append(contentsOf: body)
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { all in
                unsafe Foundation.send(
                    descriptor, all.baseAddress.map { unsafe $0 + sent }, all.count - sent,
                    Int32(MSG_NOSIGNAL))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw KernelError(.io, "the other end of the control socket has gone")
            }
            sent += count
        }
    }

    static func receive<Value: Decodable>(_ type: Value.Type, from descriptor: Int32)
        throws(KernelError) -> Value
    {
        let head = try receive(4, from: descriptor)
        let length = head.reversed().reduce(0) { $0 << 8 | Int($1) }
        guard length <= limit else {
            throw KernelError(.limit, "a control message of \(length) bytes exceeds \(limit)")
        }
        let body = try receive(length, from: descriptor)
        do { return try JSONDecoder().decode(type, from: Data(body)) } catch {
            throw KernelError(.malformed, "a control message is not understood: \(error)")
        }
    }

    private static func receive(_ count: Int, from descriptor: Int32) throws(KernelError) -> [UInt8]
    {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = unsafe bytes.withUnsafeMutableBytes { all in
                unsafe recv(
                    descriptor, all.baseAddress.map { unsafe $0 + filled }, all.count - filled, 0)
            }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else {
                throw KernelError(.io, "the other end of the control socket has gone")
            }
            filled += got
        }
        return bytes
    }
}
