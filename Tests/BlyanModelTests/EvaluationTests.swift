import BlyanModel
import Foundation
import Testing

/// A model whose last norm is NaN.
private struct DamagedParts: PartSource {
    let whole: CheckpointParts

    func part(_ name: String) throws -> PartWeights {
        guard name == "norm" else { return try whole.part(name) }
        let layout = try #require(whole.config.parts.first { $0.name == name })
        let vector = [Float](repeating: .nan, count: whole.config.hiddenSize)
        return PartWeights(
            name: name, mappedBytes: 0, ownedBytes: 0, matrices: [:],
            vectors: [layout.tensors[0].name: vector])
    }
}

@Suite struct EvaluationTests {
    private func runner(_ wrap: (CheckpointParts) -> any PartSource) throws -> ModelRunner {
        let parts = try CheckpointParts("llama-tiny")
        return try ModelRunner(
            config: parts.config, parts: wrap(parts), threads: 1, openRouter: { nil })
    }

    @Test func logitsThatAreNotFiniteAreAnError() throws {
        let damaged = try runner(DamagedParts.init)
        let message: String? = try undisturbed {
            do { _ = try damaged.evaluate([1, 2, 3], greedy: 0) } catch let error as ModelError {
                return error.message
            }
            return nil
        }
        #expect(message?.contains("not finite at position 1") == true, "\(message ?? "accepted")")
    }

    @Test func aMeanOfNothingIsNull() throws {
        let evaluation = try undisturbed { try runner { $0 }.evaluate([1], greedy: 1) }
        #expect(evaluation.meanNLL == nil)
        let text = String(decoding: try JSONEncoder().encode(evaluation), as: UTF8.self)
        #expect(text.contains("\"mean_nll\":null"))
    }
}
