internal import CBlyanMath
internal import Foundation

/// Reads a Hugging Face `config.json`: every field that changes the arithmetic is understood or refused by name.
package struct HuggingFaceConfig {
    /// The families that are known, by `model_type`.
    package static let known = [
        "llama", "mistral", "mixtral", "olmoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    ]

    /// One of ``known``.
    package let family: String
    /// The arithmetic.
    package let config: ModelConfig
    /// The projections that have a bias, by the layout's names.
    package let biases: Set<String>
    private var reader: FieldReader

    /// Reads a file.
    ///
    /// - Throws: ``ModelError`` naming the field that is missing, wrong, unknown or not computed by this build.
    package init(path: String) throws(ModelError) {
        guard let fields = try JSONDocument(file: path).object else {
            throw ModelError("\(path) is not a JSON object")
        }
        var reader = FieldReader(path: path, fields: fields)
        let type = try reader.text("model_type") ?? "nothing"
        guard Self.known.contains(type) else {
            throw ModelError(
                "\(path): the architecture \"\(type)\" is not known",
                hint: "known: \(Self.known.joined(separator: ", "))")
        }
        family = type
        config = try Self.read(type, &reader)
        try config.validate(of: path)
        biases = try Self.biases(type, &reader)
        self.reader = reader
        try self.reader.finish(neutral: Self.neutral(config, biases))
    }

    /// Fields that a family does not read but files of it have, beside the value that says what is computed without them.
    private static func neutral(
        _ config: ModelConfig, _ biases: Set<String>
    ) -> [String: JSONDocument] {
        [
            "attention_bias": .bool(biases.contains("o_bias")),
            "attention_multiplier": .number("\(1 / Double(config.headSize).squareRoot())"),
            "qkv_bias": .bool(biases.contains("q_bias")),
            "shared_expert_intermediate_size": .number("0"),
            "use_qk_norm": .bool(config.queryKeyNorm != .none),
            "use_sliding_window": .bool(config.layers.contains { $0.slidingWindow != nil }),
        ]
    }

    private static func read(_ family: String, _ reader: inout FieldReader) throws(ModelError)
        -> ModelConfig
    {
        let hidden = try reader.positive("hidden_size")
        let heads = try reader.positive("num_attention_heads")
        // Elsewhere the library's default is a number of its own: such a file must say it. Null is no number in both MoEs of Qwen.
        let isPerHead =
            ["llama", "olmoe"].contains(family)
            || ["mistral", "mixtral", "qwen2", "qwen3"].contains(family)
                && reader.isNull("num_key_value_heads")
        let keyValueHeads = try reader.positive(
            "num_key_value_heads", default: isPerHead ? heads : nil)
        let layers = try reader.positive("num_hidden_layers")
        guard layers <= ModelConfig.layerLimit else {
            throw reader.bad("num_hidden_layers", "\(layers) exceeds \(ModelConfig.layerLimit)")
        }
        guard heads % keyValueHeads == 0 else {
            throw reader.bad(
                "num_key_value_heads", "\(keyValueHeads) does not divide \(heads) heads")
        }
        let defaultHead = family == "qwen3" ? 128 : hidden / heads
        let headSize = try reader.positive("head_dim", default: defaultHead)
        guard headSize % 2 == 0, headSize <= 1024 else {
            throw reader.bad("head_dim", "\(headSize) is odd or over 1024")
        }
        let activation = try reader.text("hidden_act") ?? "silu"
        guard ["silu", "swish"].contains(activation) else {
            throw reader.unsupported("hidden_act", "\"\(activation)\"", "\"silu\"")
        }
        let dense = try reader.positive("intermediate_size", default: 0)
        let experts = try mixture(family, &reader, dense: dense, layers: layers)
        let usualPositions = [
            "llama": 2048, "mistral": 131_072, "mixtral": 131_072, "olmoe": 4096,
        ]
        let positions = try reader.positive(
            "max_position_embeddings", default: usualPositions[family] ?? 32_768)
        let windows = try windows(family, &reader, layers: layers)
        for (i, window) in windows.enumerated() { experts.layers[i].slidingWindow = window }
        if try reader.flag("mlp_bias", default: false) {
            throw reader.unsupported("mlp_bias", "true", "false")
        }
        return ModelConfig(
            architecture: family, vocabularySize: try reader.positive("vocab_size"),
            hiddenSize: hidden,
            headCount: heads, keyValueHeadCount: keyValueHeads, headSize: headSize,
            normEpsilon: Float(
                try reader.number(
                    "rms_norm_eps", default: ["mixtral", "olmoe"].contains(family) ? 1e-5 : 1e-6)),
            maximumPositions: positions,
            rope: try rope(family, &reader, positions: positions),
            queryKeyNorm: family == "olmoe" ? .whole : family.hasPrefix("qwen3") ? .perHead : .none,
            queryKeyValueClip: family == "olmoe" && reader.has("clip_qkv")
                ? Float(try reader.number("clip_qkv", default: 0)) : nil,
            tiedEmbeddings: try reader.flag("tie_word_embeddings", default: false),
            expertsPerToken: experts.perToken, normalisesExpertWeights: experts.normalises,
            layers: experts.layers)
    }

    private static func biases(
        _ family: String, _ reader: inout FieldReader
    ) throws(ModelError) -> Set<String> {
        let inputs: Set = ["q_bias", "k_bias", "v_bias"]
        switch family {
        case "qwen2": return inputs
        case "qwen2_moe": return try reader.flag("qkv_bias", default: true) ? inputs : []
        case "mistral", "mixtral": return []
        default:
            let isThere = try reader.flag("attention_bias", default: false)
            return isThere ? inputs.union(["o_bias"]) : []
        }
    }

    private final class Mixture {
        var layers: [ModelConfig.Layer]
        let perToken: Int
        let normalises: Bool

        init(layers: [ModelConfig.Layer], perToken: Int, normalises: Bool) {
            self.layers = layers
            self.perToken = perToken
            self.normalises = normalises
        }
    }

    private static func mixture(
        _ family: String, _ reader: inout FieldReader, dense: Int, layers: Int
    ) throws(ModelError) -> Mixture {
        func checkedDense(_ reader: FieldReader) throws(ModelError) -> Int {
            guard dense > 0 else { throw ModelError("\(reader.path) lacks intermediate_size") }
            return dense
        }
        guard ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"].contains(family) else {
            let layer = ModelConfig.Layer(
                expertCount: 0, intermediateSize: try checkedDense(reader))
            return Mixture(
                layers: Array(repeating: layer, count: layers), perToken: 1, normalises: false)
        }
        let defaults = [
            "mixtral": (8, 2), "olmoe": (64, 8), "qwen2_moe": (60, 4), "qwen3_moe": (128, 8),
        ]
        // Some versions write the number of experts under both names.
        let names = ["num_experts", "num_local_experts"].filter(reader.has)
        var count = defaults[family]?.0 ?? 0
        for (i, name) in names.enumerated() {
            let value = try reader.positive(name)
            guard i == 0 || value == count else {
                throw reader.bad(name, "\(value), but \(names[0]) is \(count)")
            }
            count = value
        }
        let perToken = try reader.positive("num_experts_per_tok", default: defaults[family]?.1 ?? 0)
        guard perToken <= count, count <= 65_536 else {
            throw reader.bad("num_experts_per_tok", "\(perToken) of \(count) experts")
        }
        let isQwen = family.hasPrefix("qwen")
        let width = isQwen ? try reader.positive("moe_intermediate_size") : try checkedDense(reader)
        let shared =
            family == "qwen2_moe" ? try reader.positive("shared_expert_intermediate_size") : 0
        let step = isQwen ? try reader.positive("decoder_sparse_step", default: 1) : 1
        let denseLayers = try Set((reader.list("mlp_only_layers") ?? []).compactMap(\.int))
        let normalises =
            family == "mixtral" ? true : try reader.flag("norm_topk_prob", default: false)
        var all: [ModelConfig.Layer] = []
        for i in 0..<layers {
            let isDense = denseLayers.contains(i) || (i + 1) % step != 0
            all.append(
                isDense
                    ? ModelConfig.Layer(expertCount: 0, intermediateSize: try checkedDense(reader))
                    : ModelConfig.Layer(
                        expertCount: count, intermediateSize: width, sharedIntermediateSize: shared)
            )
        }
        return Mixture(layers: all, perToken: perToken, normalises: normalises)
    }

    /// Which layers see only a window: each family has its own switches.
    private static func windows(
        _ family: String, _ reader: inout FieldReader, layers: Int
    ) throws(ModelError) -> [Int?] {
        let isQwen = family.hasPrefix("qwen")
        let reads = family != "llama" && family != "olmoe"
        let uses = isQwen ? try reader.flag("use_sliding_window", default: false) : reads
        // Absence is the library's 4096, null is no window; 0 would be one that hides every position.
        let absent = family == "mixtral" || reader.isNull("sliding_window") ? 0 : 4096
        let given = uses ? try reader.positive("sliding_window", default: absent) : 0
        _ = reader.take("sliding_window")
        let window = given == 0 ? nil : given
        guard family != "qwen2_moe" || !uses || window != nil else {
            throw reader.bad(
                "sliding_window", "is null beside use_sliding_window, expected a number")
        }
        let types = try reader.list("layer_types")?.map { $0.string ?? "" }
        if let types {
            guard types.count == layers else {
                throw reader.bad("layer_types", "\(types.count) entries for \(layers) layers")
            }
            for type in types where type != "full_attention" && type != "sliding_attention" {
                throw reader.unsupported(
                    "layer_types", "\"\(type)\"", "\"full_attention\" or \"sliding_attention\"")
            }
        }
        if let types, types.contains("sliding_attention"), reads, window == nil {
            throw reader.bad("layer_types", "sliding_attention without sliding_window")
        }
        guard let window else {
            // Without a window it says nothing.
            _ = reader.take("max_window_layers")
            return Array(repeating: nil, count: layers)
        }
        let first = isQwen ? try reader.natural("max_window_layers", default: 28) : 0
        if let types {
            let all = types.allSatisfy { $0 == "sliding_attention" }
            guard all || ["qwen2", "qwen2_moe", "qwen3"].contains(family) else {
                throw reader.unsupported("layer_types", "mixed", "sliding_attention in \(family)")
            }
            return types.map { $0 == "sliding_attention" ? window : nil }
        }
        return (0..<layers).map { i in
            let isWindowed: Bool
            switch family {
            case "qwen2", "qwen3": isWindowed = i >= first
            case "qwen2_moe": isWindowed = i % 2 == 0 && i < first
            default: isWindowed = true
            }
            return isWindowed ? window : nil
        }
    }

    private static func rope(
        _ family: String, _ reader: inout FieldReader, positions: Int
    ) throws(ModelError) -> ModelConfig.RoPE {
        var theta = try reader.number("rope_theta", default: family == "mixtral" ? 1e6 : 1e4)
        var fields: [String: JSONDocument] = [:]
        for key in ["rope_scaling", "rope_parameters"] {
            guard let value = reader.take(key) else { continue }
            guard let members = value.object else { throw reader.bad(key, "is not an object") }
            // The older spelling wins where both are given, as in transformers.
            if fields.isEmpty { fields = members }
        }
        var scaling = FieldReader(path: "\(reader.path): rope_parameters", fields: fields)
        theta = try scaling.number("rope_theta", default: theta)
        let partial = try scaling.number(
            "partial_rotary_factor", default: reader.number("partial_rotary_factor", default: 1))
        guard partial == 1 else {
            throw reader.unsupported("partial_rotary_factor", "\(partial)", "1")
        }
        let (new, old) = (try scaling.text("rope_type"), try scaling.text("type"))
        let type = new ?? old ?? "default"
        let result: ModelConfig.RoPE.Scaling
        switch type {
        case "default": result = .none
        case "linear":
            _ = scaling.take("original_max_position_embeddings")
            result = .linear(factor: Float(try scaling.above0("factor")))
        case "llama3":
            result = .llama3(
                factor: Float(try scaling.above0("factor")),
                lowFrequencyFactor: Float(try scaling.above0("low_freq_factor")),
                highFrequencyFactor: Float(try scaling.above0("high_freq_factor")),
                originalPositions: try scaling.positive(
                    "original_max_position_embeddings", default: positions))
        case "yarn": result = try yarn(&scaling, positions: positions)
        default:
            throw reader.unsupported(
                "rope_type", "\"\(type)\"", "\"default\", \"linear\", \"llama3\" or \"yarn\"")
        }
        try scaling.finish()
        guard theta > 0, theta.isFinite else {
            throw reader.bad("rope_theta", "\(theta) is not above 0")
        }
        return .init(theta: Float(theta), scaling: result)
    }

    /// As `_compute_yarn_parameters` of transformers resolves the optional fields.
    private static func yarn(
        _ scaling: inout FieldReader, positions: Int
    ) throws(ModelError) -> ModelConfig.RoPE.Scaling {
        let original = try scaling.positive("original_max_position_embeddings", default: positions)
        let factor =
            scaling.isNull("factor")
            ? Double(positions) / Double(original) : try scaling.above0("factor")
        guard try scaling.flag("finetuned", default: true) else {
            throw scaling.unsupported("finetuned", "false", "true")
        }
        let mscale = scaling.has("mscale") ? try scaling.number("mscale", default: 1) : nil
        let mscaleAll =
            scaling.has("mscale_all_dim") ? try scaling.number("mscale_all_dim", default: 1) : nil
        func magnitude(_ scale: Double, _ m: Double) -> Double {
            scale <= 1 ? 1 : 0.1 * m * blyan_math_log(scale) + 1
        }
        let attention: Double
        if scaling.has("attention_factor") {
            attention = try scaling.above0("attention_factor")
        } else if let mscale, let mscaleAll, mscale != 0, mscaleAll != 0 {
            attention = magnitude(factor, mscale) / magnitude(factor, mscaleAll)
        } else {
            attention = magnitude(factor, 1)
        }
        /// 0 stands for the default, as does absence.
        func beta(_ key: String, default usual: Double) throws(ModelError) -> Float {
            let value = try scaling.number(key, default: usual)
            guard value >= 0 else { throw scaling.bad(key, "\(value) is below 0") }
            return Float(value == 0 ? usual : value)
        }
        return .yarn(
            factor: Float(factor), originalPositions: original,
            betaFast: try beta("beta_fast", default: 32),
            betaSlow: try beta("beta_slow", default: 1),
            attentionFactor: Float(attention), truncate: try scaling.flag("truncate", default: true)
        )
    }
}
