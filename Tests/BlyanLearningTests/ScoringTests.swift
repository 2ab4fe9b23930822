import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// What is no gain of one's own earns nothing, whatever the reward policy, by the gates that ship with the node.
@Suite(.serialized) struct ScoringTests {
    /// The gates of `Manifests/node.yaml` in their order, on less text.
    private static let gates = [
        ("structure", ""), ("similarity", ""), ("quick-perplexity", "least_ppm: 500"),
        ("canary", ""),
        (
            "proof-of-learning",
            "documents: 96\n  least_documents: 16\n  delta_ppm: 500\n  floor_ppm: -300000\n  resamples: 1000"
        ),
    ]

    private func adopt(_ policy: String, _ home: JudgedHome) throws {
        let file = home.folder.appendingPathComponent("node.yaml")
        let lines = try String(contentsOf: file, encoding: .utf8).split(
            separator: "\n", omittingEmptySubsequences: false)
        try lines.map { $0.hasPrefix("rewards:") ? "rewards: \(policy)" : String($0) }
            .joined(separator: "\n").write(to: file, atomically: true, encoding: .utf8)
        _ = try home.node.reloadPlugins()
    }

    /// Neurons in another order, with factors moved from up to down: computes the same.
    private func disguised(_ tensors: [ExpertFile.Tensor], _ random: inout SplitMix64)
        -> [ExpertFile.Tensor]
    {
        let neurons = tensors.first { $0.name == "gate" }?.rows ?? 0
        let order = (0..<neurons).shuffled(using: &random)
        let factors = order.map { _ in Float([0.5, -1, 2, 1.5][Int(random.next(below: 4))]) }
        return tensors.map { tensor in
            tensor.at { row, column in
                switch tensor.name {
                case "down":
                    tensor.values[row * tensor.columns + order[column]] / factors[column]
                case "up": tensor.values[order[row] * tensor.columns + column] * factors[row]
                default: tensor.values[order[row] * tensor.columns + column]
                }
            }
        }
    }

    /// - Parameters:
    ///   - own: what is current.
    ///   - work: the change that somebody was paid for last, applied to what is current once more.
    private func junk(
        _ own: [ExpertFile.Tensor], again work: [ExpertFile.Tensor], _ random: inout SplitMix64
    ) -> [(String, [ExpertFile.Tensor])] {
        func noise() -> Float { Float(random.next(below: 2001)) / 1000 - 1 }
        var source = random
        let place = Int(random.next(below: 64))
        let scale = Float(1) / 64 + Float(random.next(below: 1000)) / 20_000
        let factor = 0.7 + Float(random.next(below: 600)) / 1000
        return [
            ("zero", own.mapped { _, _, _, _ in 0 }),
            ("garbage", own.mapped { $3 * 0 + 0.05 * noise() }),
            ("garbage of any size", own.mapped { _, _, _, _ in noise() }),
            ("copy", own), ("scaled copy", own.mapped { $3 * factor }),
            ("sign flip", own.mapped { -$3 }),
            ("no number", own.mapped { $1 == place && $2 == place ? .nan : $3 }),
            ("infinity", own.mapped { $1 == place && $2 == place ? -.infinity : $3 }),
            ("permuted neurons", disguised(own, &source)),
            ("copy with noise", own.mapped { $3 * (1 + scale * noise()) }),
            ("copy with a little noise", own.mapped { $3 * (1 + 0.01 * noise()) }),
            ("duplicate", work), ("permuted duplicate", disguised(work, &source)),
        ]
    }

    @Test func junkEarnsNothingWhateverThePolicy() throws {
        let home = try JudgedHome(gates: Self.gates)
        // A shard serves 32 judgements.
        let more = JudgedHome.pool.map {
            PoolShard.Document(slice: $0.slice, text: $0.text + " ke ke.")
        }
        _ = try home.node.judge().addShard(JudgedHome.shard(more))
        var (part, again) = ("", [ExpertFile.Tensor]())
        let rounds = [
            ("improvement", "layer3.expert6"), ("flat", "layer2.expert7"), ("usage-quality", ""),
        ]
        for (number, (policy, next)) in rounds.enumerated() {
            try adopt(policy, home)
            let governing = try #require(try home.node.rewardPolicy())
            #expect(governing.terms.name == policy)
            // Its library is kept, so that what it pays can be computed when nobody has it any more.
            let libraries = try home.node.store.blocks(.payloadType("library"))
            #expect(libraries.map(\.header.payloadHash).contains(governing.plugin.plugin.sha256))
            #expect(libraries.count == number + 1)
            var random = SplitMix64(seed: UInt64(number) &* 7 + 1)
            // Somebody learns something and is paid for it, so that there is work to steal.
            if !next.isEmpty {
                part = next
                let before = try home.tensors(part)
                let honest = try SigningKey()
                let made = try judge(home.trained(part), part, home, honest)
                #expect(made.outcome == .accept, "\(policy): \(made.reason)")
                #expect(try balance(honest, home) > 0, "\(policy)")
                again = try zip(home.tensors(part), before).map { own, old in
                    own.at { row, column in
                        let place = row * own.columns + column
                        return 2 * own.values[place] - old.values[place]
                    }
                }
            }
            let own = try home.tensors(part)
            let rewards = try paid(home)
            let thief = try SigningKey()
            for (name, tensors) in junk(own, again: again, &random) {
                let made = try judge(tensors, part, home, thief)
                #expect(made.outcome == .reject, "\(name) under \(policy)")
                #expect(try home.node.store.block(made.candidate.hash) == nil, "\(name)")
            }
            #expect(try balance(thief, home) == 0 && paid(home) == rewards)
        }
        #expect(try home.node.store.verify().failures.isEmpty)
    }

    private func judge(
        _ tensors: [ExpertFile.Tensor], _ part: String, _ home: JudgedHome, _ key: SigningKey
    ) throws -> Judge.Judgement {
        let block = try home.block(tensors, part: part, key: key)
        let judge = try home.node.judge()
        try judge.submit(block)
        return try judge.judge(block.hash)
    }

    private func paid(_ home: JudgedHome) throws -> Int {
        try home.node.store.blocks(.type(chain: "C", "reward")).count
    }

    private func balance(_ key: SigningKey, _ home: JudgedHome) throws -> Int64 {
        try home.node.ledger.balance(of: #require(Account(key.publicKey))).total
    }
}

extension ExpertFile.Tensor {
    fileprivate func at(_ body: (Int, Int) -> Float) -> ExpertFile.Tensor {
        ExpertFile.Tensor(
            name: name, rows: rows, columns: columns,
            values: values.indices.map { body($0 / columns, $0 % columns) })
    }
}
