import BlyanLearning
import BlyanModel
import Foundation
import Testing

@Suite struct TrainerTests {
    /// Fifty steps of PyTorch's AdamW on one expert of the sample model, on the same batches.
    @Test func fiftyStepsLandWherePyTorchDoes() throws {
        let fixture = try Checkpoints.gradients("steps")
        let part = try #require(fixture.metadata["part"])
        let named = try JSONDecoder().decode(
            [String: Double].self, from: Data(#require(fixture.metadata["options"]).utf8))
        var options = TrainingOptions(steps: Int(named["steps"] ?? 0))
        func float(_ key: String) throws -> Float { try Float(#require(named[key])) }
        options.rate = try float("rate")
        options.warmup = Int(try float("warmup"))
        options.floor = try float("floor")
        options.beta1 = try float("beta1")
        options.beta2 = try float("beta2")
        options.epsilon = try float("epsilon")
        options.weightDecay = try float("weight_decay")
        options.clip = try float("clip")
        let trainer = try Trainer(
            Checkpoints.network(Checkpoints.sample), parts: [part], options)
        let sequences = try fixture.rows("tokens")
        let losses = try fixture.floats("losses")
        let each = sequences.count / losses.count
        for (step, expected) in losses.enumerated() {
            let batch = TokenBatch(Array(sequences[step * each..<(step + 1) * each]))
            let found = try trainer.step(batch).loss
            #expect(abs(found - Double(expected)) < 0.01 * Double(expected), "step \(step)")
        }
        // Not only the loss: the weights themselves moved along the same way.
        for (name, values) in try trainer.network.weights.ordered(part) {
            let expected = try fixture.floats(name)
            let before = try Checkpoints.weights(Checkpoints.sample).part(part)[name]
            let start = try #require(before).values
            let moved = zip(expected, start).map(-), error = zip(values.values, expected).map(-)
            let ratio = norm(error) / norm(moved)
            #expect(ratio < 0.02, "\(name): \(ratio) of the way")
        }
    }

    private func norm(_ values: [Float]) -> Double {
        values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    }

    @Test func onlyTheTrainedPartMoves() throws {
        let network = try Checkpoints.network(Checkpoints.tiny("mixtral-tiny"))
        let before = try Checkpoints.weights(Checkpoints.tiny("mixtral-tiny"))
        let trainer = try Trainer(
            network, parts: ["layer1.expert2", "layer0.router"], TrainingOptions(steps: 3))
        let batch = try TokenBatch(Checkpoints.gradients("mixtral-tiny").rows("tokens"))
        let first = try trainer.step(batch).loss
        for _ in 0..<20 { _ = try trainer.step(batch) }
        #expect(try trainer.step(batch).loss < first)
        for part in network.weights.config.parts.map(\.name) {
            for (name, values) in try network.weights.ordered(part) {
                let isTrained = trainer.optimizer.tensors.contains {
                    $0.part == part && $0.name == name
                }
                let old = try #require(before.part(part)[name])
                #expect((values.values != old.values) == isTrained, "\(part)/\(name)")
            }
        }
    }

    @Test func impossibleOptionsAreRefused() throws {
        let network = try Checkpoints.network(Checkpoints.tiny("mixtral-tiny"))
        var options = TrainingOptions(steps: 0)
        #expect(throws: ModelError.self) { try Trainer(network, parts: ["head"], options) }
        options.steps = 1
        options.rate = .nan
        #expect(throws: ModelError.self) { try Trainer(network, parts: ["head"], options) }
        options.rate = 1e-3
        #expect(throws: ModelError.self) {
            try Trainer(network, parts: ["layer7.expert1"], options)
        }
        #expect(throws: ModelError.self) { try Trainer(network, parts: [], options) }
    }

    @Test func theRateRisesAndFalls() {
        var options = TrainingOptions(steps: 100)
        options.warmup = 10
        options.rate = 1
        options.floor = 0.1
        let rates = (0..<100).map(options.rate)
        #expect(rates[0] == 0.1 && rates[9] == 1 && rates[10] == 1)
        #expect(zip(rates[10...], rates[11...]).allSatisfy { $0 >= $1 })
        #expect(abs(rates[99] - 0.1) < 0.01)
    }

    @Test func batchesRepeatByTheirSeed() {
        let stream = TokenStream(tokens: Array(0..<500))
        var options = TrainingOptions(steps: 5)
        options.sequence = 32
        #expect(stream.batch(step: 3, options) == stream.batch(step: 3, options))
        #expect(stream.batch(step: 3, options) != stream.batch(step: 4, options))
        let batch = stream.batch(step: 0, options)
        #expect(batch.sequences.count == 16 && batch.targetCount == 16 * 32)
        #expect(zip(batch.tokens, batch.targets).allSatisfy { $1 == $0 + 1 })
        // Half of the windows from elsewhere.
        let mixed = stream.batch(step: 0, options, mixing: TokenStream(tokens: Array(1000..<1100)))
        #expect(mixed.tokens.count { $0 >= 1000 } == 8 * 32)
        // Text shorter than a window is one window.
        #expect(TokenStream(tokens: [1, 2, 3]).batch(step: 0, options).targetCount == 32)
    }
}
