internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct DecodeBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode",
        abstract:
            "Prompt and decode speed of a model in a home, beside llama.cpp on the same weights.",
        discussion: """
            With --gguf, llama-bench (--llama-bench or LLAMA_BENCH) is run in turn with each round, so that both meet \
            the same machine.
            """)

    @Option(help: "The home.")
    var home: String

    @Option(help: "The model.")
    var model: String?

    @Option(help: "Threads.")
    var threads = 1

    @Option(help: "Rounds; medians are reported.")
    var rounds = 5

    @Option(help: "Tokens of the prompt.")
    var prompt = 512

    @Option(help: "Tokens that are decoded.")
    var tokens = 64

    @Option(help: "The same model as GGUF, for llama-bench.")
    var gguf: String?

    @Option(help: "The program llama-bench; otherwise LLAMA_BENCH.")
    var llamaBench: String?

    func run() throws {
        let folder = URL(fileURLWithPath: home)
        let node = try Node(
            home: folder, threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        defer { node.close() }
        let loaded = try node.model(model)
        let vocabulary = loaded.runner.config.vocabularySize
        let text = (0..<prompt).map { (7 * $0 + 11) % vocabulary }
        var figures: [String: [Double]] = [:]
        for round in 0...rounds {
            let session = try loaded.runner.makeSession(capacity: prompt + tokens + 8)
            var sampler = try Sampler()
            let short = try loaded.runner.generate(
                session, prompt: Array(text.prefix(1)), sampler: &sampler, limit: tokens + 1,
                ends: []
            ) { _ in true }
            let long = try loaded.runner.generate(
                loaded.runner.makeSession(capacity: prompt + 8), prompt: text, sampler: &sampler,
                limit: 1, ends: []
            ) { _ in true }
            // The first round maps and verifies.
            guard round > 0 else { continue }
            figures["decode_tokens_per_s", default: []].append(Double(tokens) / short.seconds)
            figures["prompt_tokens_per_s", default: []].append(Double(prompt) / long.promptSeconds)
            if let gguf {
                let peer = try llama(gguf)
                figures["llama_decode_tokens_per_s", default: []].append(peer.decode)
                figures["llama_prompt_tokens_per_s", default: []].append(peer.prompt)
            }
        }
        var out = figures.mapValues(median)
        if let ours = out["decode_tokens_per_s"], let theirs = out["llama_decode_tokens_per_s"] {
            out["decode_ratio"] = ours / theirs
        }
        if let ours = out["prompt_tokens_per_s"], let theirs = out["llama_prompt_tokens_per_s"] {
            out["prompt_ratio"] = ours / theirs
        }
        out["threads"] = Double(threads)
        try report(out)
    }

    private func llama(_ path: String) throws -> (decode: Double, prompt: Double) {
        guard let program = llamaBench ?? ProcessInfo.processInfo.environment["LLAMA_BENCH"] else {
            throw ValidationError("--gguf needs --llama-bench or LLAMA_BENCH")
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = [
            "-m", path, "-p", "\(prompt)", "-n", "\(tokens)", "-t", "\(threads)", "-r", "1", "-o",
            "json",
        ]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        struct Row: Decodable { let n_gen: Int; let avg_ts: Double }
        let rows = try JSONDecoder().decode([Row].self, from: data)
        return (rows.first { $0.n_gen > 0 }?.avg_ts ?? 0, rows.first { $0.n_gen == 0 }?.avg_ts ?? 0)
    }
}
