/// How a conversation is written for a model: the templates that are known by what they do.
public struct ChatTemplate: Codable, Sendable, Equatable {
    /// The template.
    public enum Kind: String, Codable, Sendable {
        /// `<|im_start|>role\n…<|im_end|>\n`.
        case chatML = "chatml"
        /// `[INST] … [/INST]`, the answer after it.
        case mistral
    }

    /// The template.
    public var kind: Kind
    /// The system message that the template writes if a conversation has none, or nil.
    public var defaultSystem: String?

    /// Recognises a Jinja template by what it writes.
    ///
    /// - Returns: nil for one that is not known: such a model is given its text as it stands.
    public init?(jinja: String) {
        // A template that also writes another family's marks is not one of these.
        let foreign = ["<<SYS>>", "<|start_header_id|>", "<start_of_turn>", "<|user|>", "<|turn>"]
        guard !foreign.contains(where: { jinja.contains($0) }) else { return nil }
        let isChatML = jinja.contains("<|im_start|>") && jinja.contains("<|im_end|>")
        let isMistral = jinja.contains("[INST]") && jinja.contains("[/INST]")
        if isChatML, !isMistral {
            kind = .chatML
            defaultSystem =
                Self.between("<|im_start|>system\\n", "<|im_end|>", in: jinja)
                ?? Self.between("<|im_start|>system\n", "<|im_end|>", in: jinja)
            if defaultSystem?.contains("{") == true || defaultSystem?.contains("'") == true {
                defaultSystem = nil
            }
        } else if isMistral, !isChatML {
            kind = .mistral
            defaultSystem = nil
        } else {
            return nil
        }
    }

    private static func between(_ start: String, _ end: String, in text: String) -> String? {
        guard let from = text.firstRange(of: start)?.upperBound,
            let to = text[from...].firstRange(of: end)?.lowerBound
        else { return nil }
        return String(text[from..<to])
    }

    /// The text of a turn: what the person says, ready for the model's answer.
    ///
    /// - Parameters:
    ///   - isFirst: whether the conversation begins here; the tokenizer then adds its own special tokens.
    ///   - system: instructions for the whole conversation; nil = the template's own.
    public func turn(_ prompt: String, isFirst: Bool, system: String?) -> String {
        switch kind {
        case .chatML:
            var text = ""
            if isFirst, let system = system ?? defaultSystem {
                text += "<|im_start|>system\n\(system)<|im_end|>\n"
            } else if !isFirst {
                // The answer's end token was not run again; the template ends every message with it.
                text += "<|im_end|>\n"
            }
            return text + "<|im_start|>user\n\(prompt)<|im_end|>\n<|im_start|>assistant\n"
        case .mistral:
            let instructions = isFirst ? system.map { "\($0)\n\n" } ?? "" : ""
            return (isFirst ? "" : "</s>") + "[INST] \(instructions)\(prompt) [/INST]"
        }
    }
}
