/// Takes fields out of a configuration; what nobody took and nobody knows to be inert is refused.
struct FieldReader {
    let path: String
    private var fields: [String: JSONDocument]
    private let nulls: Set<String>

    /// Fields that do not change what inference computes.
    private static let inert: Set<String> = descriptive.union(training).union(generation)

    /// What a file says about itself, its labels and how to run it.
    private static let descriptive: Set<String> = [
        "architectures", "transformers_version", "_name_or_path", "name_or_path", "auto_map",
        "model_name", "is_llama_config", "transformers.js_config", "tokenizer_class",
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id",
        "unk_token_id", "id2label", "label2id", "problem_type", "task_specific_params",
        "finetuning_task", "dtype", "torch_dtype", "use_bfloat16", "torchscript", "return_dict",
        "use_flash_attn", "_flash_attn_2_enabled", "_attn_implementation", "attn_implementation",
        "_attn_implementation_autoset", "pretraining_tp", "chunk_size_feed_forward", "is_decoder",
        "output_router_logits", "model_max_length", "max_sequence_length",
    ]
    /// What only training reads.
    private static let training: Set<String> = [
        "attention_dropout", "hidden_dropout", "hidden_dropout_prob", "dropout", "resid_dropout",
        "residual_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "neftune_noise_alpha",
        "initializer_range", "router_aux_loss_coef", "router_jitter_noise",
        "gradient_checkpointing",
    ]
    /// The fields of transformers' GenerationConfig, which older versions wrote into the model's file.
    private static let generation: Set<String> = [
        "_from_model_config", "assistant_confidence_threshold", "assistant_early_exit",
        "assistant_ensemble_weight", "assistant_lookbehind", "bad_words_ids",
        "begin_suppress_tokens", "cache_config", "cache_implementation", "compile_config",
        "constraints", "continuous_batching_config", "decoder_start_token_id", "disable_compile",
        "diversity_penalty", "do_sample", "dola_layers", "early_stopping",
        "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "epsilon_cutoff",
        "eta_cutoff", "exponential_decay_length_penalty", "force_words_ids",
        "forced_bos_token_id", "forced_eos_token_id", "guidance_scale", "is_assistant",
        "length_penalty", "low_memory", "max_cache_len", "max_length", "max_matching_ngram_size",
        "max_new_tokens", "max_time", "min_length", "min_new_tokens", "min_p",
        "no_repeat_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule",
        "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
        "output_hidden_states", "output_logits", "output_scores", "penalty_alpha",
        "prefill_chunk_size", "prompt_lookup_num_tokens", "remove_invalid_values",
        "renormalize_logits", "repetition_penalty", "return_dict_in_generate", "sequence_bias",
        "speculation_type", "stop_strings", "suppress_tokens", "target_lookbehind", "temperature",
        "token_healing",
        "top_h", "top_k", "top_p", "typical_p", "use_cache", "use_mtp", "watermarking_config",
    ]
    /// Fields that would change it, beside the one value that does not.
    private static let neutral: [String: JSONDocument] = [
        "add_cross_attention": .bool(false), "embedding_multiplier": .number("1"),
        "is_causal": .bool(true), "is_encoder_decoder": .bool(false),
        "logit_scale": .number("1"), "logits_scaling": .number("1"), "pruned_heads": .object([:]),
        "residual_multiplier": .number("1"), "rope_interleaved": .bool(false),
        "tie_encoder_decoder": .bool(false), "use_mrope": .bool(false),
    ]

    init(path: String, fields: [String: JSONDocument]) {
        self.path = path
        self.fields = fields.filter { !$0.value.isNull }
        nulls = Set(fields.filter(\.value.isNull).keys)
    }

    /// Whether the field is written as null, which may mean other than its absence.
    func isNull(_ key: String) -> Bool { nulls.contains(key) }

    /// Whether the field is there, not null, and not yet taken.
    func has(_ key: String) -> Bool { fields[key] != nil }

    /// The field, which is then taken; nil if absent or null.
    mutating func take(_ key: String) -> JSONDocument? { fields.removeValue(forKey: key) }

    /// An error about a field's value.
    func bad(_ key: String, _ what: String) -> ModelError { ModelError("\(path): \(key): \(what)") }

    /// An error about a value that means other arithmetic than this build's.
    func unsupported(_ key: String, _ found: String, _ expected: String) -> ModelError {
        ModelError("\(path): \(key) is \(found), this build computes only \(expected)")
    }

    /// A whole number, or the default; an error if there is none.
    mutating func natural(_ key: String, default value: Int? = nil) throws(ModelError) -> Int {
        guard let field = take(key) else {
            guard let value else { throw ModelError("\(path) lacks \(key)") }
            return value
        }
        guard let number = field.int, number >= 0, number <= 1 << 31 else {
            throw bad(key, "\(field.summary) is not a whole number from 0 to 2^31")
        }
        return number
    }

    /// A whole number above 0, or the default, which may be 0.
    mutating func positive(_ key: String, default value: Int? = nil) throws(ModelError) -> Int {
        let isGiven = has(key)
        let number = try natural(key, default: value)
        guard number > 0 || !isGiven else { throw bad(key, "is 0, expected 1 or more") }
        return number
    }

    /// A finite number, or the default.
    mutating func number(_ key: String, default value: Double) throws(ModelError) -> Double {
        guard let field = take(key) else { return value }
        guard let number = field.double, number.isFinite else {
            throw bad(key, "\(field.summary) is not a number")
        }
        return number
    }

    /// A number above 0, which must be there.
    mutating func above0(_ key: String) throws(ModelError) -> Double {
        guard has(key) else { throw ModelError("\(path) lacks \(key)") }
        let value = try number(key, default: 0)
        guard value > 0 else { throw bad(key, "\(value) is not above 0") }
        return value
    }

    /// True or false, or the default.
    mutating func flag(_ key: String, default value: Bool) throws(ModelError) -> Bool {
        guard let field = take(key) else { return value }
        guard let flag = field.bool else { throw bad(key, "\(field.summary) is not true or false") }
        return flag
    }

    /// Text, or nil.
    mutating func text(_ key: String) throws(ModelError) -> String? {
        guard let field = take(key) else { return nil }
        guard let text = field.string else { throw bad(key, "\(field.summary) is not text") }
        return text
    }

    /// An array, or nil.
    mutating func list(_ key: String) throws(ModelError) -> [JSONDocument]? {
        guard let field = take(key) else { return nil }
        guard let items = field.array else { throw bad(key, "\(field.summary) is not an array") }
        return items
    }

    /// Refuses what is left.
    ///
    /// - Parameter special: more fields with the one value that changes nothing.
    func finish(neutral special: [String: JSONDocument] = [:]) throws(ModelError) {
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            if let neutral = special[key] ?? Self.neutral[key] {
                // Numbers are equal as the arithmetic sees them, however they are spelt.
                let isSame = neutral.double.map { value.double.map(Float.init) == Float($0) }
                guard isSame ?? (neutral == value) else {
                    throw unsupported(key, value.summary, neutral.summary)
                }
            } else if !Self.inert.contains(key), !key.hasPrefix("unsloth_") {
                throw ModelError(
                    "\(path): the field \(key) (\(value.summary)) is not known to this build, and may change the arithmetic",
                    hint: "if it does not, remove it from the file")
            }
        }
    }
}
