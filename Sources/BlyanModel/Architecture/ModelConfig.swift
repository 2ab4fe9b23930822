/// The arithmetic of a decoder-only transformer: everything that changes a number, and nothing else.
///
/// It is stored as JSON in the meta block, so a node needs nothing but the chain. Importers fill it from
/// `config.json` or GGUF metadata; what they meet and cannot express here is an error there.
public struct ModelConfig: Codable, Sendable, Equatable {
    /// Where the checkpoint came from: "mixtral", "llama", "olmoe", "qwen2_moe", "qwen3_moe", "mistral", ...
    public var architecture: String
    /// Rows of the embedding and of the head.
    public var vocabularySize: Int
    /// Width of the residual stream.
    public var hiddenSize: Int
    /// Query heads.
    public var headCount: Int
    /// Key/value heads; divides ``headCount``.
    public var keyValueHeadCount: Int
    /// Width of a head.
    public var headSize: Int
    /// Added to the mean square in every RMSNorm.
    public var normEpsilon: Float
    /// Positions that the model was trained for.
    public var maximumPositions: Int
    /// Rotary position embedding.
    public var rope: RoPE
    /// RMSNorm on queries and keys before rotation.
    public var queryKeyNorm: QueryKeyNorm
    /// Queries, keys and values are clamped to ±this after projection, or nil.
    public var queryKeyValueClip: Float?
    /// Whether the head is the embedding matrix.
    public var tiedEmbeddings: Bool
    /// Experts that serve a token; 1 in a dense model.
    public var expertsPerToken: Int
    /// Whether the weights of the picked experts are divided by their sum.
    public var normalisesExpertWeights: Bool
    /// One entry a layer.
    public var layers: [Layer]

    /// One layer's shape.
    public struct Layer: Codable, Sendable, Equatable {
        /// Experts behind a router; 0 = a dense feed-forward, stored as `layerN.expert0`.
        public var expertCount: Int
        /// Rows of an expert's gate and up matrices.
        public var intermediateSize: Int
        /// Rows of the shared expert's gate and up, or 0.
        public var sharedIntermediateSize: Int
        /// Positions a query sees, itself included; nil = all.
        public var slidingWindow: Int?

        /// Makes a layer.
        public init(
            expertCount: Int, intermediateSize: Int, sharedIntermediateSize: Int = 0,
            slidingWindow: Int? = nil
        ) {
            self.expertCount = expertCount
            self.intermediateSize = intermediateSize
            self.sharedIntermediateSize = sharedIntermediateSize
            self.slidingWindow = slidingWindow
        }
    }

    /// RMSNorm of queries and keys.
    public enum QueryKeyNorm: String, Codable, Sendable {
        /// Not applied.
        case none
        /// Each head by itself (Qwen3).
        case perHead
        /// The whole projection (OLMoE).
        case whole
    }

    /// Rotary embedding: pairs (i, i + headSize / 2) as in the Hugging Face layout.
    public struct RoPE: Codable, Sendable, Equatable {
        /// Base of the frequencies.
        public var theta: Float
        /// How frequencies are stretched.
        public var scaling: Scaling

        /// Frequency scaling.
        public enum Scaling: Codable, Sendable, Equatable {
            /// As trained.
            case none
            /// All frequencies divided by `factor`.
            case linear(factor: Float)
            /// Llama 3.1: low frequencies divided, high ones kept, the middle interpolated.
            case llama3(
                factor: Float, lowFrequencyFactor: Float, highFrequencyFactor: Float,
                originalPositions: Int)
            /// Each pair's frequency divided by its factor (GGUF's `rope_freqs.weight`).
            case factors([Float])
            /// YaRN (arXiv 2309.00071).
            case yarn(
                factor: Float, originalPositions: Int, betaFast: Float, betaSlow: Float,
                attentionFactor: Float, truncate: Bool)
        }

        /// Makes a rotary embedding.
        public init(theta: Float, scaling: Scaling = .none) {
            self.theta = theta
            self.scaling = scaling
        }
    }

    /// Makes a configuration.
    public init(
        architecture: String, vocabularySize: Int, hiddenSize: Int, headCount: Int,
        keyValueHeadCount: Int, headSize: Int, normEpsilon: Float, maximumPositions: Int,
        rope: RoPE, queryKeyNorm: QueryKeyNorm, queryKeyValueClip: Float?, tiedEmbeddings: Bool,
        expertsPerToken: Int, normalisesExpertWeights: Bool, layers: [Layer]
    ) {
        self.architecture = architecture
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.headCount = headCount
        self.keyValueHeadCount = keyValueHeadCount
        self.headSize = headSize
        self.normEpsilon = normEpsilon
        self.maximumPositions = maximumPositions
        self.rope = rope
        self.queryKeyNorm = queryKeyNorm
        self.queryKeyValueClip = queryKeyValueClip
        self.tiedEmbeddings = tiedEmbeddings
        self.expertsPerToken = expertsPerToken
        self.normalisesExpertWeights = normalisesExpertWeights
        self.layers = layers
    }
}
