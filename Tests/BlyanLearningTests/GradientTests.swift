import BlyanLearning
import BlyanModel
import Foundation
import Testing

/// Derivatives beside those of PyTorch's autograd, of finite differences, and of one another.
@Suite struct GradientTests {
    static let checkpoints = [
        "llama-tiny", "mixtral-tiny", "llama-bias-untied", "llama-yarn", "mistral-windowed",
        "mixtral-windowed", "olmoe-tiny", "olmoe-normalised-clipped", "qwen2-tiny",
        "qwen2-moe-mlp-only", "qwen2-moe-windowed", "qwen3-moe-tiny", "qwen3-tiny",
    ]

    private func norm(_ values: [Float]) -> Double {
        values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    }

    /// Every weight of every architecture: relative error at most 1e-3, as the project promises.
    @Test(arguments: checkpoints)
    func agreesWithAutograd(name: String) throws {
        let fixture = try Checkpoints.gradients(name)
        let network = try Checkpoints.network(Checkpoints.tiny(name))
        let parts = Set(network.weights.config.parts.map(\.name))
        let gradients = try Gradients(of: parts, in: network.weights)
        let batch = try TokenBatch(fixture.rows("tokens"))
        let losses = try network.backward(batch, into: gradients)
        let loss = losses.reduce(0) { $0 + Double($1) } / Double(losses.count)
        let expectedLoss = try #require(fixture.metadata["loss"].flatMap(Double.init))
        #expect(abs(loss - expectedLoss) < 1e-4 * expectedLoss)

        let step = try #require(fixture.metadata["stride"].flatMap { Int($0) })
        let large = try #require(fixture.metadata["large"].flatMap { Int($0) })
        let norms = try JSONDecoder().decode(
            [String: Double].self, from: Data(#require(fixture.metadata["norms"]).utf8))
        let scale = norms.values.max() ?? 0
        #expect(norms.count == fixture.names.count - 1)
        var worst = (0.0, "")
        for tensor in fixture.names where tensor != "tokens" {
            let words = tensor.split(separator: "/").map(String.init)
            // The norm before the feed-forward lies with whatever reads it.
            let candidates =
                words[0].hasSuffix(".*")
                ? [".router", ".expert0"].map { words[0].dropLast(2) + $0 } : [words[0]]
            let matrix = try #require(
                candidates.lazy.compactMap { gradients.matrix(String($0), words[1]) }.first)
            let found = matrix.values
            let expected = try fixture.floats(tensor)
            let sampled =
                found.count > large
                ? stride(from: 0, to: found.count, by: step).map { found[$0] } : found
            try #require(sampled.count == expected.count)
            let error = norm(zip(sampled, expected).map(-))
            // Derivatives that vanish but for rounding have no direction.
            let relative = error / max(norm(expected), 1e-5 * scale)
            if relative > worst.0 { worst = (relative, tensor) }
            #expect(relative <= 1e-3, "\(tensor)")
            let whole = try #require(norms[tensor])
            #expect(abs(norm(found) - whole) <= 1e-3 * max(whole, 1e-5 * scale), "\(tensor)")
        }
        print("\(name): largest relative error \(worst)")
    }

    /// Along its own derivative a part's loss rises by the derivative's norm.
    @Test(arguments: ["mixtral-tiny", "qwen2-moe-windowed", "olmoe-normalised-clipped"])
    func agreesWithFiniteDifferences(name: String) throws {
        let fixture = try Checkpoints.gradients(name)
        // A router for each sequence, asked for in their order; which experts serve a token stays as it was first.
        let batch = try TokenBatch(fixture.rows("tokens"))
        var routers: [RuleRouter] = []
        var asked = 0
        let network = try Checkpoints.network(Checkpoints.tiny(name)) { config in
            defer { asked += 1 }
            if asked < batch.sequences.count {
                routers.append(RuleRouter(config))
                routers[asked].held = [:]
            }
            return routers[asked % batch.sequences.count]
        }
        func mean() throws -> Double {
            let losses = try network.losses(batch)
            return losses.reduce(0) { $0 + Double($1) } / Double(losses.count)
        }
        for part in network.weights.config.parts.map(\.name) {
            let gradients = try Gradients(of: [part], in: network.weights)
            _ = try network.backward(batch, into: gradients)
            let tensors = try network.weights.ordered(part).compactMap { name, values in
                gradients.matrix(part, name).map { (values, $0) }
            }
            let length = norm(tensors.flatMap { $0.1.values })
            guard length > 1e-3 else { continue }
            func move(_ distance: Double) {
                for (values, gradient) in tensors {
                    for i in 0..<values.rows {
                        for k in 0..<values.columns {
                            values[i, k] += Float(distance / length) * gradient[i, k]
                        }
                    }
                }
            }
            // Small enough for a straight line, large enough for f32 losses.
            let distance = 2e-3 / max(1, length)
            move(distance)
            let above = try mean()
            move(-2 * distance)
            let below = try mean()
            move(distance)
            let measured = (above - below) / (2 * distance)
            #expect(abs(measured - length) < 0.03 * length, "\(part): \(measured), \(length)")
        }
    }

    /// The derivatives of one part are those that it has when all are trained: what is left out changes nothing.
    @Test(arguments: ["mixtral-tiny", "qwen2-moe-mlp-only"])
    func onePartAloneHasTheSameDerivatives(name: String) throws {
        let batch = try TokenBatch(Checkpoints.gradients(name).rows("tokens"))
        let network = try Checkpoints.network(Checkpoints.tiny(name))
        let parts = network.weights.config.parts.map(\.name)
        let all = try Gradients(of: Set(parts), in: network.weights)
        _ = try network.backward(batch, into: all)
        for part in parts {
            let alone = try Gradients(of: [part], in: network.weights)
            _ = try network.backward(batch, into: alone)
            for (tensor, _) in try network.weights.ordered(part) {
                #expect(
                    alone.matrix(part, tensor)?.values == all.matrix(part, tensor)?.values,
                    "\(part)/\(tensor)")
            }
            #expect(alone.matrix(part == "norm" ? "embedding" : "norm", "weight") == nil)
        }
    }

