import BlyanServer
import Foundation
import Testing

/// One process holds a home; all others reach it by its control socket.
@Suite struct HolderTests {
    @Test func commandsGoThroughTheHolder() throws {
        let home = try Home(.imported)
        let expected = try Checkpoints.expected(Checkpoints.routed)
        let log = try home.succeed("chain", "log", "--json")
        let show = try home.succeed("expert", "show", "layer1.expert2", "--json")
        let holder = try Holder(home)
        #expect(try home.succeed("chain", "log", "--json") == log)
        #expect(try home.succeed("expert", "show", "layer1.expert2", "--json") == show)
        #expect(try home.evaluate(expected).greedy == expected.greedy)
        // Figures of the evaluation are there: it was the holder that ran it.
        let list = try home.succeed("expert", "list")
        let row = try #require(list.split(separator: "\n").first { $0.hasPrefix("layer0.router") })
        #expect(!row.hasSuffix("0      0"), "\(row)")
        try home.succeed("import", Checkpoints.folder("qwen3-tiny").path)
        try home.fail(
            "expert", "show", "layer9.expert9", "--model", "qwen3-tiny", naming: ["layer9.expert9"])
        try home.fail("eval", naming: ["--prompt-file"])
        let blocks = try home.succeed("chain", "log", "--limit", "500")
        try FileManager.default.removeItem(at: home.folder.appendingPathComponent("index"))
        #expect(try home.succeed("chain", "reindex").contains("from the log"))
        #expect(try home.succeed("chain", "log", "--limit", "500") == blocks)
        holder.end(SIGTERM)
        #expect(holder.process.terminationStatus == 0)
        #expect(!FileManager.default.fileExists(atPath: home.socket))
        #expect(try home.succeed("model", "list").contains("qwen3-tiny"))
    }

    @Test func aSecondHolderIsToldWhoTheFirstIs() throws {
        let home = try Home()
        let holder = try Holder(home)
        try home.fail(
            "run", naming: [home.folder.path, "process \(holder.process.processIdentifier)"])
        #expect(holder.process.isRunning)
        try home.succeed("chain", "verify")
    }

    @Test func aDeadHoldersSocketIsReplaced() throws {
        let home = try Home(.imported)
        let dead = try Holder(home)
        dead.end(SIGKILL)
        #expect(FileManager.default.fileExists(atPath: home.socket))
        try home.succeed("chain", "verify")
        let next = try Holder(home)
        #expect(try home.succeed("chain", "verify").contains("verified"))
        next.end(SIGINT)
        #expect(next.process.terminationStatus == 0)
    }

    /// What is to be done follows from the command that was under way.
    @Test func aHolderThatDiesLeavesAdviceThatFits() throws {
        let home = try Home()
        let lock = try HomeLock(home: home.folder)
        defer { withExtendedLifetime(lock) {} }
        let text = home.scratch.path
        for (arguments, advice) in [
            (["import", text], "hint: run the command again"),
            (["mine", "--expert", "a", "--data", text], "hint: see `blyan candidate list --home"),
            (["expert", "submit", "a", text], "and `blyan candidate list --judged 5 --home"),
            (["eval", "--prompt-file", text], nil),
        ] as [([String], String?)] {
            let error = home.scratch.appendingPathComponent("client.err")
            let listener = try home.listen()
            let client = try home.start(
                arguments, output: URL(fileURLWithPath: "/dev/null"), error: error)
            let accepted = accept(listener, nil, nil)
            // It is told that its command runs, and nothing more.
            let word: [UInt8] = [2, 0, 0, 0, 0]
            #expect(send(accepted, word, word.count, Int32(MSG_NOSIGNAL)) == word.count)
            shutdown(accepted, Int32(SHUT_WR))
            client.waitUntilExit()
            close(accepted)
            close(listener)
            let said = try String(contentsOf: error, encoding: .utf8)
            #expect(client.terminationStatus == 1 && said.contains("has gone in the middle"))
            #expect(advice.map { said.contains($0) } ?? !said.contains("hint:"), "\(said)")
        }
    }

    @Test func theSocketIsForItsOwnerAlone() throws {
        let home = try Home()
        let holder = try Holder(home)
        let attributes = try FileManager.default.attributesOfItem(atPath: home.socket)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        holder.end(SIGTERM)
    }

    @Test func theHolderSurvivesAClientThatTalksNonsense() throws {
        let home = try Home()
        let holder = try Holder(home)
        for bytes: [UInt8] in [[], [1], [0xFF, 0xFF, 0xFF, 0xFF], [2, 0, 0, 0, 0x7B, 0x7D]] {
            let client = try home.connect()
            defer { close(client) }
            _ = send(client, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        }
        #expect(try home.succeed("chain", "verify").contains("verified"))
        #expect(holder.process.isRunning)
    }
}
