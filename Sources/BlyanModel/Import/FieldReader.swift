/// Takes fields out of a configuration; what nobody took and nobody knows to be inert is refused.
struct FieldReader {
    let path: String
    private var fields: [String: JSONDocument]
    private let nulls: Set<String>

    /// Fields that do not change what inference computes.
    private static let inert: Set<String> = [
        "architectures", "attention_dropout", "hidden_dropout", "dropout", "residual_dropout",
        "embd_pdrop",
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id",
        "unk_token_id",
        "dtype", "torch_dtype", "initializer_range", "output_router_logits", "router_aux_loss_coef",
        "router_jitter_noise", "transformers_version", "use_cache", "pretraining_tp",
        "_name_or_path", "name_or_path",
        "auto_map", "model_name", "output_attentions", "output_hidden_states", "return_dict",
        "id2label", "label2id",
        "problem_type", "task_specific_params", "tokenizer_class", "chunk_size_feed_forward",
        "is_encoder_decoder",
        "is_decoder", "add_cross_attention", "finetuning_task", "_attn_implementation",
        "attn_implementation",
        "_attn_implementation_autoset", "is_llama_config", "rope_interleaved",
        "transformers.js_config",
        "use_flash_attn", "unsloth_fixed", "unsloth_version", "gradient_checkpointing",
        "max_length", "max_sequence_length", "attn_pdrop", "resid_pdrop", "use_mrope",
        "_flash_attn_2_enabled", "torchscript", "use_bfloat16", "do_sample", "temperature", "top_k",
        "top_p", "repetition_penalty", "max_new_tokens",
    ]
    /// Values that would change it, beside the one that does not.
    private static let neutral: [String: JSONDocument] = [
        "rope_interleaved": .bool(false), "use_mrope": .bool(false),
        "is_encoder_decoder": .bool(false),
        "add_cross_attention": .bool(false),
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
        guard number > 0 || !isGiven else { throw bad(key, "is 0") }
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

    /// Refuses what is left.
    func finish() throws(ModelError) {
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            guard Self.inert.contains(key) else {
                throw ModelError(
                    "\(path): the field \(key) (\(value.summary)) is not known to this build, and may change the arithmetic",
                    hint: "if it does not, remove it from the file")
            }
            if let neutral = Self.neutral[key], neutral != value,
                neutral.double != value.double || neutral.double == nil
            {
                throw unsupported(key, value.summary, neutral.summary)
            }
        }
    }
}