    @Test func bitsDoNotDependOnThreads() throws {
        let batch = try TokenBatch(Checkpoints.gradients("mixtral-tiny").rows("tokens"))
        let results = try [1, 2, 3].map { threads in
            let network = try Checkpoints.network(
                Checkpoints.tiny("mixtral-tiny"), threads: threads)
            let gradients = try Gradients(
                of: ["layer0.expert1", "layer1.router"], in: network.weights)
            let losses = try network.backward(batch, into: gradients)
            return try losses
                + #require(gradients.matrix("layer0.expert1", "gate")).values
                + #require(gradients.matrix("layer1.router", "weight")).values
        }
        #expect(results[0] == results[1] && results[0] == results[2])
    }

    /// Sequences see nothing of one another, however they are batched.
    @Test func sequencesAreIndependent() throws {
        let rows = try Checkpoints.gradients("mixtral-windowed").rows("tokens")
        let network = try Checkpoints.network(Checkpoints.tiny("mixtral-windowed"))
        let together = try network.losses(TokenBatch(rows + [[5, 6]] + rows))
        let alone = try rows.map { try network.losses(TokenBatch([$0])) }
        let expected = try alone.flatMap { $0 } + network.losses(TokenBatch([[5, 6]]))
        for (a, b) in zip(together, expected) { #expect(abs(a - b) < 1e-4) }
        #expect(together.count == 2 * rows.count * (rows[0].count - 1) + 1)
    }

    @Test func tokensThatDoNotExistAreRefused() throws {
        let network = try Checkpoints.network(Checkpoints.tiny("llama-tiny"))
        #expect(throws: ModelError.self) { try network.losses(TokenBatch([[1, 2048]])) }
        #expect(throws: ModelError.self) { try network.losses(TokenBatch([[-1, 5, 7]])) }
        #expect(try network.losses(TokenBatch([[3]])).isEmpty)
    }
}
