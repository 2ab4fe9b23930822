public import BlyanModel

/// Turns of one conversation with a model, in one key/value cache.
///
/// Used by one task at a time.
public final class Conversation {
    private let model: LoadedModel
    private let template: ChatTemplate?
    private let system: String?
    private let session: Session
    private var isFirst = true
    // The last token made has not been run when an answer ends at its limit.
    private var pending: [Int] = []

    /// Begins a conversation.
    ///
    /// - Parameters:
    ///   - template: write turns in the model's chat template; false continues text as it stands.
    ///   - system: instructions for the whole conversation; needs a template.
    ///   - payer: the account that pays for the answers, as hex; "" for the node's own use, which earns nobody anything.
    /// - Throws: ``ModelError`` if instructions are given and the model has no known template.
    public init(
        _ model: LoadedModel, template: Bool, system: String?, payer: String = ""
    ) throws {
        self.model = model
        self.template = template ? model.tokenizer.document.chat : nil
        self.system = system
        if template, let unknown = model.tokenizer.document.unknownChat {
            throw ModelError(
                "the chat template of \(model.model.name) is not one that this build writes: \"\(unknown)\"",
                hint: "known: ChatML and [INST]; continue text as it stands with --raw")
        }
        if system != nil, self.template == nil {
            throw ModelError(
                "the model \(model.model.name) has no chat template, so --system has no place",
                hint: "put the text into the prompt")
        }
        session = try model.runner.makeSession(
            capacity: model.runner.config.maximumPositions, payer: payer)
    }

    /// Says something and streams the answer as UTF-8.
    ///
    /// - Parameter limit: tokens at most.
    /// - Throws: ``ModelError`` if the context is full; ``KernelError`` if weights are damaged; what `onText` throws.
    public func answer(
        _ prompt: String, sampler: inout Sampler, limit: Int, onText: ([UInt8]) throws -> Void
    ) throws -> ModelRunner.Statistics {
        let tokenizer = model.tokenizer
        let text = template?.turn(prompt, isFirst: isFirst, system: system) ?? prompt
        let tokens = tokenizer.encode(text, addSpecial: isFirst, parseSpecial: true)
        let room = session.capacity - session.position - pending.count - tokens.count
        guard room > 0 else {
            throw ModelError(
                "the prompt needs \(tokens.count) tokens, the context of \(session.capacity) has room for \(session.capacity - session.position)",
                hint: "shorten the prompt or begin a new conversation")
        }
        var stream = TextStream()
        var last: Int?
        // Pieces with ▁ begin with a space that belongs to the tokenizer, not to the answer.
        var dropsSpace = tokenizer.document.replacesSpaces && template != nil
        let statistics = try model.runner.generate(
            session, prompt: pending + tokens, sampler: &sampler, limit: min(limit, room),
            ends: Set(tokenizer.document.endTokens)
        ) { token in
            last = token
            var bytes = stream.add(tokenizer.bytes(of: token))
            if dropsSpace, !bytes.isEmpty {
                if bytes.first == 32 { bytes.removeFirst() }
                dropsSpace = false
            }
            if !bytes.isEmpty { try onText(bytes) }
            return true
        }
        let rest = stream.finish()
        if !rest.isEmpty { try onText(rest) }
        pending = statistics.tokens == min(limit, room) ? last.map { [$0] } ?? [] : []
        isFirst = false
        return statistics
    }
}
