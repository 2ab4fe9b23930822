internal import CBlyanMath
internal import Foundation

/// Takes the `llama.` fields out of a GGUF file's metadata; what nobody took and nobody knows to be inert is refused.
struct GGUFConfig {
    private let gguf: GGUFFile
    private let path: String
    private var fields: [String: GGUFValue] = [:]

    /// Fields that do not change what inference computes.
    private static let inert: Set<String> = [
        "vocab_size", "attention.layer_norm_epsilon", "rope.scaling.finetuned",
        "rope.scaling.original_context_length", "pooling_type",
    ]
    /// Fields that change it unless they have one of these values.
    private static let neutral: [String: [Double]] = [
        "logit_scale": [0, 1], "residual_scale": [0, 1], "embedding_scale": [0, 1],
        "attention.scale": [0], "attention.causal": [1], "attention.clamp_kqv": [0],
        "attn_logit_softcapping": [0], "final_logit_softcapping": [0],
        "use_parallel_residual": [0], "expert_weights_scale": [0, 1], "expert_weights_norm": [1],
        "expert_gating_func": [0, 1], "expert_shared_count": [0], "expert_group_count": [0, 1],
        "expert_group_used_count": [0, 1], "interleave_moe_layer_step": [0, 1],
        "attention.max_alibi_bias": [0], "leading_dense_block_count": [0],
        "rope.scaling.attn_factor": [1], "rope.scaling.yarn_ext_factor": [1],
        "rope.scaling.yarn_log_multiplier": [0], "rope.scaling.yarn_attn_factor": [1],
    ]

    /// Reads the arithmetic that a file describes.
    ///
    /// - Throws: ``ModelError`` naming the field that is missing, wrong, unknown or not computed by this build.
    static func read(_ gguf: GGUFFile) throws(ModelError) -> ModelConfig {
        var reader = try GGUFConfig(gguf)
        let config = try reader.config()
        try reader.finish()
        return config
    }

    private init(_ gguf: GGUFFile) throws(ModelError) {
        self.gguf = gguf
        path = gguf.file.path
        guard case .string(let architecture) = gguf.metadata["general.architecture"] else {
            throw ModelError("\(path) lacks general.architecture")
        }
        guard architecture == "llama" else {
            throw ModelError(
                "\(path): the GGUF architecture \"\(architecture)\" is not known",
                hint: "known: llama")
        }
        if case .string(let type) = gguf.metadata["general.type"], type != "model" {
            throw ModelError("\(path): general.type is \"\(type)\", expected \"model\"")
        }
        if case .int(let count) = gguf.metadata["split.count"], count > 1 {
            throw ModelError(
                "\(path): split.count is \(count), this build reads only whole GGUF files",
                hint: "merge the parts first")
        }
        for (key, value) in gguf.metadata where key.hasPrefix("llama.") {
            fields[String(key.dropFirst("llama.".count))] = value
        }
    }

    private func bad(_ key: String, _ what: String) -> ModelError {
        ModelError("\(path): llama.\(key) \(what)")
    }

    private mutating func positive(_ key: String, default value: Int? = nil) throws(ModelError)
        -> Int
    {
        guard let field = fields.removeValue(forKey: key) else {
            guard let value else { throw ModelError("\(path) lacks llama.\(key)") }
            return value
        }
        guard case .int(let number) = field, number > 0, number <= 1 << 31 else {
            throw bad(key, "is not a whole number from 1 to 2^31")
        }
        return number
    }

    /// A number that may be written once for each layer; layers that differ are not computed.
    private mutating func perLayer(
        _ key: String, layers: Int, default value: Int? = nil
    ) throws(ModelError) -> Int {
        if case .ints(let all) = fields[key] {
            guard all.count == layers, Set(all).count == 1 else {
                throw bad(key, "is \(all.prefix(8)), this build computes \(layers) equal layers")
            }
            fields[key] = .int(all[0])
        }
        return try positive(key, default: value)
    }

    private mutating func number(_ key: String) throws(ModelError) -> Double? {
        switch fields.removeValue(forKey: key) {
        case nil: return nil
        case .int(let value): return Double(value)
        case .double(let value) where value.isFinite: return value
        default: throw bad(key, "is not a finite number")
        }
    }

