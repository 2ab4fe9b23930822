/// How a conversation is written for a model: the templates that are known by what they do.
public struct ChatTemplate: Codable, Sendable, Equatable {
    /// The template.
    public enum Kind: String, Codable, Sendable {
        /// `<|im_start|>role\n…<|im_end|>\n`.
        case chatML = "chatml"
        /// `[INST] … [/INST]`, the answer after it.
        case mistral
    }

    /// The marks around a turn of the Mistral template, which differ by a space between its versions.
    public struct Marks: Codable, Sendable, Equatable {
        /// Before what the person says.
        public var opening = "[INST] "
        /// After it.
        public var closing = " [/INST]"
        /// After the answer.
        public var end = "</s>"
    }

    /// The template.
    public var kind: Kind
    /// The system message that the template writes if a conversation has none, or nil.
    public var defaultSystem: String?
    /// The marks of a Mistral template; nil = the first version's.
    public var marks: Marks?

    /// Recognises a Jinja template by rendering conversations with it: it is one of these if it writes what they write.
    ///
    /// - Parameters:
    ///   - begin: the text of the first token, which the tokenizer adds by itself.
    ///   - end: the text of the token that ends an answer.
    /// - Returns: nil for one that is not known: such a model is given its text as it stands.
    public init?(jinja: String, begin: String? = "<s>", end: String? = "</s>") {
        guard let template = try? JinjaTemplate(jinja) else { return nil }
        // A mark of its own: in some models the first token is also how ChatML begins a message.
        let mark = "\u{E000}bos\u{E000}"
        func render(_ messages: (role: String, content: String)...) -> String? {
            let rendered = try? JinjaRenderer.render(
                template,
                [
                    "messages": .list(
                        messages.map {
                            .object(["role": .string($0.role), "content": .string($0.content)])
                        }),
                    "add_generation_prompt": .bool(true),
                    "bos_token": begin == nil ? .undefined : .string(mark),
                    "eos_token": end.map { .string($0) } ?? .undefined,
                ])
            // Some spell the token out.
            let literal = begin.flatMap { $0.isEmpty || $0 == "<|im_start|>" ? nil : $0 }
            for prefix in [mark, literal ?? mark] where rendered?.hasPrefix(prefix) == true {
                return rendered.map { String($0.dropFirst(prefix.count)) }
            }
            return rendered
        }
        guard let once = render(("user", "Q1")),
            let twice = render(("user", "Q1"), ("assistant", "A1"), ("user", "Q2"))
        else { return nil }
        let instructed = render(("system", "S1"), ("user", "Q1"))
        for candidate in Self.candidates(once, end: end ?? "") {
            func turn(_ text: String, isFirst: Bool, system: String?) -> String {
                candidate.turn(text, isFirst: isFirst, system: system)
            }
            // Some Mistral templates put a space between the mark and the answer; a model writes it by itself.
            let isWritten = ["A1", " A1"].contains {
                twice == once + $0 + turn("Q2", isFirst: false, system: nil)
            }
            // Some refuse instructions.
            let takesSystem =
                (candidate.kind == .mistral && instructed == nil)
                || instructed == turn("Q1", isFirst: true, system: "S1")
            if isWritten, takesSystem, once == turn("Q1", isFirst: true, system: nil) {
                self = candidate
                return
            }
        }
        return nil
    }

    private init(kind: Kind, defaultSystem: String? = nil, marks: Marks? = nil) {
        self.kind = kind
        self.defaultSystem = defaultSystem
        self.marks = marks
    }

    /// What a template may be that writes `once` for one question.
    private static func candidates(_ once: String, end: String) -> [ChatTemplate] {
        guard once.hasPrefix("<|im_start|>") else {
            return ["", " "].flatMap { after in
                [("[INST] ", " [/INST]"), ("[INST] ", "[/INST]"), ("[INST]", "[/INST]")].map {
                    ChatTemplate(
                        kind: .mistral,
                        marks: Marks(opening: $0.0, closing: $0.1, end: end + after))
                }
            }
        }
        let (start, stop) = ("<|im_start|>system\n", "<|im_end|>\n")
        guard once.hasPrefix(start), let found = once.firstRange(of: stop) else {
            return [ChatTemplate(kind: .chatML)]
        }
        let system = once[start.endIndex..<found.lowerBound]
        return [ChatTemplate(kind: .chatML, defaultSystem: String(system))]
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
            let marks = marks ?? Marks()
            let instructions = isFirst ? system.map { "\($0)\n\n" } ?? "" : ""
            return (isFirst ? "" : marks.end) + marks.opening + instructions + prompt
                + marks.closing
        }
    }
}
