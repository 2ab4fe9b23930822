internal import BlyanKernel
internal import CBlyanMath
internal import Foundation

/// Runs one model: evaluates text and generates tokens.
///
/// Thread-safe: requests take turns step by step.
public final class ModelRunner: Sendable {
    /// The model's arithmetic.
    public let config: ModelConfig
    private let decoder: Decoder
    private let openRouter: @Sendable () throws -> (any RequestRouter)?

    /// Tokens that are run at once when a prompt is read.
    private static let chunk = 512
    /// The same when logits of every row are wanted: they are vocabulary times rows.
    ///
    /// Less than ``Decoder/libraryTokens``, so that a score is reproducible with any node manifest.
    package static let scoredChunk = 64

    package init(
        config: ModelConfig, parts: any PartSource, threads: Int, library: GemmLibrary? = nil,
        openRouter: @escaping @Sendable () throws -> (any RequestRouter)?,
        onUse: @escaping @Sendable (RequestUse) -> Void = { _ in }
    ) throws {
        self.config = config
        self.openRouter = openRouter
        decoder = try Decoder(
            config: config, parts: parts, threads: threads, library: library, onUse: onUse)
    }

    /// Threads that a step's work is shared by.
    public var threads: Int { decoder.pool.threads }

    /// Begins a request with room for `capacity` tokens.
    ///
    /// - Parameter payer: the account that pays for the request, as hex; "" for the node's own use.
    /// - Throws: If memory cannot be reserved or the router refuses the model.
    public func makeSession(capacity: Int, payer: String = "") throws -> Session {
        let routed = config.layers.contains { $0.expertCount > 0 }
        return try decoder.makeSession(
            capacity: max(1, capacity), router: routed ? openRouter() : nil, payer: payer)
    }

    /// What a model makes of a text: the reference that other implementations are compared with.
    public struct Evaluation: Codable, Sendable {
        /// The text's tokens.
        public let tokenIDs: [Int]
        /// Mean negative log likelihood of tokens from 1 on given those before, in nats.
        ///
        /// Nil for a single token.
        public let meanNLL: Double?
        /// All logits at the last position.
        public let lastLogits: [Float]
        /// The tokens that greedy decoding adds.
        public let greedy: [Int]

        private enum CodingKeys: String, CodingKey {
            case tokenIDs = "token_ids"
            case meanNLL = "mean_nll"
            case lastLogits = "last_logits"
            case greedy
        }