    private mutating func config() throws(ModelError) -> ModelConfig {
        let hidden = try positive("embedding_length")
        let layers = try positive("block_count")
        guard layers <= ModelConfig.layerLimit else {
            throw bad("block_count", "is \(layers), at most \(ModelConfig.layerLimit)")
        }
        let heads = try perLayer("attention.head_count", layers: layers)
        let keyValueHeads = try perLayer(
            "attention.head_count_kv", layers: layers, default: heads)
        let headSize = try positive("attention.key_length", default: max(1, hidden / heads))
        guard heads % keyValueHeads == 0, headSize % 2 == 0 else {
            throw ModelError(
                "\(path): \(heads) heads, \(keyValueHeads) key/value heads of \(headSize) cannot be"
            )
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            let value = try positive(key, default: headSize)
            guard value == headSize else {
                throw bad(key, "is \(value), expected the head size \(headSize)")
            }
        }
        let experts = Int(exactly: try number("expert_count") ?? 0) ?? -1
        let perToken = experts > 0 ? try positive("expert_used_count") : 1
        if experts == 0 { fields["expert_used_count"] = nil }
        guard (0...65_536).contains(experts), perToken <= max(1, experts) else {
            throw bad("expert_used_count", "is \(perToken) of \(experts) experts")
        }
        let width = try perLayer("feed_forward_length", layers: layers)
        guard try positive("expert_feed_forward_length", default: width) == width else {
            throw bad("expert_feed_forward_length", "differs from feed_forward_length")
        }
        let window = Int(exactly: try number("attention.sliding_window") ?? 0) ?? -1
        guard window >= 0 else { throw bad("attention.sliding_window", "is not a whole number") }
        let layer = ModelConfig.Layer(
            expertCount: experts, intermediateSize: width, slidingWindow: window > 0 ? window : nil)
        guard let epsilon = try number("attention.layer_norm_rms_epsilon"), epsilon >= 0 else {
            throw bad("attention.layer_norm_rms_epsilon", "is absent or negative")
        }
        guard let vocabulary = gguf.tensors["token_embd.weight"]?.dimensions.last else {
            throw ModelError("\(path) lacks tensor token_embd.weight")
        }
        if case .string(let layout) = fields.removeValue(forKey: "tensor_data_layout"),
            layout != "Meta AI original pth"
        {
            throw bad("tensor_data_layout", "is \"\(layout)\", expected \"Meta AI original pth\"")
        }
        let positions = try positive("context_length", default: 2048)
        return ModelConfig(
            architecture: experts > 0 ? "mixtral" : "llama", vocabularySize: vocabulary,
            hiddenSize: hidden, headCount: heads, keyValueHeadCount: keyValueHeads,
            headSize: headSize, normEpsilon: Float(epsilon), maximumPositions: positions,
            rope: try rope(headSize: headSize, positions: positions), queryKeyNorm: .none,
            queryKeyValueClip: nil, tiedEmbeddings: gguf.tensors["output.weight"] == nil,
            expertsPerToken: perToken, normalisesExpertWeights: true,
            layers: Array(repeating: layer, count: layers))
    }

    /// As llama.cpp resolves it: a factor without a type is linear, and there is an older name for it.
    private mutating func rope(headSize: Int, positions: Int) throws(ModelError) -> ModelConfig.RoPE
    {
        let theta = Float(try number("rope.freq_base") ?? 10_000)
        guard theta > 0, theta.isFinite else { throw bad("rope.freq_base", "is \(theta)") }
        let older = try number("rope.scale_linear") ?? 0
        let given = try number("rope.scaling.factor") ?? older
        let factor = given == 0 ? 1 : given
        guard factor > 0 else { throw bad("rope.scaling.factor", "is \(factor)") }
        var type = "linear"
        if let field = fields.removeValue(forKey: "rope.scaling.type") {
            guard case .string(let text) = field else {
                throw bad("rope.scaling.type", "is no text")
            }
            type = text
        }
        if let factors = try factors(headSize: headSize) {
            guard type == "none" || (type == "linear" && factor == 1) else {
                throw bad("rope.scaling.type", "is \"\(type)\" beside rope_freqs.weight")
            }
            return .init(theta: theta, scaling: .factors(factors))
        }
        switch type {
        case "none": return .init(theta: theta)
        case "linear":
            return .init(
                theta: theta, scaling: factor == 1 ? .none : .linear(factor: Float(factor)))
        case "yarn":
            return .init(theta: theta, scaling: try yarn(factor: factor, positions: positions))
        default:
            throw bad(
                "rope.scaling.type", "is \"\(type)\", this build computes none, linear and yarn")
        }
    }

    private mutating func yarn(factor: Double, positions: Int) throws(ModelError)
        -> ModelConfig.RoPE.Scaling
    {
        let attention = try number("rope.scaling.attn_factor") ?? 1
        return .yarn(
            factor: Float(factor),
            originalPositions: try positive(
                "rope.scaling.original_context_length", default: positions),
            betaFast: Float(try number("rope.scaling.yarn_beta_fast") ?? 32),
            betaSlow: Float(try number("rope.scaling.yarn_beta_slow") ?? 1),
            attentionFactor: Float(attention * (factor > 1 ? 1 + 0.1 * blyan_math_log(factor) : 1)),
            truncate: true)
    }

    /// What each pair's frequency is divided by, if a tensor says so (Llama 3.1).
    private func factors(headSize: Int) throws(ModelError) -> [Float]? {
        guard let factors = gguf.tensors["rope_freqs.weight"] else { return nil }
        guard factors.type == .f32, factors.dimensions == [headSize / 2] else {
            throw ModelError(
                "tensor rope_freqs.weight has \(factors.dimensions) of \(factors.type.name), expected [\(headSize / 2)] of F32"
            )
        }
        let values = (0..<headSize / 2).map { i in
            unsafe gguf.file.bytes.loadUnaligned(
                fromByteOffset: factors.range.lowerBound + 4 * i, as: Float.self)
        }
        guard values.allSatisfy({ $0 > 0 && $0.isFinite }) else {
            throw ModelError("tensor rope_freqs.weight has a factor that is not above 0")
        }
        return values
    }

    private func finish() throws(ModelError) {
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) where !Self.inert.contains(key) {
            let number: Double? =
                switch value {
                case .int(let value): Double(value)
                case .double(let value): value
                case .bool(let flag): flag ? 1 : 0
                default: nil
                }
            guard let allowed = Self.neutral[key] else {
                throw ModelError(
                    "\(path): the field llama.\(key) is not known to this build, and may change the arithmetic"
                )
            }
            guard let number, allowed.contains(number) else {
                let found = number.map { "\($0)" } ?? "no number"
                throw bad(key, "is \(found), which this build does not compute")
            }
        }
    }
}
