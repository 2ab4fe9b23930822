import Foundation
import Testing

/// `blyan status`, and numbers that no command may stumble over.
@Suite struct StatusTests {
    private struct Status: Decodable {
        struct Plugin: Decodable { let name: String; let calls: Int }
        struct Cache: Decodable {
            let hits, misses, dropped, budget, bytesMapped, bytesResident: Int
        }
        struct Model: Decodable { let name: String; let loads: Int; let cache: Cache }
        struct Memory: Decodable { let resident, file, anonymous: Int }
        let version, verify, kernels: String
        let holder: Int32?
        let blocks: [String: Int]
        let generation, threads: Int
        let plugins: [Plugin]
        let models: [Model]
        struct Scrub: Decodable { let payloads, allPayloads, damaged: Int }
        let memory: Memory
        let scrub: Scrub?
        let deadLetters: [String: Int]
    }

    private func status(_ home: Home) throws -> Status {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(
            Status.self, from: Data(home.succeed("status", "--json").utf8))
    }

    @Test func theHoldersFiguresAreShown() throws {
        let home = try Home(.imported)
        let alone = try status(home)
        #expect(alone.holder == nil && alone.models.isEmpty)
        #expect(alone.blocks == ["A": 3, "B": 14, "C": 0])
        let holder = try Holder(home)
        _ = try home.evaluate(Checkpoints.expected(Checkpoints.routed))
        let held = try status(home)
        #expect(held.holder == holder.process.processIdentifier)
        #expect(held.blocks == alone.blocks && held.generation == 1 && held.verify == "touch")
        let model = try #require(held.models.first)
        #expect(model.name == "mixtral-fused" && model.loads > 0)
        #expect(model.cache.hits > 0 && model.cache.misses > 0 && model.cache.budget == 1 << 30)
        #expect(model.cache.bytesResident > 0)
        #expect(model.cache.bytesResident <= model.cache.bytesMapped)
        #expect(held.plugins.contains { $0.calls > 0 })
        let scrub = try #require(held.scrub)
        #expect(scrub.allPayloads == 17 && scrub.payloads <= 17 && scrub.damaged == 0)
        #expect(alone.scrub == nil)
        #expect(held.memory.resident >= held.memory.file + held.memory.anonymous)
        let text = try home.succeed("status")
        #expect(text.contains("held by process \(holder.process.processIdentifier)"))
        #expect(text.contains("no letters") && text.contains("of 17 payloads read"))
        #expect(text.contains("mixtral-fused"))
    }

    @Test func aNewGenerationReplacesTheModelsOfTheOld() throws {
        let home = try Home(.imported)
        let holder = try Holder(home)
        let expected = try Checkpoints.expected(Checkpoints.routed)
        _ = try home.evaluate(expected)
        try home.succeed("plugin", "reload")
        #expect(try status(home).models.isEmpty)
        _ = try home.evaluate(expected)
        let now = try status(home)
        #expect(now.models.count == 1 && now.generation == 2)
        #expect(holder.process.isRunning)
    }

    @Test(arguments: ["9223372036854775807", "9223372036854775806", "1000000000", "257"])
    func noNumberOfGreedyTokensEndsTheHolder(greedy: String) throws {
        let home = try Home(.imported)
        let holder = try Holder(home)
        let prompt = home.scratch.appendingPathComponent("prompt")
        try Data("river".utf8).write(to: prompt)
        try home.fail(
            "eval", "--prompt-file", prompt.path, "--greedy", greedy,
            naming: ["--greedy asks for \(greedy)", "context", "256"])
        #expect(holder.process.isRunning)
    }

    @Test func noOtherNumberDoesEither() throws {
        let home = try Home(.imported)
        let holder = try Holder(home)
        let largest = "9223372036854775807"
        try home.succeed(
            "chat", "river", "--max-tokens", largest, "--top-k", largest, "--seed",
            "18446744073709551615")
        try home.succeed("chain", "log", "--limit", largest)
        for numbers in [["chain", "log", "--limit", "0"], ["chain", "log", "--limit", "-1"]] {
            #expect(try home.run(numbers).status != 0)
        }
        for option in ["--max-tokens", "--top-k", "--seed"] {
            let outcome = try home.run(["chat", "river", option, "9223372036854775808999"])
            #expect(outcome.status != 0 && outcome.error.contains(option), "\(outcome.error)")
        }
        #expect(holder.process.isRunning)
    }

    @Test func whatAProgramMayReadIsJSON() throws {
        let home = try Home()
        for arguments in [
            ["chain", "reindex"], ["plugin", "trust", "--all"], ["plugin", "reload"],
        ] {
            let outcome = try home.run(arguments + ["--json"])
            #expect(outcome.status == 0, "\(outcome.error)")
            let value = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8))
            #expect(value is [String: Any], "\(outcome.output)")
        }
        let help = try home.succeed("import", "--help")
        #expect(help.contains("GGUF") && help.contains("Hugging Face"))
    }
}