        /// Every field is written: a mean that does not exist is null.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(tokenIDs, forKey: .tokenIDs)
            try container.encode(meanNLL, forKey: .meanNLL)
            try container.encode(lastLogits, forKey: .lastLogits)
            try container.encode(greedy, forKey: .greedy)
        }
    }

    /// Scores tokens and continues them greedily by exactly `greedy` tokens, past any end token.
    ///
    /// - Throws: ``ModelError`` for no tokens, an unknown one, more than the context holds, or logits that are not
    ///   finite; ``KernelError`` if weights are damaged, `cancelled` between steps on request.
    public func evaluate(_ tokens: [Int], greedy: Int) throws -> Evaluation {
        guard !tokens.isEmpty else {
            throw ModelError("there is nothing to evaluate: the text has no tokens")
        }
        guard greedy >= 0 else { throw ModelError("--greedy is \(greedy), expected 0 or more") }
        // The last token that is made is not run.
        let context = config.maximumPositions
        let (positions, overflow) = tokens.count.addingReportingOverflow(max(0, greedy - 1))
        guard !overflow, positions <= context else {
            throw ModelError(
                "the text has \(tokens.count) tokens and --greedy asks for \(greedy) more, the context of the model holds \(context)",
                hint: "shorten the text or ask for fewer tokens")
        }
        let session = try makeSession(capacity: positions)
        defer { decoder.report(session) }
        let (losses, last) = try score(tokens, in: session)
        var logits = last
        var continued: [Int] = []
        while continued.count < greedy {
            let token = Sampler.greedy(logits)
            continued.append(token)
            guard continued.count < greedy else { break }
            try Cancellation.check()
            logits = try decoder.step(session, [token], wanted: .last)
            try checkFinite(logits, after: session.position - 1)
        }
        // In the order of the tokens, which a sum of doubles depends on.
        let loss = losses.reduce(0.0) { $0 + Double($1) }
        return Evaluation(
            tokenIDs: tokens, meanNLL: tokens.count > 1 ? loss / Double(tokens.count - 1) : nil,
            lastLogits: last, greedy: continued)
    }

    /// The summed negative log likelihood of tokens from 1 on given those before, in nats.
    ///
    /// - Throws: As ``evaluate(_:greedy:)``.
    package func loss(of tokens: [Int]) throws -> Double {
        let session = try makeSession(capacity: tokens.count)
        defer { decoder.report(session) }
        return try score(tokens, in: session).losses.reduce(0) { $0 + Double($1) }
    }

    /// What a model says after a prompt, greedily and past any end token.
    package struct Continuation: Sendable {
        /// The tokens.
        package let tokens: [Int]
        /// The summed negative log likelihood of them, in nats.
        package let loss: Double
        /// Tokens that were run: the prompt's, and all of the continuation but the last.
        package let run: Int
        /// How many of those each expert served.
        package let served: [String: Int]
    }

    /// Continues a prompt greedily by `count` tokens, at most 32: the same bits on every machine, as ``score(_:in:chunk:)``.
    ///
    /// - Throws: as ``evaluate(_:greedy:)``.
    package func continuation(of prompt: [Int], _ count: Int) throws -> Continuation {
        guard !prompt.isEmpty, prompt.count <= Self.chunk, 1...32 ~= count else {
            throw ModelError(
                "a prompt of \(prompt.count) tokens and \(count) more, expected at most \(Self.chunk) and 1 to 32"
            )
        }
        let session = try makeSession(capacity: prompt.count + count - 1)
        defer { decoder.report(session) }
        var (next, tokens, loss) = (prompt, [Int](), 0.0)
        while tokens.count < count {
            try Cancellation.check()
            let logits = try decoder.step(session, next, wanted: .last)
            try checkFinite(logits, after: session.position - 1)
            let token = Sampler.greedy(logits)
            unsafe logits.withUnsafeBufferPointer { logits in
                guard let first = logits.baseAddress else { return }
                unsafe loss += Double(
                    blyan_math_loss(first, UInt64(config.vocabularySize), UInt64(token)))
            }
            tokens.append(token)
            next = [token]
        }
        // So few steps are not told of before the request's end.
        return Continuation(
            tokens: tokens, loss: loss, run: session.position,
            served: session.use.mapValues(\.tokens))
    }

    /// Negative log likelihoods, in nats, of all tokens but the first, each given those before it; and the logits at
    /// the last.
    ///
    /// With our own kernels and a router of the reference path these are the same bits on every machine, with any
    /// number of threads and however the tokens are cut into chunks.
    ///
    /// - Parameters:
    ///   - session: one with room for the tokens.
    ///   - chunk: tokens that are run at once.
    /// - Throws: as ``evaluate(_:greedy:)``.
    package func score(
        _ tokens: [Int], in session: Session, chunk size: Int = ModelRunner.scoredChunk
    ) throws -> (losses: [Float], lastLogits: [Float]) {
        let width = config.vocabularySize
        var losses: [Float] = []
        var last: [Float] = []
        for start in stride(from: 0, to: tokens.count, by: max(1, size)) {
            try Cancellation.check()
            let chunk = Array(tokens[start..<min(tokens.count, start + max(1, size))])
            let rows = try decoder.step(session, chunk, wanted: .all)
            try checkFinite(rows, after: start)
            for row in chunk.indices where start + row + 1 < tokens.count {
                let next = tokens[start + row + 1]
                guard next >= 0, next < width else {
                    throw ModelError("token id \(next) is not below \(width)")
                }
                unsafe rows.withUnsafeBufferPointer { rows in
                    guard let first = rows.baseAddress else { return }
                    unsafe losses.append(
                        blyan_math_loss(first + row * width, UInt64(width), UInt64(next)))
                }
            }
            last = Array(rows[(chunk.count - 1) * width..<chunk.count * width])
        }
        return (losses, last)
    }

    private func checkFinite(_ rows: [Float], after position: Int) throws(ModelError) {
        guard let bad = rows.firstIndex(where: { !$0.isFinite }) else { return }
        throw ModelError(
            "the model's logits are not finite at position \(position + bad / config.vocabularySize + 1)"
        )
    }

    /// How a generation went.
    public struct Statistics: Sendable {
        /// Tokens of the prompt, and seconds until its last one was run.
        public var promptTokens = 0
        /// Seconds from the start to the prompt's last token.
        public var promptSeconds = 0.0
        /// Tokens made.
        public var tokens = 0
        /// Seconds that they took.
        public var seconds = 0.0
    }

    /// Reads `prompt` and makes tokens until `limit`, an end token, or `onToken` answers false.
    ///
    /// - Parameters:
    ///   - ends: tokens that end the answer; they are neither handed out nor run, so that the next turn begins with one.
    ///   - onToken: called with each token as it is made, on the calling thread.
    /// - Throws: ``ModelError`` if the context is full or logits are not finite; ``KernelError`` if weights are
    ///   damaged, `cancelled` between steps on request; what `onToken` throws.
    public func generate(
        _ session: Session, prompt: [Int], sampler: inout Sampler, limit: Int, ends: Set<Int>,
        onToken: (Int) throws -> Bool
    ) throws -> Statistics {
        guard !prompt.isEmpty else { throw ModelError("the prompt has no tokens") }
        var statistics = Statistics(promptTokens: prompt.count)
        // A turn of a conversation is a request of its own.
        session.served.removeAll()
        defer { decoder.report(session) }
        let clock = ContinuousClock()
        let start = clock.now
        var logits: [Float] = []
        for first in stride(from: 0, to: prompt.count, by: Self.chunk) {
            try Cancellation.check()
            let chunk = Array(prompt[first..<min(prompt.count, first + Self.chunk)])
            let last = first + chunk.count == prompt.count
            logits = try decoder.step(session, chunk, wanted: last ? .last : .none)
        }
        let ready = clock.now
        statistics.promptSeconds = (ready - start).seconds
        while statistics.tokens < limit {
            guard logits.allSatisfy(\.isFinite) else {
                throw ModelError(
                    "the model's logits are not finite at position \(session.position)")
            }
            let token = sampler.next(logits)
            if ends.contains(token) { break }
            statistics.tokens += 1
            let goesOn = try onToken(token)
            guard goesOn, statistics.tokens < limit else { break }
            try Cancellation.check()
            logits = try decoder.step(session, [token], wanted: .last)
        }
        statistics.seconds = (clock.now - ready).seconds
        return statistics
    }
}

extension Duration {
    /// The duration in seconds.
    package var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
