import Foundation

/// A `blyan run` that ends with this object.
final class Holder {
    let process: Process
    private let output: URL

    init(_ home: Home, _ options: String..., environment: [String: String] = [:]) throws {
        output = home.scratch.appendingPathComponent("run.out")
        process = try home.start(
            ["run"] + options, output: output,
            error: home.scratch.appendingPathComponent("run.err"), environment: environment)
        // It says that it holds the home once it listens.
        while try !Data(contentsOf: output).contains(UInt8(ascii: "\n")) {
            guard process.isRunning else { throw Home.Failure(description: "run has ended") }
            usleep(10_000)
        }
    }

    /// Ends the process by a signal; answers the seconds that it took.
    @discardableResult
    func end(_ signal: Int32) -> Double {
        let start = Date()
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        return Date().timeIntervalSince(start)
    }

    /// Processor time so far, in ticks of a hundredth of a second.
    var ticks: Int {
        let path = "/proc/\(process.processIdentifier)/stat"
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        // After the name in parentheses: state is field 3, user and system time are 14 and 15.
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        return fields.count > 12 ? (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0) : 0
    }

    deinit { if process.isRunning { end(SIGKILL) } }
}

extension Home {
    /// The control socket.
    var socket: String { folder.appendingPathComponent("control.sock").path }

    /// A connection to the control socket.
    func connect() throws -> Int32 {
        try open { Foundation.connect($0, $1, $2) }
    }

    /// A control socket of this test's own, as that of a holder.
    func listen() throws -> Int32 {
        unlink(socket)
        return try open { bind($0, $1, $2) == 0 ? Foundation.listen($0, 8) : -1 }
    }

    private func open(
        _ body: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws -> Int32 {
        let client = Foundation.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array(socket.utf8)
        guard path.count < 108 else { throw Failure(description: "\(socket) is too long") }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let opened = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body(client, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard opened == 0 else { throw Failure(description: "cannot open \(socket)") }
        return client
    }

    /// Changes the node manifest.
    func editManifest(_ change: (String) -> String) throws {
        let file = folder.appendingPathComponent("node.yaml")
        try change(String(contentsOf: file, encoding: .utf8)).write(
            to: file, atomically: true, encoding: .utf8)
    }
}
