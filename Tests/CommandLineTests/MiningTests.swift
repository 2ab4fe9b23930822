import Foundation
import Testing

/// Miners that run on and on, as an operator starts and stops them.
@Suite struct MiningTests {
    /// A home whose only gate accepts what is well formed, and a text of which nothing is held back.
    private func home() throws -> (home: Home, text: String) {
        let home = try Home(.imported)
        try home.editManifest { text in
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            return lines.filter {
                !["  - quick-perplexity", "  - canary", "  - proof-of-learning"].contains($0)
            }.joined(separator: "\n")
        }
        let text = home.scratch.appendingPathComponent("text")
        let documents = (0..<8).map { "Verse \($0): and the light was on the water of the river." }
        try Data(documents.joined(separator: "\n\n").utf8).write(to: text)
        return (home, text.path)
    }

    /// Waits until a file has as many lines with a word, and answers what follows the word in them.
    private func wait(
        for word: String, _ count: Int, in file: URL, while process: Process
    ) throws -> [String] {
        while true {
            let isRunning = process.isRunning
            let text = try String(contentsOf: file, encoding: .utf8)
            let found = text.split(separator: "\n").dropLast(text.hasSuffix("\n") ? 0 : 1)
                .compactMap { line in
                    line.range(of: word).map {
                        line[$0.upperBound...].split(separator: " ").first.map(String.init) ?? ""
                    }
                }
            if found.count >= count { return found }
            guard isRunning else { throw Home.Failure(description: "it has ended: \(text)") }
            usleep(20_000)
        }
    }

    @Test func aNodeMinesExpertAfterExpertBesideChats() throws {
        let (home, text) = try home()
        let log = home.scratch.appendingPathComponent("run.err")
        let options = ["--mine", text, "--mine-steps", "3"]
        let first = try Holder(home, options[0], options[1], options[2], options[3])
        #expect(try !home.succeed("chat", "river", "--max-tokens", "4").isEmpty)
        let judged = try wait(for: "verdict   ", 2, in: log, while: first.process)
        #expect(judged.prefix(2) == ["layer0.expert0", "layer0.expert1"])
        #expect(try home.succeed("expert", "show", "layer0.expert1").contains("1.1.0"))
        first.end(SIGTERM)
        #expect(first.process.terminationStatus == 0)
        #expect(try String(contentsOf: log, encoding: .utf8).contains("mining is stopped"))
        // The next process goes on: nobody has a second turn before all had one.
        let begun = Set(try wait(for: "verdict   ", 2, in: log, while: first.process))
        let second = try Holder(home, options[0], options[1], options[2], options[3])
        let next = try wait(for: "verdict   ", 1, in: log, while: second.process)[0]
        #expect(!begun.contains(next), "\(next) after \(begun)")
        second.end(SIGINT)
        #expect(second.process.terminationStatus == 0)
        try home.succeed("chain", "verify")
    }

