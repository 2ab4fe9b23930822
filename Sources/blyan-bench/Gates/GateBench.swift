internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct GateBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gates", abstract: "Gates on real fine-tunes and on attacks.")

    @Option(help: "The home, with the sample model.")
    var home: String

    @Option(help: "Threads.")
    var threads = 2

    @Option(help: "Fine-tunes.")
    var honest = 20

    func run() throws {
        let stage = try GateStage(
            home: home, pool: (1...4).map { "Examples/held-out/shard-\($0).jsonl" },
            threads: threads)
        let gates = try Dictionary(
            uniqueKeysWithValues: stage.node.plugins.gates().map {
                ($0.manifest.name, try GatePlugin($0))
            })
        let texts = try ["scripture", "plays", "dictionary"].map {
            try stage.text(3, slice: $0).stream
        }
        let parts = ["layer3.expert6", "layer2.expert7", "layer1.expert2"]
        for i in 0..<honest {
            let part = parts[i % 3]
            var options = TrainingOptions(steps: [10, 20, 40][(i / 3) % 3])
            options.rate = [1e-4, 2e-4, 1e-3][(i / 9) % 3]
            options.seed = UInt64(i)
            options.batch = 8
            options.sequence = 64
            var block: Block?
            let spent = try seconds {
                let tensors = try stage.trained(part, on: texts[(i / 27) % 3], options)
                block = try stage.block(part, tensors, at: Int64(i))
            }
            guard let block, let similarity = gates["similarity"] else { return }
            var answer: GateStage.Answer?
            let took = try seconds {
                answer = try stage.judge(block, by: [similarity], shard: 0, seed: UInt64(i))
            }
            guard case .object(var evidence)? = answer?.gates.last?.evidence else { return }
            evidence["change"] = nil
            evidence["shape"] = nil
            print(
                part, options.steps, options.rate, i / 27 % 3, "train", spent, "gate", took,
                answer?.reason ?? "",
                String(decoding: JSONValue.object(evidence).canonical(), as: UTF8.self))
        }
    }
}
