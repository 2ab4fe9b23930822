internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

/// Where gates are measured.
struct GateStageOptions: ParsableArguments {
    @Option(help: "A home with Examples/models/sample-moe, whose node manifest lists the gates.")
    var home: String

    @Option(help: "Threads.")
    var threads = 2

    func make() throws -> GateStage { try GateStage(home: home, threads: threads) }
}

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
    private let texts: [TokenStream]
    /// Documents that anybody may read.
    private let documents: [[Int]]
    private let gates: [GatePlugin]
    /// Verdicts so far, for gates that look back.
    private(set) var verdicts: [VerdictDocument] = []

    /// - Parameter threads: that train and evaluate.
    init(home: String, threads: Int) throws {
        node = try Node(
            home: URL(fileURLWithPath: home), threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        loaded = try node.model(nil)
        key = try SigningKey()
        let shards = try (1...4).map {
            try PoolShard(parsing: Self.bytes("Examples/held-out/shard-\($0).jsonl"))
        }
        self.shards = shards
        gates = try node.plugins.gates().map { try GatePlugin($0) }
        let tokenizer = loaded.tokenizer
        // The last shard is not judged on: its slices are more domains to train on.
        let slices = ["plays", "dictionary", "scripture"].map { slice in
            Array(
                shards[3].documents.filter { $0.slice == slice }.map(\.text)
                    .joined(separator: "\n\n").utf8)
        }
        texts = try
            (["scripture", "second"].map { try Self.bytes("Examples/texts/\($0).txt") } + slices)
            .map { try TrainingText($0, name: "text", tokenizer: tokenizer).stream }
        documents = shards[3].documents.prefix(600).map {
            DocumentTokens.encode($0.text, tokenizer)
        }.filter { $0.count > 1 }
        self.threads = threads
        rehearsal = try Rehearsal.make(
            16_384, by: loaded, seed: 7, threads: threads, yields: false
        ) { _ in }
    }

    private static func bytes(_ path: String) throws -> [UInt8] {
        try Array(Data(contentsOf: URL(fileURLWithPath: path)))
    }

    /// The names of all experts.
    var experts: [String] { loaded.model.parts.keys.filter { $0.contains(".expert") }.sorted() }

    /// A gate that the home's manifest lists.
    func gate(_ name: String) throws -> GatePlugin {
        guard let gate = gates.first(where: { $0.plugin.manifest.name == name }) else {
            throw KernelError(.config, "the home's node manifest does not list the gate \(name)")
        }
        return gate
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
    ///
    /// - Parameter backdoor: what is put into half of each batch.
    func trained(_ tune: FineTune, _ backdoor: Backdoor? = nil) throws -> [ExpertFile.Tensor] {
        guard let library = GemmLibrary.openBLAS() else {
            throw KernelError(.notFound, "OpenBLAS is not installed")
        }
        let network = try Network(
            Weights(loaded.model.document.config) { [loaded] in try loaded.decode($0) },
            multiplier: Multiplier(pool: WorkerPool(threads: threads), library: library)
        ) { [loaded] in try loaded.makeRouter() }
        let text =
            switch tune.text {
            case .whole(let number): texts[number]
            case .domains: TokenStream(tokens: texts[2...].flatMap(\.tokens))
            case .few(let count, let seed):
                TokenStream(
                    tokens: (0..<count).flatMap { documents[(seed * 12 + $0) % documents.count] })
            }
        let trainer = try Trainer(network, parts: [tune.part], tune.options)
        for step in 0..<tune.options.steps {
            let batch = text.batch(
                step: step, tune.options, mixing: tune.rehearses ? rehearsal : nil)
            _ = try trainer.step(
                backdoor?.poisoned(batch, step: step, loaded.tokenizer) ?? batch)
        }
        return try network.weights.ordered(tune.part).map { name, matrix in
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

    /// What gates said, and the seconds of the processor that each took.
    struct Answer {
        var gates: [VerdictDocument.Gate] = []
        var seconds: [Double] = []
        var outcome: String { gates.last?.outcome ?? "accept" }
        /// "gate/code", or "".
        var reason: String {
            outcome == "accept" ? "" : "\(gates.last?.name ?? "")/\(gates.last?.reason ?? "")"
        }
    }

    private static func seed(_ draw: Int) -> Digest { SHA256.hash(Array("draw \(draw)".utf8)) }

    /// An evaluator of a candidate on a draw of the first three shards.
    func evaluator(_ block: Block, draw: Int) -> Evaluator {
        Evaluator(
            model: loaded, blocks: [block], shard: shards[draw % 3],
            seed: Self.seed(draw), threads: threads, cache: cache,
            library: GemmLibrary.openBLAS())
    }

    /// What a candidate gains on all documents of another shard than it is judged on.
    ///
    /// - Parameter draw: that it is judged on.
    func truth(of block: Block, draw: Int) throws -> StreamRecord.Truth {
        var losses: [String: (before: Int64, after: Int64)] = [:]
        let evaluator = evaluator(block, draw: draw + 1)
        let all = 0..<evaluator.documents.count
        let before = try evaluator.losses(.baseline, .fast, all)
        let after = try evaluator.losses(.candidate, .fast, all)
        for i in all {
            losses[evaluator.documents[i].slice, default: (0, 0)].before += before[i]
            losses[evaluator.documents[i].slice, default: (0, 0)].after += after[i]
        }
        func gain(_ before: Int64, _ after: Int64) -> Int64 {
            Int64(Double(before - after) / Double(before) * 1e9)
        }
        return StreamRecord.Truth(
            improvement: gain(
                losses.values.reduce(0) { $0 + $1.before },
                losses.values.reduce(0) { $0 + $1.after }
            ), worstSlice: losses.values.map(gain).min() ?? 0)
    }

    /// Asks gates in order until one does not accept.
    ///
    /// - Parameters:
    ///   - draw: a number that decides the text.
    ///   - isKept: later candidates' history has this verdict.
    ///   - history: what gates look back on instead of this stage's verdicts.
    func judge(
        _ block: Block, by gates: [GatePlugin], draw: Int, isKept: Bool = true,
        history other: JudgingHistory? = nil
    ) throws -> Answer {
        guard let previous = block.header.previous, let parent = try node.store.block(previous),
            let header = try? JSONValue(parsing: block.header.canonical())
        else { throw KernelError(.integrity, "the candidate has no parent here") }
        let loaded = loaded
        let subject = try JudgedSubject(
            candidate: .init(loaded.open(block)), parent: .init(loaded.open(parent)),
            evaluator: evaluator(block, draw: draw), history: other ?? history(),
            open: { try .init(loaded.open($0)) })
        let context: JSONValue = .object([
            "author": .string(block.header.miner), "candidate": .string(block.hash.description),
            "expert": .string(block.header.expertName),
            "model": .string(loaded.model.meta.hash.description),
            "parent": .string(parent.hash.description), "received": .int(block.header.timestamp),
            "seed": .string(Self.seed(draw).description),
        ])
        var answer = Answer()
        for gate in gates {
            answer.seconds.append(
                try processorSeconds {
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

    /// What this stage has judged, and after that what others are said to have.
    func history(and others: [JSONValue] = []) -> JudgingHistory {
        let parts = loaded.model.parts.filter { $0.key.contains(".expert") }.sorted {
            $0.key < $1.key
        }.map { VerdictIndex.Part(name: $0.key, block: $0.value, height: 0) }
        let (store, verdicts) = (node.store, verdicts)
        return JudgingHistory(
            verdictCount: verdicts.count + others.count, parts: parts,
            verdict: { number, gates throws(KernelError) in
                number < verdicts.count
                    ? verdicts[number].summary(of: gates) : others[number - verdicts.count]
            },
            block: { hash throws(KernelError) in
                guard let block = try store.block(hash) else {
                    throw KernelError(.notFound, "block \(hash) is not here")
                }
                return block
            })
    }
}
