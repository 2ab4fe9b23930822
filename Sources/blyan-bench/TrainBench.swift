internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct TrainBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "One optimiser step of one expert, beside the same step in PyTorch.",
        discussion: """
            With --python, that interpreter runs `Scripts/bench_peers.py train` on --checkpoint in turn with each \
            round, so that both meet the same machine.
            """)

    @Option(help: "The home.")
    var home: String

    @Option(help: "The model.")
    var model: String?

    @Option(help: "The expert that is trained.")
    var part = "layer2.expert7"

    @Option(help: "Threads.")
    var threads = 1

    @Option(help: "Rounds; medians are reported.")
    var rounds = 5

    @Option(help: "Steps a round.")
    var steps = 8

    @Option(help: "Sequences a step.")
    var batch = 16

    @Option(help: "Tokens a sequence.")
    var sequence = 128

    @Option(help: "A Python with torch and transformers.")
    var python: String?

    @Option(help: "The same model as a checkpoint, for PyTorch.")
    var checkpoint = "Examples/models/sample-moe"

    func run() throws {
        let node = try Node(
            home: URL(fileURLWithPath: home), threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        defer { node.close() }
        let loaded = try node.model(model)
        guard let library = GemmLibrary.openBLAS() else {
            throw KernelError(.notFound, "OpenBLAS is not installed")
        }
        let config = loaded.model.document.config
        let network = try Network(
            Weights(config) { try loaded.decode($0) },
            multiplier: Multiplier(pool: WorkerPool(threads: threads), library: library)
        ) { try loaded.makeRouter() }
        var options = TrainingOptions(steps: (rounds + 1) * steps)
        options.batch = batch
        options.sequence = sequence
        let trainer = try Trainer(network, parts: [part], options)
        var random = SplitMix64(seed: 1)
        let stream = TokenStream(
            tokens: (0..<100_000).map { _ in
                Int(random.next(below: UInt64(config.vocabularySize)))
            })
        var figures: [String: [Double]] = [:]
        for round in 0...rounds {
            var samples: [Double] = []
            for step in 0..<steps {
                let tokens = stream.batch(step: round * steps + step, options)
                samples.append(try seconds { _ = try trainer.step(tokens) })
            }
            let peer = try python.map { try torch($0) }
            // The first round makes room and wakes threads.
            guard round > 0 else { continue }
            figures["step_ms", default: []].append(1000 * median(samples))
            if let peer { figures["torch_step_ms", default: []].append(peer) }
        }
        var out = figures.mapValues(median)
        let tokens = Double(batch * sequence)
        if let own = out["step_ms"] {
            out["tokens_per_s"] = 1000 * tokens / own
            if let theirs = out["torch_step_ms"] {
                out["torch_tokens_per_s"] = 1000 * tokens / theirs
                out["ratio"] = theirs / own
            }
        }
        out["threads"] = Double(threads)
        out["peak_mib"] = peak()
        try report(out)
    }

    private func torch(_ interpreter: String) throws -> Double {
        let process = Process(), pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: interpreter)
        process.arguments =
            ["Scripts/bench_peers.py", "train", checkpoint]
            + [threads, batch, sequence, steps].map(String.init) + [part]
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        struct Answer: Decodable { let step_ms: Double }
        return try JSONDecoder().decode(Answer.self, from: data).step_ms
    }

    /// The most memory that this process has had, in MiB.
    private func peak() -> Double {
        var usage = rusage()
        unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return Double(usage.ru_maxrss) / 1024
    }
}
