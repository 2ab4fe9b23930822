package import BlyanKernel
package import BlyanModel
internal import Foundation
internal import Synchronization

/// Losses of a model with and without a candidate on the documents of a draw.
///
/// Any thread. A document's loss on the reference path is exact: it depends on nothing but the bytes of model,
/// candidate and text.
package final class Evaluator: Sendable {
    /// A document as tokens.
    package struct Document: Sendable {
        /// Its line in the shard.
        package let line: Int
        package let slice: String
        /// From the first one on each token is predicted but the first.
        package let tokens: [Int]
    }

    /// Whose losses are asked for.
    package enum Subject: Hashable, Sendable { case baseline, candidate }
    /// How they are computed.
    package enum Path: Hashable, Sendable { case fast, reference }

    /// Tokens of a document at most; what is longer is cut.
    package static let tokenLimit = 512

    /// All documents in the order of the draw.
    package let documents: [Document]
    let model: LoadedModel
    let blocks: [Block]
    // What stands in the place of the model's own parts; nothing for the model as it is.
    private let replacements: [Subject: [Block]]
    private let threads: Int
    private let cache: LossCache
    private let shard: Digest
    private let version: Digest
    private let library: GemmLibrary?
    private let own = Mutex<[Path: [Int: Int64]]>([:])
    private let asked = Atomic<Bool>(false)

    /// An evaluator of `blocks` in the place of what `model` has; in a review of what it has in the place of `parents`.
    ///
    /// - Parameters:
    ///   - parents: what stood before `blocks`, which `model` has already; nil = it has not.
    ///   - seed: decides the order of documents.
    ///   - cache: losses of the model itself, known from other candidates.
    ///   - library: what the fast path multiplies with; nil, or a quantised model = the fast path is the reference path.
    package init(
        model: LoadedModel, blocks: [Block], parents: [Block]? = nil, shard: PoolShard,
        seed: Digest, threads: Int, cache: LossCache, library: GemmLibrary?
    ) {
        self.model = model
        self.blocks = blocks
        replacements =
            if let parents { [.baseline: parents] } else { [.candidate: blocks] }
        self.threads = threads
        self.cache = cache
        // Products of bytes round activations too, which the library's do not: by per cents of a document's loss.
        self.library = model.model.document.quantisation.isEmpty ? library : nil
        self.shard = shard.hash
        version = model.model.version?.hash ?? .zero
        let limit = min(Self.tokenLimit, model.model.document.config.maximumPositions)
        let all = cache.documents(shard.hash, of: model.model.meta.hash) {
            shard.documents.enumerated().map { line, document in
                let tokens = DocumentTokens.encode(document.text, model.tokenizer).prefix(limit)
                return Document(line: line, slice: document.slice, tokens: Array(tokens))
            }
        }
        documents = shard.order(seed).map { all[$0] }.filter { $0.tokens.count > 1 }
    }

    /// Whether a gate was told anything of the text.
    var isAsked: Bool { asked.load(ordering: .relaxed) }

    /// Notes that a gate is told something of the text.
    func ask() { asked.store(true, ordering: .relaxed) }

    /// Summed losses of documents of the draw in micro-nats, rounded to nearest.
    ///
    /// - Throws: ``ModelError`` for a loss that is no number; what loading the parts throws.
    package func losses(_ subject: Subject, _ path: Path, _ range: Range<Int>) throws -> [Int64] {
        let wanted = documents[range]
        // Without a library it is the other path, under its own name among the known losses.
        let path = library == nil ? .reference : path
        let replaced = replacements[subject] ?? []
        let known =
            replaced.isEmpty
            ? cache.losses(version, shard, path) : own.withLock { $0[path] ?? [:] }
        let missing = wanted.filter { known[$0.line] == nil }
        var all = known
        if !missing.isEmpty {
            let found =
                path == .fast ? try fast(missing, replaced) : try reference(missing, replaced)
            for (document, loss) in zip(missing, found) {
                guard loss.isFinite, abs(loss) < 9e9 else {
                    throw ModelError(
                        "the loss of line \(document.line) of the held-out text is no number")
                }
                all[document.line] = Int64((loss * 1e6).rounded())
            }
            if replaced.isEmpty {
                cache.keep(all, version, shard, path)
            } else {
                let new = all
                own.withLock { $0[path, default: [:]].merge(new) { _, new in new } }
            }
        }
        return wanted.map { all[$0.line] ?? 0 }
    }

    /// A runner of the model with what a subject replaces.
    func variant(_ subject: Subject) throws -> ModelRunner {
        try model.variant(replacements[subject] ?? [], threads: 1)
    }

    /// Losses by our own kernels.
    private func reference(_ documents: [Document], _ blocks: [Block]) throws -> [Double] {
        try shared(documents.count) { [model] in
            try model.variant(blocks, threads: 1)
        } body: { runner, i in
            try runner.loss(of: documents[i].tokens)
        }
    }

    /// Shares pieces of work among the threads, each with what it runs them by: documents are short, and steps of their own.
    func shared<Tool: Sendable, Result: Sendable>(
        _ count: Int, tool: () throws -> Tool,
        body: @escaping @Sendable (Tool, Int) throws -> Result
    ) throws -> [Result] {
        let results = Mutex([Result?](repeating: nil, count: count))
        let failure = Mutex<(any Error)?>(nil)
        let next = Atomic<Int>(0)
        let cancellation = Cancellation.current
        let running = DispatchGroup()
        let tools = try (0..<min(threads, count)).map { _ in try tool() }
        for tool in tools {
            running.enter()
            Thread.detachNewThread {
                defer { running.leave() }
                do {
                    try Cancellation.$current.withValue(cancellation) {
                        while failure.withLock({ $0 == nil }) {
                            let i = next.add(1, ordering: .relaxed).oldValue
                            guard i < count else { return }
                            let result = try Self.undisturbed { try body(tool, i) }
                            results.withLock { $0[i] = result }
                        }
                    }
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
            }
        }
        running.wait()
        if let error = failure.withLock({ $0 }) { throw error }
        return results.withLock { $0.compactMap(\.self) }
    }

    /// Does work again that was discarded because a page of *some* mapped payload could not be read meanwhile: where it is
    /// one of this model's, the next try names it.
    private static func undisturbed<R>(_ body: () throws -> R) throws -> R {
        for _ in 0..<8 {
            do { return try body() } catch let error as KernelError where error.code == .io {
                usleep(250_000)
            }
        }
        return try body()
    }

    /// Many documents at once, by a library's products.
    private func fast(_ documents: [Document], _ blocks: [Block]) throws -> [Double] {
        guard let library else { return try reference(documents, blocks) }
        let network = try cache.network(version) {
            try Network(
                Weights(model.model.document.config) { try model.decode($0) },
                multiplier: Multiplier(pool: WorkerPool(threads: threads), library: library)
            ) { [model] in try model.makeRouter() }
        }
        return try network.withLock { network in
            try network.replacing(
                blocks.map { block in
                    (
                        block.header.expertName,
                        try model.decode(block.header.expertName, block: block)
                    )
                }
            ) {
                var losses: [Double] = []
                var rest = documents[...]
                while !rest.isEmpty {
                    try Cancellation.check()
                    var (batch, count, rows) = (TokenBatch(), 0, 0)
                    for document in rest where count == 0 || rows < 4096 {
                        batch.append(document.tokens)
                        rows += document.tokens.count
                        count += 1
                    }
                    let found = try network.losses(batch)
                    losses += batch.sequences.map { found[$0].reduce(0) { $0 + Double($1) } }
                    rest = rest.dropFirst(count)
                }
                return losses
            }
        }
    }
}

/// Text as the tokens of one document.
package enum DocumentTokens {
    /// Tokens that begin as a prompt begins; where the tokenizer adds nothing, with the token that ends a text, which
    /// is what comes before a document in training text.
    package static func encode(_ text: String, _ tokenizer: Tokenizer) -> [Int] {
        let plain = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
        let tokens = tokenizer.encode(text, addSpecial: true, parseSpecial: false)
        guard plain.first == tokens.first, let end = tokenizer.document.endTokens.first else {
            return tokens
        }
        return [end] + tokens
    }
}

// Unchecked: `lock` guards the mutable state; the network is used by one caller at a time.
/// What is known of a model's own losses, so that each candidate costs its own evaluation alone.
package final class LossCache: @unchecked Sendable {
    private struct Key: Hashable {
        let version, shard: Digest
        let path: Evaluator.Path
    }

    private let lock = NSLock()
    private var known: [Key: [Int: Int64]] = [:]
    private var network: (version: Digest, Exclusive)?
    private var documents: (shard: Digest, model: Digest, [Evaluator.Document])?

    package init() {}

    /// A shard's documents by line, as a model's tokenizer has them; those of the last shard are kept.
    func documents(
        _ shard: Digest, of model: Digest, _ make: () -> [Evaluator.Document]
    ) -> [Evaluator.Document] {
        lock.withLock {
            if let documents, documents.shard == shard, documents.model == model {
                return documents.2
            }
            let made = make()
            documents = (shard, model, made)
            return made
        }
    }

    func losses(_ version: Digest, _ shard: Digest, _ path: Evaluator.Path) -> [Int: Int64] {
        lock.withLock { known[Key(version: version, shard: shard, path: path)] ?? [:] }
    }

    func keep(_ losses: [Int: Int64], _ version: Digest, _ shard: Digest, _ path: Evaluator.Path) {
        lock.withLock {
            // Those of older versions are of no use any more.
            known = known.filter { $0.key.version == version }
            known[Key(version: version, shard: shard, path: path), default: [:]].merge(losses) {
                _, new in
                new
            }
        }
    }

    // Unchecked: the lock is held while the network is used.
    /// A network by one caller at a time.
    final class Exclusive: @unchecked Sendable {
        private let lock = NSLock()
        private let network: Network

        init(_ network: Network) { self.network = network }

        func withLock<R>(_ body: (Network) throws -> R) throws -> R {
            try lock.withLock { try body(network) }
        }
    }

    func network(_ version: Digest, _ make: () throws -> Network) throws -> Exclusive {
        try lock.withLock {
            if let network, network.version == version { return network.1 }
            let made = Exclusive(try make())
            network = (version, made)
            return made
        }
    }
}
