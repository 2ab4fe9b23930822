import BlyanModel
import Foundation
import Testing

/// `config.json` as models on the Hub have it: accepted as the transformers library reads it, or refused by name.
@Suite struct HuggingFaceConfigTests {
    private func read(_ text: String) throws -> HuggingFaceConfig {
        let url = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-config-\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: url) }
        try Data(text.utf8).write(to: url)
        return try HuggingFaceConfig(path: url.path)
    }

    /// A published model's file and what is to be read from it.
    struct Published: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let file: String
        let heads: [Int]
        let layers: Int
        let experts: [Int]
        let rope: ModelConfig.RoPE
        var window: Int?
        var norm: ModelConfig.QueryKeyNorm = .none
        var normalises = false
        var biases: Set<String> = []
        var tied = false
    }

    static let published: [Published] = [
        Published(
            testDescription: "Mixtral-8x7B-v0.1", file: mixtral, heads: [32, 8, 128], layers: 32,
            experts: [8, 2, 14336, 0], rope: .init(theta: 1e6), normalises: true),
        Published(
            testDescription: "Mistral-7B-v0.1", file: mistral("4096", theta: "10000.0", 32000),
            heads: [32, 8, 128], layers: 32, experts: [0, 1, 14336, 0], rope: .init(theta: 1e4),
            window: 4096),
        Published(
            testDescription: "Mistral-7B-v0.3", file: mistral("null", theta: "1000000.0", 32768),
            heads: [32, 8, 128], layers: 32, experts: [0, 1, 14336, 0], rope: .init(theta: 1e6)),
        Published(
            testDescription: "Llama-2-7b-hf", file: llama2, heads: [32, 32, 128], layers: 32,
            experts: [0, 1, 11008, 0], rope: .init(theta: 1e4)),
        Published(
            testDescription: "Llama-3.1-8B-Instruct", file: llama31, heads: [32, 8, 128],
            layers: 32, experts: [0, 1, 14336, 0],
            rope: .init(
                theta: 5e5,
                scaling: .llama3(
                    factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4,
                    originalPositions: 8192))),
        Published(
            testDescription: "SmolLM2-135M-Instruct", file: smollm2, heads: [9, 3, 64],
            layers: 30, experts: [0, 1, 1536, 0], rope: .init(theta: 1e5), tied: true),
        Published(
            testDescription: "OLMoE-1B-7B-0924", file: olmoe, heads: [16, 16, 128], layers: 16,
            experts: [64, 8, 1024, 0], rope: .init(theta: 1e4), norm: .whole),
        Published(
            testDescription: "Qwen1.5-MoE-A2.7B", file: qwen15, heads: [16, 16, 128], layers: 24,
            experts: [60, 4, 1408, 5632], rope: .init(theta: 1e6),
            biases: ["q_bias", "k_bias", "v_bias"]),
        Published(
            testDescription: "Qwen2-57B-A14B-Instruct", file: qwen2, heads: [28, 4, 128],
            layers: 28, experts: [64, 8, 2560, 20480], rope: .init(theta: 1e6),
            biases: ["q_bias", "k_bias", "v_bias"]),
        Published(
            testDescription: "Qwen3-30B-A3B", file: qwen3, heads: [32, 4, 128], layers: 48,
            experts: [128, 8, 768, 0], rope: .init(theta: 1e6), norm: .perHead, normalises: true),
    ]

    @Test(arguments: published)
    func isAccepted(_ model: Published) throws {
        let read = try read(model.file)
        let config = read.config
        #expect([config.headCount, config.keyValueHeadCount, config.headSize] == model.heads)
        #expect(config.layers.count == model.layers)
        for layer in config.layers {
            #expect(
                [
                    layer.expertCount, config.expertsPerToken, layer.intermediateSize,
                    layer.sharedIntermediateSize,
                ] == model.experts)
            #expect(layer.slidingWindow == model.window)
        }
        #expect(config.rope == model.rope)
        #expect(config.queryKeyNorm == model.norm)
        #expect(config.normalisesExpertWeights == model.normalises)
        #expect(config.tiedEmbeddings == model.tied)
        #expect(config.queryKeyValueClip == nil)
        #expect(read.biases == model.biases)
    }

    /// Fields that change the arithmetic and are not computed, and one that no build knows.
    @Test(arguments: [
        (#""partial_rotary_factor": 0.5"#, "partial_rotary_factor"),
        (#""mlp_bias": true"#, "mlp_bias"),
        (#""rope_interleaved": true"#, "rope_interleaved"),
        (#""use_mrope": true"#, "use_mrope"),
        (#""attn_logit_softcapping": 50.0"#, "attn_logit_softcapping"),
        (#""embedding_multiplier": 12.0"#, "embedding_multiplier"),
        (#""logits_scaling": 8.0"#, "logits_scaling"),
        (#""residual_multiplier": 0.22"#, "residual_multiplier"),
        (#""no_rope_layers": [1, 0]"#, "no_rope_layers"),
        (#""quantization_config": {"bits": 4, "quant_method": "gptq"}"#, "quantization_config"),
        (#""scoring_func": "sigmoid""#, "scoring_func"),
        (#""n_group": 8"#, "n_group"),
        (#""routed_scaling_factor": 2.5"#, "routed_scaling_factor"),
        (#""rope_scaling": {"type": "dynamic", "factor": 2.0}"#, "dynamic"),
        (#""rope_scaling": {"rope_type": "linear", "factor": 2.0, "twist": 1}"#, "twist"),
        (#""rope_scaling": {"rope_type": "yarn"}"#, "factor"),
        (#""rope_scaling": {"rope_type": "linear", "factor": -2.0}"#, "factor"),
        (#""rope_scaling": 3"#, "rope_scaling"),
        (#""layer_types": ["sliding_attention"]"#, "layer_types"),
        (#""head_dim": 63"#, "head_dim"),
        (#""num_key_value_heads": 5"#, "num_key_value_heads"),
        (#""tie_word_embeddings": "yes""#, "tie_word_embeddings"),
        (#""num_hidden_layers": 1.5"#, "num_hidden_layers"),
        (#""num_hidden_layers": 99999999999"#, "num_hidden_layers"),
        (#""num_hidden_layers": 0"#, "num_hidden_layers"),
    ])
    func isRefused(_ field: String, _ name: String) throws {
        let text = edited(Self.smollm2, field)
        let error = try #require(throws: ModelError.self) { try read(text) }
        #expect("\(error)".contains(name), "\(error)")
    }

    /// The file with fields in place of its own.
    private func edited(_ text: String, _ fields: String...) -> String {
        let keys = fields.map { "\"\($0.split(separator: "\"")[0])\"" }
        let lines = text.split(separator: "\n").filter { line in
            !keys.contains(where: line.contains)
        }
        return (["{"] + fields.map { "  \($0)," } + lines.dropFirst()).joined(separator: "\n")
    }

    private static let files = [
        "llama": smollm2, "mistral": mistral("null", theta: "1000000.0", 32768),
        "mistral with a window": mistral("4096", theta: "10000.0", 32000), "mixtral": mixtral,
        "olmoe": olmoe, "qwen2_moe": qwen15, "qwen3_moe": qwen3,
        "qwen2": llama2.replacing(#""llama""#, with: #""qwen2""#),
    ]

    /// Fields that some files have and that change nothing, with the values of which that is true.
    @Test(arguments: [
        ("qwen3_moe", #""qkv_bias": false"#),
        ("qwen3_moe", #""shared_expert_intermediate_size": 0"#),
        ("qwen3_moe", #""use_qk_norm": true"#),
        ("olmoe", #""use_qk_norm": true"#),
        ("llama", #""use_qk_norm": false"#),
        ("mistral", #""attention_bias": false"#),
        ("mixtral", #""attention_bias": false"#),
        ("qwen2", #""attention_bias": false"#),
        ("qwen2_moe", #""attention_bias": false"#),
        ("qwen2", #""qkv_bias": true"#),
        ("llama", #""logit_scale": 1.0"#),
        ("llama", #""embedding_multiplier": 1"#),
        ("llama", #""residual_multiplier": 1.0"#),
        ("llama", #""attention_multiplier": 0.125"#),
        ("mistral", #""attention_multiplier": 0.08838834764831845"#),
        ("llama", #""use_sliding_window": false"#),
        ("llama", #""max_window_layers": 2"#),
        ("mistral with a window", #""use_sliding_window": true"#),
        ("mixtral", #""clip_qkv": null"#),
        ("llama", #""hidden_act": "swish""#),
        ("llama", #""neftune_noise_alpha": 5"#),
        ("llama", #""resid_dropout": 0.1"#),
        ("llama", #""hidden_dropout_prob": 0.1"#),
        ("llama", #""min_length": 0"#),
        ("llama", #""num_beams": 1"#),
        ("llama", #""output_scores": false"#),
        ("llama", #""no_repeat_ngram_size": 0"#),
        ("llama", #""model_max_length": 512"#),
        ("llama", #""tie_encoder_decoder": false"#),
        ("llama", #""is_causal": true"#),
        ("llama", #""pruned_heads": {}"#),
        ("llama", #""unsloth_fixed": true"#),
        ("llama", #""unsloth_anything": "x""#),
        ("mixtral", #""sliding_window": null"#),
    ])
    func saysNothingNew(_ file: String, _ field: String) throws {
        let text = try #require(Self.files[file])
        let (with, without) = (try read(edited(text, field)), try read(text))
        #expect(with.config == without.config)
        #expect(with.biases == without.biases)
    }

    /// The same fields with other values, and fields that the family does not read.
    @Test(arguments: [
        ("llama", #""clip_qkv": 8.0"#), ("mixtral", #""clip_qkv": 8.0"#),
        ("qwen3_moe", #""qkv_bias": true"#),
        ("qwen3_moe", #""shared_expert_intermediate_size": 64"#),
        ("qwen3_moe", #""use_qk_norm": false"#), ("llama", #""use_qk_norm": true"#),
        ("mistral", #""attention_bias": true"#), ("qwen2", #""attention_bias": true"#),
        ("llama", #""logit_scale": 0.5"#), ("llama", #""logit_scale": "1""#),
        ("llama", #""attention_multiplier": 1.0"#),
        ("llama", #""is_causal": false"#), ("llama", #""tie_encoder_decoder": true"#),
        ("llama", #""pruned_heads": {"0": [1]}"#), ("llama", #""use_sliding_window": true"#),
        ("mistral with a window", #""use_sliding_window": false"#),
        ("mistral with a window", #""max_window_layers": 2"#),
        ("mistral", #""sliding_window": 0"#), ("mixtral", #""sliding_window": 0"#),
        ("llama", #""hidden_act": "gelu""#),
        ("qwen2_moe", #""num_key_value_heads": null"#),
        ("qwen3_moe", #""num_key_value_heads": null"#),
    ])
    func isRefusedByName(_ file: String, _ field: String) throws {
        let text = edited(try #require(Self.files[file]), field)
        let error = try #require(throws: ModelError.self) { try read(text) }
        #expect("\(error)".contains(field.split(separator: "\"")[0]), "\(error)")
    }

    @Test(arguments: ["mistral", "mixtral", "qwen2", "llama"])
    func keyValueHeadsOfNullAreAllHeads(_ file: String) throws {
        let config = try read(
            edited(try #require(Self.files[file]), #""num_key_value_heads": null"#)
        ).config
        #expect(config.keyValueHeadCount == config.headCount)
    }

    @Test func onlyOLMoEClips() throws {
        #expect(try read(edited(Self.olmoe, #""clip_qkv": 8"#)).config.queryKeyValueClip == 8)
    }

    /// As `_compute_yarn_parameters` and the validation of transformers have it.
    @Test func ropeFieldsThatMeanTheDefault() throws {
        func rope(_ fields: String) throws -> ModelConfig.RoPE {
            try read(edited(Self.smollm2, "\"rope_scaling\": {\(fields)}")).config.rope
        }
        let yarn = #""type": "yarn", "original_max_position_embeddings": 2048, "factor": "#
        let plain = try rope(yarn + "4")
        #expect(try rope(yarn + #"4, "beta_fast": 0, "beta_slow": 0"#) == plain)
        #expect(try rope(yarn + #"4, "finetuned": true"#) == plain)
        // 8192 positions of 2048.
        #expect(try rope(yarn + "null") == plain)
        for wrong in [#"4, "beta_fast": -1"#, #"4, "beta_slow": -0.5"#, #"4, "finetuned": false"#] {
            let error = try #require(throws: ModelError.self) { try rope(yarn + wrong) }
            #expect("\(error)".contains(wrong.split(separator: "\"")[1]), "\(error)")
        }
        let linear = #""type": "linear", "factor": 2"#
        #expect(
            try rope(linear + #", "original_max_position_embeddings": 64"#) == rope(linear))
    }

    @Test(arguments: ["model_type", "hidden_size", "num_hidden_layers", "vocab_size"])
    func aMissingFieldIsNamed(_ key: String) throws {
        let text = Self.smollm2.split(separator: "\n").filter { !$0.contains("\"\(key)\"") }
            .joined(separator: "\n").replacing(",\n}", with: "\n}")
        let error = try #require(throws: ModelError.self) { try read(text) }
        #expect("\(error)".contains(key == "model_type" ? "known: llama" : key), "\(error)")
    }

    @Test func eachFamilyHasItsOwnWindows() throws {
        func windows(_ text: String, _ edits: [(String, String)]) throws -> [Int?] {
            let text = edits.reduce(text) { $0.replacing($1.0, with: $1.1) }
            return try read(text).config.layers.map(\.slidingWindow)
        }
        let on = (#""use_sliding_window": false"#, #""use_sliding_window": true"#)
        // Qwen2-MoE: even layers below max_window_layers (21).
        #expect(
            try windows(Self.qwen15, [on])
                == (0..<24).map { $0 % 2 == 0 && $0 < 21 ? 32768 : nil })
        // Qwen3-MoE has no max_window_layers.
        let window = (#""sliding_window": null"#, #""sliding_window": 512"#)
        #expect(
            try windows(Self.qwen3, [on, window]) == Array(repeating: 512, count: 48))
        // A window that is switched on and has no length is 4096 long, one of null is none.
        let gone = (#"  "sliding_window": null,"# + "\n", "")
        #expect(try windows(Self.qwen3, [on, gone]) == Array(repeating: 4096, count: 48))
        #expect(try windows(Self.qwen3, [on]) == Array(repeating: nil, count: 48))
        let none = ("\"sliding_window\": 32768", "\"sliding_window\": null")
        #expect(throws: ModelError.self) { try windows(Self.qwen15, [on, none]) }
        // Mistral: absent means 4096, null means none.
        let absent = (#"  "sliding_window": 4096,"# + "\n", "")
        let v1 = Self.mistral("4096", theta: "10000.0", 32000)
        #expect(try windows(v1, [absent]) == Array(repeating: 4096, count: 32))
        // 0 is how a window that is switched off is written.
        #expect(
            try windows(Self.qwen15, [("\"sliding_window\": 32768", "\"sliding_window\": 0")])
                == Array(repeating: nil, count: 24))
    }

    @Test func denseLayersOfAMixture() throws {
        let text = Self.qwen15.replacing(
            #""decoder_sparse_step": 1"#, with: #""decoder_sparse_step": 2, "mlp_only_layers": [3]"#
        )
        let layers = try read(text).config.layers
        #expect(
            layers.map(\.expertCount) == (0..<24).map { $0 % 2 == 1 && $0 != 3 ? 60 : 0 })
        #expect(layers[0].intermediateSize == 5632)
        #expect(layers[1].intermediateSize == 1408)
        // Without any mixture the experts of a token are a number that nobody asks for.
        let dense = Self.qwen15.replacing(
            #""decoder_sparse_step": 1"#, with: #""decoder_sparse_step": 100"#)
        #expect(try read(dense).config.layers.allSatisfy { $0.expertCount == 0 })
    }

    @Test func bothNamesForTheNumberOfExperts() throws {
        let both = Self.qwen3.replacing(
            #""num_experts": 128"#, with: #""num_experts": 128, "num_local_experts": 128"#)
        #expect(try read(both).config.layers[0].expertCount == 128)
        let other = Self.qwen3.replacing(
            #""num_experts": 128"#, with: #""num_experts": 128, "num_local_experts": 64"#)
        let error = try #require(throws: ModelError.self) { try read(other) }
        #expect("\(error)".contains("num_local_experts"))
    }
}
