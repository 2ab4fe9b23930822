import Foundation
import Testing

/// A holder stops when it is told to, and a command when nobody waits for it, whatever clients do.
@Suite struct StoppingTests {
    /// A home with a model whose context is so long that a command on it does not end by itself.
    private func endless() throws -> Home {
        let home = try Home()
        let folder = home.scratch.appendingPathComponent("endless")
        try FileManager.default.copyItem(at: Checkpoints.routed, to: folder)
        let file = folder.appendingPathComponent("config.json")
        var config =
            try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any] ?? [:]
        config["max_position_embeddings"] = 1_000_000
        try JSONSerialization.data(withJSONObject: config).write(to: file)
        try home.succeed("import", folder.path)
        return home
    }

    /// A long command through the holder, once it is under way.
    private func begin(_ home: Home, _ holder: Holder) throws -> Process {
        let prompt = home.scratch.appendingPathComponent("prompt")
        try Data("river".utf8).write(to: prompt)
        let before = holder.ticks
        let client = try home.start(
            ["eval", "--prompt-file", prompt.path, "--greedy", "900000"],
            output: URL(fileURLWithPath: "/dev/null"),
            error: home.scratch.appendingPathComponent("eval.err"))
        while holder.ticks < before + 20 {
            guard client.isRunning else { throw Home.Failure(description: "eval has ended") }
            usleep(10_000)
        }
        return client
    }

    @Test func aClientThatGoesTakesItsWorkAlong() throws {
        let home = try endless()
        let holder = try Holder(home)
        let client = try begin(home, holder)
        kill(client.processIdentifier, SIGKILL)
        client.waitUntilExit()
        var isBusy = true
        for _ in 0..<40 where isBusy {
            let before = holder.ticks
            usleep(300_000)
            isBusy = holder.ticks - before > 5
        }
        #expect(!isBusy)
        #expect(holder.end(SIGTERM) < 5)
        #expect(holder.process.terminationStatus == 0)
    }

    /// A command that holds the home for itself waits for those that came through it.
    @Test func aCommandThatEndsWaitsForItsClients() throws {
        let home = try endless()
        let prompt = home.scratch.appendingPathComponent("prompt")
        try Data("river".utf8).write(to: prompt)
        func start(_ greedy: Int) throws -> Process {
            try home.start(
                ["eval", "--prompt-file", prompt.path, "--greedy", "\(greedy)"],
                output: URL(fileURLWithPath: "/dev/null"),
                error: home.scratch.appendingPathComponent("eval-\(greedy).err"))
        }
        let first = try start(1000)
        while first.isRunning, !FileManager.default.fileExists(atPath: home.socket) { usleep(500) }
        let second = try start(4000)
        first.waitUntilExit()
        second.waitUntilExit()
        #expect(first.terminationStatus == 0 && second.terminationStatus == 0)
    }

    @Test(arguments: [SIGINT, SIGTERM])
    func aHolderThatStopsEndsItsCommands(signal: Int32) throws {
        let home = try endless()
        let holder = try Holder(home)
        let client = try begin(home, holder)
        #expect(holder.end(signal) < 5)
        #expect(holder.process.terminationStatus == 0)
        client.waitUntilExit()
        #expect(client.terminationStatus == 1)
        let error = home.scratch.appendingPathComponent("eval.err")
        #expect(try String(contentsOf: error, encoding: .utf8).contains("stopped on request"))
        #expect(!FileManager.default.fileExists(atPath: home.socket))
    }

    @Test func aHolderStopsBesideClientsThatSayNothing() throws {
        let home = try Home()
        let holder = try Holder(home)
        let silent = try home.connect()
        defer { close(silent) }
        #expect(try home.succeed("chain", "verify").contains("verified"))
        #expect(holder.end(SIGTERM) < 4)
        #expect(holder.process.terminationStatus == 0)
    }

    @Test func aClientThatSaysNothingIsDropped() throws {
        let home = try Home()
        let holder = try Holder(home)
        let silent = try home.connect()
        defer { close(silent) }
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(silent, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var byte: UInt8 = 0
        #expect(recv(silent, &byte, 1, 0) == 0)
        #expect(holder.process.isRunning)
    }

    @Test func aHolderStopsBesideAClientThatReadsNothing() throws {
        let home = try Home(.imported)
        let text = home.scratch.appendingPathComponent("text")
        try Data(repeating: UInt8(ascii: "7"), count: 2_000_000).write(to: text)
        let holder = try Holder(home)
        // A pipe that nobody reads stops the client, as a pager does.
        let pipe = Pipe()
        let client = Process()
        client.executableURL = Home.program
        client.arguments = ["tokenize", "--file", text.path, "--json", "--home", home.folder.path]
        client.standardInput = FileHandle.nullDevice
        client.standardOutput = pipe
        client.standardError = FileHandle.nullDevice
        try client.run()
        var ready = pollfd(fd: pipe.fileHandleForReading.fileDescriptor, events: 1, revents: 0)
        #expect(poll(&ready, 1, 60_000) == 1)
        usleep(300_000)
        #expect(holder.end(SIGTERM) < 15)
        #expect(holder.process.terminationStatus == 0)
        kill(client.processIdentifier, SIGKILL)
        client.waitUntilExit()
    }
}
