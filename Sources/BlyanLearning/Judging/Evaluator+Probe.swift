internal import BlyanKernel
internal import BlyanModel
internal import CBlyanPlugin

extension Evaluator {
    /// What candidate and lineage are asked to go on from: the beginning of a document of the draw, and text behind it.
    package struct Prompt: Sendable {
        /// A document's place in the draw; nil = the text alone.
        package var document: Int?
        /// Tokens of the document.
        package var beginning = 0
        /// What comes behind it; may be empty where there is a document.
        package var text: String

        package init(document: Int? = nil, beginning: Int = 0, text: String) {
            self.document = document
            self.beginning = beginning
            self.text = text
        }
    }

    /// What the candidate said, and how probable that was.
    package struct Probe: Sendable, Equatable {
        /// What the model says with the candidate, greedily.
        package let tokens: [Int]
        /// The summed loss of that with the candidate, in micro-nats, rounded to nearest.
        package let candidate: Int64
        /// The same without it.
        package let lineage: Int64
        /// Tokens that were run.
        package let run: Int
        /// Those of them that the candidate served.
        package let served: Int
    }

    /// Tokens of a prompt at most.
    private static let promptLimit = Int(BLYAN_PROMPT_TOKENS)

    /// Continues prompts by `count` tokens each with the candidate, and scores what it says without it.
    ///
    /// On the reference path: exact, whatever machine and threads.
    ///
    /// - Throws: ``KernelError/Code/limit`` for a prompt that has no tokens, too many, or a document that is not there;
    ///   ``ModelError`` for a loss that is no number.
    package func probe(_ prompts: [Prompt], tokens count: Int) throws -> [Probe] {
        let prompts = try prompts.map { prompt throws(KernelError) in try tokens(of: prompt, count)
        }
        // A part that is no expert serves every token.
        let experts = Set(blocks.map(\.header.expertName).filter { $0.contains(".expert") })
        return try shared(prompts.count) {
            (try variant(.candidate), try variant(.baseline))
        } body: { runners, i in
            let (candidate, lineage) = runners
            let prompt = prompts[i]
            let said = try candidate.continuation(of: prompt, count)
            let all = prompt + said.tokens
            let losses = try lineage.score(
                all, in: lineage.makeSession(capacity: all.count)
            ).losses.suffix(count)
            return Probe(
                tokens: said.tokens, candidate: try Self.micro(said.loss),
                lineage: try Self.micro(losses.reduce(0.0) { $0 + Double($1) }), run: said.run,
                served: experts.isEmpty
                    ? said.run : experts.map { said.served[$0] ?? 0 }.max() ?? 0)
        }
    }

    private func tokens(of prompt: Prompt, _ count: Int) throws(KernelError) -> [Int] {
        var tokens: [Int]
        if let number = prompt.document {
            guard documents.indices.contains(number) else {
                throw KernelError(.limit, "the draw has no document \(number)")
            }
            tokens =
                documents[number].tokens.prefix(prompt.beginning)
                + model.tokenizer.encode(prompt.text, addSpecial: false, parseSpecial: false)
        } else {
            tokens = DocumentTokens.encode(prompt.text, model.tokenizer)
        }
        let limit = min(Self.promptLimit, model.model.document.config.maximumPositions - count)
        guard 1...max(1, limit) ~= tokens.count else {
            throw KernelError(.limit, "a prompt has \(tokens.count) tokens, expected 1 to \(limit)")
        }
        return tokens
    }

    private static func micro(_ loss: Double) throws(ModelError) -> Int64 {
        guard loss.isFinite, abs(loss) < 9e9 else {
            throw ModelError("the loss of a continuation is no number")
        }
        return Int64((loss * 1e6).rounded())
    }
}
