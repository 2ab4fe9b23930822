import BlyanModel
import Testing

@Suite struct PartLayoutTests {
    @Test func namesEveryPartOfASmallMixture() {
        let config = ModelConfig(
            architecture: "mixtral", vocabularySize: 8, hiddenSize: 4, headCount: 2,
            keyValueHeadCount: 1, headSize: 2, normEpsilon: 1e-5, maximumPositions: 16,
            rope: .init(theta: 10000), queryKeyNorm: .none, queryKeyValueClip: nil,
            tiedEmbeddings: false, expertsPerToken: 1, normalisesExpertWeights: true,
            layers: [.init(expertCount: 2, intermediateSize: 6)])
        #expect(
            config.parts.map(\.name) == [
                "embedding", "layer0.attention", "layer0.router", "layer0.expert0",
                "layer0.expert1", "norm", "head",
            ])
    }
}
