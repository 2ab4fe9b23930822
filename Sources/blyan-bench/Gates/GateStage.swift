internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

/// The gates of a home as a stream of candidates meets them: real plugins, weights and text, and no chain.
///
/// Payloads that it writes belong to no block: the next opening of the home removes them.
final class GateStage {
    let node: Node
    let loaded: LoadedModel
    let key: SigningKey
    private let shards: [PoolShard]
    private let cache = LossCache()
    private let threads: Int
    private let rehearsal: TokenStream
    /// Verdicts so far, for gates that look back.
    private(set) var verdicts: [VerdictDocument] = []

    /// - Parameters:
    ///   - pool: files of held-out text.
    ///   - threads: that train and evaluate.
    init(home: String, pool: [String], threads: Int) throws {
        node = try Node(
            home: URL(fileURLWithPath: home), threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        loaded = try node.model(nil)
        key = try SigningKey()
        shards = try pool.map {
            try PoolShard(parsing: Array(Data(contentsOf: URL(fileURLWithPath: $0))))
        }
        self.threads = threads
        rehearsal = try Rehearsal.make(
            16_384, by: loaded, seed: 7, threads: threads
        ) { _ in }
    }

    /// A shard's documents of one slice, as text to train on.
    func text(_ shard: Int, slice: String) throws -> TrainingText {
        let documents = shards[shard].documents.filter { $0.slice == slice }.map(\.text)
        return try TrainingText(
            Array(documents.joined(separator: "\n\n").utf8), name: slice,
            tokenizer: loaded.tokenizer)
    }

    /// The current version's tensors.
    func tensors(_ part: String) throws -> [ExpertFile.Tensor] {
        let decoded = try loaded.decode(part)
        guard let layout = loaded.model.document.config.parts.first(where: { $0.name == part })
        else { throw ModelError("the model has no part \(part)") }
        return layout.tensors.compactMap { tensor in
            decoded[tensor.name].map {
                ExpertFile.Tensor(
                    name: tensor.name, rows: tensor.rows, columns: tensor.columns,
                    values: $0.array(0..<tensor.rows * tensor.columns))
            }
        }
    }

    /// A part after a real training.
    func trained(
        _ part: String, on text: TokenStream, _ options: TrainingOptions, rehearses: Bool = true
    ) throws -> [ExpertFile.Tensor] {
        guard let library = GemmLibrary.openBLAS() else {
            throw KernelError(.notFound, "OpenBLAS is not installed")
        }
        let network = try Network(
            Weights(loaded.model.document.config) { [loaded] in try loaded.decode($0) },
            multiplier: Multiplier(pool: WorkerPool(threads: threads), library: library)
        ) { [loaded] in try loaded.makeRouter() }
        let trainer = try Trainer(network, parts: [part], options)
        for step in 0..<options.steps {
            _ = try trainer.step(
                text.batch(step: step, options, mixing: rehearses ? rehearsal : nil))
        }
        return try network.weights.ordered(part).map { name, matrix in
            ExpertFile.Tensor(
                name: name, rows: matrix.rows, columns: matrix.columns, values: matrix.values)
        }
    }

    /// A candidate's block, its payload among the home's.
    func block(
        _ part: String, _ tensors: [ExpertFile.Tensor], by key: SigningKey? = nil, at time: Int64
    )
        throws -> Block
    {
        try Contribution(to: loaded, store: node.store, plugins: node.plugins).block(
            part, tensors, key: key ?? self.key, bits: 0, now: time)
    }

    /// What gates said, and the seconds that each took.
    struct Answer {
        var gates: [VerdictDocument.Gate] = []
        var seconds: [Double] = []
        var outcome: String { gates.last?.outcome ?? "accept" }
        /// "gate/code", or "".
        var reason: String {
            outcome == "accept" ? "" : "\(gates.last?.name ?? "")/\(gates.last?.reason ?? "")"
        }
    }

    /// An evaluator of a candidate on a draw.
    func evaluator(_ block: Block, shard: Int, seed: UInt64) -> Evaluator {
        Evaluator(
            model: loaded, blocks: [block], shard: shards[shard],
            seed: SHA256.hash(Array("\(seed)".utf8)), threads: threads, cache: cache,
            library: GemmLibrary.openBLAS())
    }

    /// Asks gates in order until one does not accept.
    ///
    /// - Parameter isKept: later candidates' history has this verdict.
    func judge(
        _ block: Block, by gates: [GatePlugin], shard: Int, seed: UInt64, isKept: Bool = true
    ) throws -> Answer {
        guard let previous = block.header.previous, let parent = try node.store.block(previous),
            let header = try? JSONValue(parsing: block.header.canonical())
        else { throw KernelError(.integrity, "the candidate has no parent here") }
        let (loaded, node, verdicts) = (loaded, node, verdicts)
        let subject = try JudgedSubject(
            candidate: .init(loaded.open(block)), parent: .init(loaded.open(parent)),
            evaluator: evaluator(block, shard: shard, seed: seed), history: history(verdicts),
            open: { try .init(loaded.open($0)) })
        let context: JSONValue = .object([
            "author": .string(block.header.miner), "candidate": .string(block.hash.description),
            "expert": .string(block.header.expertName),
            "model": .string(loaded.model.meta.hash.description),
            "parent": .string(parent.hash.description), "received": .int(block.header.timestamp),
            "seed": .string("\(seed)"),
        ])
        _ = node
        var answer = Answer()
        for gate in gates {
            answer.seconds.append(
                try seconds {
                    let found = try gate.judge(subject, header: header, context: context)
                    answer.gates.append(
                        VerdictDocument.Gate(
                            name: gate.plugin.manifest.name, version: gate.plugin.manifest.version,
                            outcome: found.outcome.rawValue, reason: found.reason,
                            evidence: found.evidence))
                })
            guard answer.outcome == "accept" else { break }
        }
        if isKept {
            self.verdicts.append(
                VerdictDocument(
                    model: loaded.model.meta.hash, version: .zero, policy: .zero, block: block,
                    router: nil, received: block.header.timestamp, draw: nil, gates: answer.gates,
                    outcome: answer.outcome, reason: answer.reason))
        }
        return answer
    }

    private func history(_ verdicts: [VerdictDocument]) -> JudgingHistory {
        let parts = loaded.model.parts.filter { $0.key.contains(".expert") }.sorted {
            $0.key < $1.key
        }.map { VerdictIndex.Part(name: $0.key, block: $0.value, height: 0) }
        let store = node.store
        return JudgingHistory(
            verdictCount: verdicts.count, parts: parts,
            verdict: { number, gates throws(KernelError) in verdicts[number].summary(of: gates) },
            block: { hash throws(KernelError) in
                guard let block = try store.block(hash) else {
                    throw KernelError(.notFound, "block \(hash) is not here")
                }
                return block
            })
    }
}
