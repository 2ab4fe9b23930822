import Foundation
import Testing

/// What a person or a script meets at the command line's edges.
@Suite struct UsageTests {
    /// Runs a line of shell in which `$BLYAN` is the program, `$HOME_DIR` this home and `$DIR` its scratch folder.
    private func shell(_ line: String, _ home: Home, _ environment: [String: String] = [:]) throws
        -> Home.Outcome
    {
        let (output, error) = (
            home.scratch.appendingPathComponent("sh.out"),
            home.scratch.appendingPathComponent("sh.err")
        )
        for file in [output, error] { try Data().write(to: file) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = ["-c", line]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: error)
        process.environment = ProcessInfo.processInfo.environment.merging(
            [
                "BLYAN": Home.program.path, "HOME_DIR": home.folder.path, "DIR": home.scratch.path,
            ]
        ) { $1 }.merging(environment) { $1 }
        try process.run()
        process.waitUntilExit()
        return Home.Outcome(
            status: process.terminationStatus,
            output: String(decoding: try Data(contentsOf: output), as: UTF8.self),
            error: String(decoding: try Data(contentsOf: error), as: UTF8.self))
    }

    @Test func closedStreamsDoNotBecomeFilesOfTheHome() throws {
        let home = try Home()
        for line in ["chain verify", "plugin list", "import '\(Checkpoints.routed.path)'"] {
            _ = try shell("\"$BLYAN\" \(line) --home \"$HOME_DIR\" <&- >&- 2>&-", home)
        }
        #expect(try home.succeed("chain", "verify").contains("verified  17 blocks"))
    }

    @Test func aReaderThatHasSeenEnoughIsNoError() throws {
        let home = try Home(.imported)
        let outcome = try shell(
            "for i in 1 2 3; do \"$BLYAN\" block export --chain B --home \"$HOME_DIR\" | true; done; echo ${PIPESTATUS[0]}",
            home)
        #expect(outcome.error.isEmpty, "\(outcome.error)")
    }

    @Test(arguments: [false, true])
    func textsComeFromPipesAndStandardInput(isHeld: Bool) throws {
        let home = try Home(.imported)
        let holder = isHeld ? try Holder(home) : nil
        let text = home.scratch.appendingPathComponent("text")
        try Data("river of light".utf8).write(to: text)
        let expected = try home.succeed("tokenize", "--file", text.path, "--json")
        for (source, input) in [
            ("-", "< \"$DIR/text\""), ("/dev/stdin", "< \"$DIR/text\""),
            ("<(cat \"$DIR/text\")", ""),
        ] {
            let outcome = try shell(
                "\"$BLYAN\" tokenize --json --home \"$HOME_DIR\" --file \(source) \(input)", home)
            #expect(outcome.output == expected, "\(source): \(outcome.error)")
        }
        try home.fail(
            "eval", "--prompt-file", "\(text.path)x", naming: ["No such file or directory"])
        try home.fail("eval", "--prompt-file", "/", naming: ["Is a directory"])
        try Data([0x61, 0xC3, 0xA4, 0xFF, 0x62]).write(to: text)
        try home.fail("eval", "--prompt-file", text.path, naming: [text.path, "UTF-8", "byte 3"])
        #expect(holder?.process.isRunning != false)
    }

    @Test func aManifestOutsideTheHomeFindsItsPlugins() throws {
        let home = try Home(.imported)
        let other = home.scratch.appendingPathComponent("other.yaml")
        try FileManager.default.copyItem(
            at: home.folder.appendingPathComponent("node.yaml"), to: other)
        try home.succeed("chat", "river", "--max-tokens", "1", "--manifest", other.path)
        let inspected = try home.succeed(
            "plugin", "inspect", "layer-capped", "--manifest", other.path)
        #expect(inspected.contains("not enabled") && inspected.contains("/libLayerCapped.so"))
    }

    @Test func theTildeIsTheEnvironmentsHome() throws {
        let home = try Home()
        let line = "\"$BLYAN\" chain verify --home '~/home'"
        let outcome = try shell(line, home, ["HOME": home.scratch.path])
        #expect(outcome.status == 0, "\(outcome.error)")
        let holder = try Holder(home)
        let held = try shell(line, home, ["HOME": home.scratch.path])
        #expect(held.status == 0, "\(held.error)")
        holder.end(SIGTERM)
    }

    @Test func anIncompleteModelIsNotTheDefault() throws {
        let home = try Home(.imported)
        try home.importHalf(of: Checkpoints.folder("mixtral-tiny"))
        try home.succeed("chat", "river", "--max-tokens", "1")
        try home.succeed("import", Checkpoints.folder("mixtral-tiny").path)
        try home.fail("chat", "river", naming: ["2 models, 2 of them complete", "--model"])
    }

