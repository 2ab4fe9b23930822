import BlyanModel
import Foundation
import Testing

/// What is read back from a chain is checked as what an importer read.
@Suite struct DocumentTests {
    private static let config = ModelConfig(
        architecture: "mixtral", vocabularySize: 16, hiddenSize: 8, headCount: 4,
        keyValueHeadCount: 2, headSize: 2, normEpsilon: 1e-5, maximumPositions: 64,
        rope: .init(theta: 1e4, scaling: .linear(factor: 2)), queryKeyNorm: .none,
        queryKeyValueClip: nil, tiedEmbeddings: true, expertsPerToken: 2,
        normalisesExpertWeights: true,
        layers: [
            .init(expertCount: 4, intermediateSize: 8), .init(expertCount: 0, intermediateSize: 8),
        ])

    private func decoded(
        _ config: ModelConfig, _ edit: (inout TokenizerDocument) -> Void = { _ in }
    ) throws -> MetaDocument {
        var tokenizer = TokenizerDocument(kind: .piecesBPE, pieces: ["a", "b"])
        edit(&tokenizer)
        let document = MetaDocument(
            name: "m", config: config, tokenizer: tokenizer, sources: [], payloadType: "t",
            quantisation: "")
        return try MetaDocument(decoding: document.encoded())
    }

    @Test func aGoodOneIsRead() throws {
        #expect(try decoded(Self.config).config == Self.config)
    }

    /// Each of these trapped when the model was run.
    @Test func absurdSizesAreRefused() {
        let sizes: [(WritableKeyPath<ModelConfig, Int>, Int)] = [
            (\.keyValueHeadCount, 0), (\.keyValueHeadCount, 3), (\.headCount, -4),
            (\.headCount, .max), (\.headSize, 3), (\.headSize, 0), (\.hiddenSize, .max),
            (\.vocabularySize, 0), (\.maximumPositions, -1), (\.expertsPerToken, 0),
            (\.expertsPerToken, 5), (\.layers[0].expertCount, .max),
            (\.layers[0].expertCount, -1), (\.layers[1].expertCount, 3),
            (\.layers[1].intermediateSize, 0), (\.layers[0].sharedIntermediateSize, -8),
        ]
        for (size, value) in sizes {
            var config = Self.config
            config[keyPath: size] = value
            let message = refusal { _ = try decoded(config) }
            #expect(message?.contains("the meta document of m") == true, "\(size) = \(value)")
        }
    }

    @Test func absurdNumbersAreRefused() {
        var config = Self.config
        for scaling in [
            ModelConfig.RoPE.Scaling.linear(factor: 0), .factors([1, 1]),
            .yarn(
                factor: 2, originalPositions: -1, betaFast: 32, betaSlow: 1, attentionFactor: 1,
                truncate: true),
        ] {
            config.rope.scaling = scaling
            #expect(throws: ModelError.self) { try decoded(config) }
        }
        config = Self.config
        config.layers[0].slidingWindow = 0
        #expect(throws: ModelError.self) { try decoded(config) }
        config = Self.config
        config.layers = []
        #expect(throws: ModelError.self) { try decoded(config) }
    }

    @Test func anAbsurdTokenizerIsRefused() {
        #expect(throws: ModelError.self) {
            try decoded(Self.config) { $0.normalizers = [.replace("", with: "x")] }
        }
        #expect(throws: ModelError.self) { try decoded(Self.config) { $0.prefix = [-1] } }
        #expect(throws: ModelError.self) { try decoded(Self.config) { $0.scores = [1] } }
        #expect(throws: ModelError.self) { try decoded(Self.config) { $0.unknown = 2 } }
    }
}