    @Test func mineWithAnOrderStopsWhereItGoesOn() throws {
        let (home, text) = try home()
        let (output, error) = (
            home.scratch.appendingPathComponent("mine.out"),
            home.scratch.appendingPathComponent("mine.err")
        )
        let arguments = [
            "mine", "--order", "hot-path", "--data", text, "--steps", "100000", "--rehearse", "0",
        ]
        let training = home.folder.appendingPathComponent("training")
        var (expert, kept): (String, [String]) = ("", [])
        // How far it is after so many seconds depends on what else runs; where it stops by then it says so all the same.
        for seconds in 0..<20 where !kept.contains(where: { $0.hasSuffix("\(expert).training") }) {
            let process = try home.start(arguments, output: output, error: error)
            expert = try wait(for: "mining    ", 1, in: output, while: process)[0]
            usleep(UInt32(seconds) * 1_000_000)
            kill(process.processIdentifier, SIGINT)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 1)
            let said = try String(contentsOf: error, encoding: .utf8)
            #expect(said.contains("stopped on request"), "\(said)")
            kept = (try? FileManager.default.contentsOfDirectory(atPath: training.path)) ?? []
        }
        #expect(kept.contains { $0.hasSuffix("\(expert).training") }, "\(kept)")
        let again = try home.start(arguments, output: output, error: error)
        let resumed = try wait(for: "resumed   ", 1, in: output, while: again)[0]
        #expect(resumed == "\(expert),")
        kill(again.processIdentifier, SIGTERM)
        again.waitUntilExit()
        #expect(again.terminationStatus == 1)
    }

    @Test func aRouterIsMinedAlongWithItsExpert() throws {
        let (home, text) = try home()
        let arguments = [
            "mine", "--expert", "layer0.expert0", "--with-router", "--data", text, "--rehearse",
            "0",
        ]
        // Stopped, it goes on with both.
        let (output, error) = (
            home.scratch.appendingPathComponent("mine.out"),
            home.scratch.appendingPathComponent("mine.err")
        )
        let long = arguments + ["--steps", "100000"]
        let training = home.folder.appendingPathComponent("training").path
        var kept: [String] = []
        for seconds in 2..<12 where !kept.contains(where: { $0.hasSuffix("+router.training") }) {
            let process = try home.start(long, output: output, error: error)
            usleep(UInt32(seconds) * 1_000_000)
            kill(process.processIdentifier, SIGINT)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 1)
            kept = (try? FileManager.default.contentsOfDirectory(atPath: training)) ?? []
        }
        let again = try home.start(long, output: output, error: error)
        let step = try wait(for: "going on after step ", 1, in: error, while: again)[0]
        #expect(Int(step) ?? 0 > 0)
        kill(again.processIdentifier, SIGTERM)
        again.waitUntilExit()
        let made = try home.run(arguments + ["--steps", "3"])
        #expect(made.status == 0, "\(made.error)")
        for words in [
            "trained   layer0.expert0 and layer0.router, 3 steps", "serves    ",
            "verdict   accepted", "gate      structure, layer0.router: accept",
            "gate      structure: accept",
        ] {
            #expect(made.output.contains(words), "\(made.output)")
        }
        for part in ["layer0.expert0", "layer0.router"] {
            #expect(try home.succeed("expert", "show", part).contains("1.1.0"), "\(part)")
        }
        #expect(!(try home.succeed("expert", "show", "layer0.expert1").contains("1.1.0")))
        try home.fail(
            "mine", "--expert", "layer0.router", "--with-router", "--data", text,
            naming: ["layer0.router", "--with-router"])
        try home.succeed("chain", "verify")
    }

    @Test func whatGotNoBetterIsToldInFigures() throws {
        let (home, text) = try home()
        let documents = (0..<40).map { "Verse \($0): and the light was on the water of the river." }
        try Data(documents.joined(separator: "\n\n").utf8).write(to: URL(fileURLWithPath: text))
        let made = try home.run(
            "mine", "--expert", "layer0.expert0", "--data", text, "--rehearse", "0", "--steps", "1",
            "--rate", "1e-30", "--json")
        #expect(made.status == 1)
        #expect(made.output.contains("\"held_back_after_unat\":"), "\(made.output)")
        for words in ["did not fall (perplexity ", " before, ", "layer0.expert0 serves ", " % of"] {
            #expect(made.error.contains(words), "\(made.error)")
        }
        #expect(try home.succeed("candidate", "list", "--judged", "1", "--json") == "[]\n")
    }

    @Test func whatIsMissingIsToldBeforeTheNodeServes() throws {
        let (home, text) = try home()
        try home.fail("run", "--mine", "/nowhere", naming: ["/nowhere"])
        try home.fail("run", "--mine-steps", "5", naming: ["--mine-steps without --mine"])
        for (option, value, range) in [
            ("--sequence", "100000000", "1 to 1048576"),
            ("--rehearse", "99999999999", "0 to 100000000"),
        ] {
            try home.fail(
                "mine", "--expert", "layer0.expert0", "--data", text, option, value,
                naming: [value, range])
        }
        try home.fail("run", "--mine", text, "--mine-model", "other", naming: ["other"])
        try home.fail("mine", "--data", text, naming: ["--expert", "--order"])
        try home.fail(
            "mine", "--data", text, "--order", "round-robin", "--json", naming: ["--json"])
        try home.fail("mine", "--data", text, "--order", "random", naming: ["round-robin"])
        for part in ["layer0.attention", "embedding", "norm"] {
            try home.fail(
                "mine", "--expert", part, "--data", text, naming: ["\(part) cannot be replaced"])
        }
    }
}
