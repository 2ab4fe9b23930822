import Foundation
import Testing

/// A command that another process runs for it does what it would have done itself.
@Suite struct ForwardingTests {
    private func file(_ text: String, _ name: String, in home: Home) throws -> String {
        let file = home.scratch.appendingPathComponent(name)
        try Data(text.utf8).write(to: file)
        return file.path
    }

    @Test func theClientsPassphraseOpensTheHoldersKey() throws {
        let home = try Home.unmade()
        let right = try file("correct horse\n", "right", in: home)
        let wrong = try file("wrong horse\n", "wrong", in: home)
        try home.succeed("init", "--passphrase-file", right)
        #expect(!FileManager.default.fileExists(atPath: home.folder.path + "/key.passphrase"))
        let holder = try Holder(home)
        let path = Checkpoints.routed.path
        try home.fail("import", path, naming: ["--passphrase-file", "BLYAN_PASSPHRASE"])
        try home.fail("import", path, "--passphrase-file", wrong, naming: ["passphrase"])
        try home.succeed("import", path, "--passphrase-file", right)
        // It is open now.
        try home.succeed("import", Checkpoints.folder("qwen3-tiny").path)
        holder.end(SIGTERM)
        let next = try Holder(home)
        let given = try home.run(
            ["import", Checkpoints.folder("qwen2-tiny").path],
            environment: ["BLYAN_PASSPHRASE": "correct horse"])
        #expect(given.status == 0, "\(given.error)")
        next.end(SIGTERM)
    }

    @Test func aHolderThatIsGivenThePassphraseOpensItsKeyAtOnce() throws {
        let home = try Home.unmade()
        let right = try file("correct horse\n", "right", in: home)
        try home.succeed("init", "--passphrase-file", right)
        let holder = try Holder(home, "--passphrase-file", right)
        try home.succeed("import", Checkpoints.routed.path)
        holder.end(SIGTERM)
        try home.fail(
            "run", "--passphrase-file", try file("x\n", "wrong", in: home), naming: ["passphrase"])
    }

    @Test func theHoldersManifestRules() throws {
        let home = try Home()
        let own = home.folder.appendingPathComponent("node.yaml")
        let other = home.scratch.appendingPathComponent("other.yaml")
        try FileManager.default.copyItem(at: own, to: other)
        let link = home.scratch.appendingPathComponent("link.yaml")
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: own)
        let holder = try Holder(home)
        try home.fail(
            "plugin", "list", "--manifest", other.path,
            naming: [own.path, other.path, "process \(holder.process.processIdentifier)"])
        try home.succeed("plugin", "list", "--manifest", link.path)
        try home.succeed("plugin", "list", "--manifest", own.path)
    }

    @Test func aHomeIsItselfByEveryPath() throws {
        let home = try Home()
        let link = home.scratch.appendingPathComponent("link")
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: home.folder)
        let holder = try Holder(home)
        try home.succeed("chain", "verify", "--home", link.path)
        #expect(holder.process.isRunning)
    }

    @Test func longAnswersArriveWhole() throws {
        let home = try Home(.imported)
        let text = home.scratch.appendingPathComponent("text")
        try Data(repeating: UInt8(ascii: "7"), count: 2_000_000).write(to: text)
        let expected = try home.succeed("tokenize", "--file", text.path, "--json")
        try #require(expected.utf8.count > 5 << 20)
        let holder = try Holder(home)
        #expect(try home.succeed("tokenize", "--file", text.path, "--json") == expected)
        #expect(holder.process.isRunning)
    }

    @Test func importsAtOnceAllSucceed() throws {
        let home = try Home()
        let holder = try Holder(home)
        // Sixteen of the same length, which end together; one name twice, which makes one model.
        let names = (0..<16).map { "model\($0)" } + ["model0"]
        let clients = try names.enumerated().map { i, name in
            try home.start(
                ["import", Checkpoints.routed.path, "--name", name],
                output: URL(fileURLWithPath: "/dev/null"),
                error: home.scratch.appendingPathComponent("\(i).err"))
        }
        for (i, client) in clients.enumerated() {
            client.waitUntilExit()
            let error = try String(
                contentsOf: home.scratch.appendingPathComponent("\(i).err"), encoding: .utf8)
            // Of the two of one name the one that comes while the other is at work is told so.
            let isTold = [0, 16].contains(i) && error.contains("is under way in this home")
            #expect(client.terminationStatus == 0 || isTold, "\(error)")
        }
        try home.succeed("chain", "verify")
        #expect(try home.succeed("model", "list").split(separator: "\n").count == 17)
        #expect(holder.process.isRunning)
    }

    @Test func reloadsAtOnceMakeGenerationsOfTheirOwn() throws {
        struct Reloaded: Decodable { let generation: Int }
        let home = try Home()
        let holder = try Holder(home)
        let files = (0..<8).map { home.scratch.appendingPathComponent("reload\($0)") }
        let clients = try files.map {
            try home.start(
                ["plugin", "reload", "--json"], output: $0, error: URL(fileURLWithPath: "/dev/null")
            )
        }
        for client in clients { client.waitUntilExit() }
        let generations = try files.map {
            try JSONDecoder().decode(Reloaded.self, from: Data(contentsOf: $0)).generation
        }
        #expect(generations.sorted() == Array(2...9))
        #expect(holder.process.isRunning)
    }

    @Test func aReloadTurnsRememberingOn() throws {
        let home = try Home(.imported)
        let holder = try Holder(home)
        let kept = home.folder.appendingPathComponent("verified").path
        let expected = try Checkpoints.expected(Checkpoints.routed)
        _ = try home.evaluate(expected)
        #expect(!FileManager.default.fileExists(atPath: kept))
        try home.editManifest { $0.replacing("verify: touch", with: "verify: remember") }
        try home.succeed("plugin", "reload")
        _ = try home.evaluate(expected)
        #expect(try home.size(kept) > 0)
        #expect(holder.process.isRunning)
    }
}
