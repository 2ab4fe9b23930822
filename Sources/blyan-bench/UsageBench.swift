internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct UsageBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usage",
        abstract:
            "What counting the use of experts, durably, costs decoding: with and without, in turn.")

    @Option(help: "The home; its counts grow.")
    var home: String

    @Option(help: "The model.")
    var model: String?

    @Option(help: "Threads.")
    var threads = 1

    @Option(help: "Rounds; medians are reported.")
    var rounds = 15

    @Option(help: "Tokens that are decoded in a round.")
    var tokens = 256

    func run() throws {
        let node = try Node(
            home: URL(fileURLWithPath: home), threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        defer { node.close() }
        let counted = try node.model(model)
        let plugins = node.plugins
        let plain = try LoadedModel(
            counted.model, store: node.store, mode: .touch, budget: node.manifest.cacheBudget,
            threads: threads, library: node.manifest.promptLibrary(),
            format: { [plugins] in try plugins.format(for: $0) },
            router: { [plugins] in try plugins.router() })
        var (with, without): ([Double], [Double]) = ([], [])
        for round in 0...rounds {
            // Whoever comes second finds warmer caches: they take turns.
            let pair = round.isMultiple(of: 2) ? [true, false] : [false, true]
            for isCounted in pair {
                let rate = try decode(isCounted ? counted : plain)
                // The first round maps and verifies.
                guard round > 0 else { continue }
                if isCounted { with.append(rate) } else { without.append(rate) }
            }
        }
        // Each pair met the same machine: its ratio says more than two medians.
        let ratios = zip(with, without).map { $0 / $1 }
        try report([
            "counted_tokens_per_s": median(with), "uncounted_tokens_per_s": median(without),
            "ratio_of_medians": median(with) / median(without),
            "median_of_ratios": median(ratios), "threads": Double(threads),
            "lost_messages": Double(node.messages.deadLetters["expert.used"] ?? 0),
        ])
    }

    private func decode(_ model: LoadedModel) throws -> Double {
        let session = try model.runner.makeSession(capacity: tokens + 8)
        var sampler = try Sampler()
        let statistics = try model.runner.generate(
            session, prompt: [1], sampler: &sampler, limit: tokens + 1, ends: []
        ) { _ in true }
        return Double(tokens) / statistics.seconds
    }
}