    @Test func errorsAreJSONWhereAnswersAre() throws {
        struct Answer: Decodable {
            struct Failure: Decodable { let code, message: String; let hint: String? }
            let error: Failure
        }
        let home = try Home()
        for (arguments, code) in [
            (["eval", "--prompt-file", "/dev/null", "--json"], "model"),
            (["chain", "log", "--chain", "Q", "--json"], "not-found"),
            (["chain", "log", "--json", "-n", "0"], "usage"),
        ] {
            let outcome = try home.run(arguments)
            #expect(outcome.status != 0)
            let answer = try JSONDecoder().decode(Answer.self, from: Data(outcome.error.utf8))
            #expect(answer.error.code == code, "\(outcome.error)")
        }
    }

    @Test func numbersOutOfRangeAreRefusedBeforeTheHomeIsOpened() throws {
        let home = try Home.unmade()
        let mine = ["mine", "--expert", "layer0.expert0", "--data", "-"]
        for (arguments, name) in [
            (mine + ["--steps", "-3"], "steps is -3, expected 1 to"),
            (mine + ["--steps", "0"], "steps is 0, expected 1 to"),
            (mine + ["--batch", "0"], "batch is 0, expected 1 to"),
            (mine + ["--sequence", "-1"], "sequence is -1, expected 1"),
            (mine + ["--rate", "-1"], "rate is -1.0, expected more than 0"),
            (mine + ["--rehearse", "-1"], "rehearsal is -1, expected 0 to"),
            (mine + ["--threads", "-1"], "--threads must be 1 to 1024"),
            (["run", "--mine", "-", "--mine-steps", "-1"], "steps is -1, expected 1 to"),
            (["run", "--mine", "-", "--mine-steps", "0"], "steps is 0, expected 1 to"),
            (["expert", "top", "-n", "-3"], "-n must be above 0"),
            (["block", "list"], "`blyan block` has no command \"list\": it has show, export"),
        ] {
            let outcome = try home.run(arguments)
            #expect(outcome.status == 64 && outcome.error.contains(name), "\(outcome.error)")
        }
        try home.fail(
            "chain", "log", naming: ["is not a home", "blyan init --home \(home.folder.path)"])
    }

    @Test func errorsNameObjectAndRemedy() throws {
        let home = try Home(.imported)
        let folder = home.folder.path
        try home.fail("chat", "river", "--model", "none", naming: ["blyan: this home has no model"])
        try home.fail(
            "import", Checkpoints.routed.path, "--name", "red\u{1B}[31m",
            naming: ["control characters"])
        try home.fail("chat", "river", "--seed", "-1", naming: ["blyan: ", "'-1'", "--seed"])
        try home.fail("chat", "river", "--temperature", "nan", naming: ["blyan: --temperature"])
        try home.fail("chain", "verify", "--home", "", naming: ["--home is empty"])
        try home.fail("chain", "log", "--chain", "Q", naming: ["no chain \"Q\"", "A, B"])
        try home.fail("block", "show", "ffffff0", naming: ["no block begins with ffffff0"])
        try home.fail(
            "block", "show", String(repeating: "0", count: 64),
            naming: ["`blyan chain log --home \(folder)`"])
        let line = try home.succeed("chain", "log", "-n", "1")
        let hash = try #require(line.split(separator: "\n").last?.prefix(12)).uppercased()
        try home.succeed("block", "show", hash)
        try home.fail(
            "block", "payload", hash, "--output", "\(folder)/node.yaml", naming: ["File exists"])
        try home.fail("import", "/etc/hostname", naming: ["neither", "config.json", "GGUF"])
        try home.editManifest { $0.replacing("percent: 5", with: "percent: -1") }
        try home.fail("chain", "verify", naming: ["expected at least 0"])
    }

    @Test func aMissingKeystoreIsNamed() throws {
        let home = try Home()
        try FileManager.default.removeItem(at: home.folder.appendingPathComponent("key.json"))
        try home.fail("import", Checkpoints.routed.path, naming: ["key.json is missing", "copy"])
    }

    @Test func aSecondNameStoresNoWeights() throws {
        let home = try Home(.imported)
        let said = try home.succeed("import", Checkpoints.routed.path, "--name", "twin")
        #expect(said.contains("KiB that were here"), "\(said)")
    }

    @Test func anImpossibleRouterChangesNothing() throws {
        let home = try Home(.imported)
        let holder = try Holder(home)
        let capped = home.folder.appendingPathComponent("plugins/layer-capped.yaml")
        let text = try String(contentsOf: capped, encoding: .utf8)
        try text.replacing(#/max_experts: *[0-9]+/#, with: "max_experts: 1").write(
            to: capped, atomically: true, encoding: .utf8)
        try home.editManifest { $0.replacing("router: topk", with: "router: layer-capped") }
        try home.fail("plugin", "reload", naming: ["mixtral-fused", "layer-capped"])
        try home.succeed("chat", "river", "--max-tokens", "1")
        #expect(holder.process.isRunning)
    }
}
