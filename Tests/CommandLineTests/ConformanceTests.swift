import Foundation
import Testing

/// Every architecture and option against the transformers library, through the program as a user runs it.
@Suite struct ConformanceTests {
    @Test func allCheckpointsAreThere() {
        #expect(Checkpoints.names.count >= 37)
    }

    // Weights of 16 bits meet f32 activations, so one tolerance holds for all dtypes. Quantised GGUF tensors are
    // expected as the f16 that an import makes of them.
    @Test(arguments: Checkpoints.names)
    func equalsTransformers(_ name: String) throws {
        let expected = try Checkpoints.expected(Checkpoints.folder(name))
        let home = try Home()
        try home.succeed("import", Checkpoints.path(name))
        let found = try home.evaluate(expected)
        #expect(found.tokenIDs == expected.tokenIDs)
        #expect(abs(found.meanNLL - expected.meanNLL) <= 2e-4 * expected.meanNLL)
        try #require(found.lastLogits.count == expected.lastLogits.count)
        let worst = zip(found.lastLogits, expected.lastLogits).map { abs($0 - $1) }.max() ?? 0
        #expect(worst <= 2e-3)
        #expect(found.greedy == expected.greedy)
    }
}
