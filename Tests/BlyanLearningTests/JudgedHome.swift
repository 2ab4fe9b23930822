import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// A home with the sample model and the gates that ship with the node, in this process.
final class JudgedHome {
    let folder: URL
    private var current: Node?
    static let part = "layer3.expert6"
    static let passphrase = Array("test".utf8)

    /// - Parameters:
    ///   - gates: their names with their configuration in YAML.
    ///   - pool: documents of the held-out text; none = no text.
    ///   - model: what is imported.
    init(
        gates: [(name: String, config: String)] = [
            ("structure", ""), ("quick-perplexity", "least_ppm: 500"),
            (
                "proof-of-learning",
                "documents: 96\n  least_documents: 16\n  delta_ppm: 500\n  floor_ppm: -300000\n  resamples: 1000"
            ),
        ], pool: [PoolShard.Document] = JudgedHome.pool, model: String = Checkpoints.sample.path,
        quantisation: String = "", validators: [String] = [], threshold: Int = 1
    ) throws {
        folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-judged-\(UUID().uuidString)")
        let products = Checkpoints.root.appendingPathComponent(".build/release")
        _ = try HomeSetup.run(
            home: folder, name: "test", validators: validators, threshold: threshold,
            passphrase: Self.passphrase, program: products, now: 1)
        try write(gates)
        current = try Self.open(folder)
        let importer = try Importer(
            store: node.store, key: node.signingKey(),
            format: node.plugins.format(for: "tensorblock"),
            payloadType: "tensorblock", clock: { 2 })
        _ = try importer.run(
            openCheckpoint(at: model), name: "sample", quantisation: quantisation
        ) { _ in }
        if !pool.isEmpty { _ = try node.judge().addShard(Self.shard(pool)) }
    }

    /// Has the manifest list other gates; they judge once the home was opened again and they are the policy.
    func write(_ gates: [(name: String, config: String)]) throws {
        for (name, config) in gates where !config.isEmpty {
            let file = folder.appendingPathComponent("plugins/\(name).yaml")
            var text = try String(contentsOf: file, encoding: .utf8)
            if let at = text.range(of: "config:") { text = String(text[..<at.lowerBound]) }
            try (text + "config:\n  \(config)\n").write(to: file, atomically: true, encoding: .utf8)
        }
        let manifest = folder.appendingPathComponent("node.yaml")
        var text = try String(contentsOf: manifest, encoding: .utf8)
        let list = gates.map { "  - \($0.name)\n" }.joined()
        let begin = try #require(text.range(of: "gates:\n"))
        let end = try #require(
            text.range(of: "\n\n", range: begin.upperBound..<text.endIndex))
        text.replaceSubrange(
            begin.lowerBound..<end.lowerBound, with: gates.isEmpty ? "gates: []" : "gates:\n\(list)"
        )
        try text.write(to: manifest, atomically: true, encoding: .utf8)
    }

    /// As after an operator changed the gates.
    func adopt(_ gates: [(name: String, config: String)]) throws {
        try write(gates)
        try reopen()
        try node.judge().adoptPolicy()
    }

    deinit {
        current?.close()
        try? FileManager.default.removeItem(at: folder)
    }

    private static func open(_ folder: URL) throws -> Node {
        try Node(home: folder, threads: 2, passphrase: { Self.passphrase }, log: { _ in })
    }

    /// As after the process ended and began again.
    func reopen() throws { try replace { _ in } }

    /// As ``reopen()``, with other files when it begins again.
    func replace(_ change: (URL) throws -> Void) throws {
        current?.close()
        current = nil
        try change(folder)
        current = try Self.open(folder)
    }

    var node: Node {
        guard let current else { preconditionFailure("a home is opened again at once") }
        return current
    }

    static func shard(_ documents: [PoolShard.Document]) -> [UInt8] {
        documents.flatMap {
            JSONValue.object(["slice": .string($0.slice), "text": .string($0.text)]).canonical() + [
                10
            ]
        }
    }

    /// Sentences of a made-up language: a domain that the sample model has never seen and learns in seconds.
    static func sentences(_ count: Int, seed: UInt64) -> [String] {
        var random = SplitMix64(seed: seed)
        let words = ["zorba", "quilk", "venn", "molto", "tarn", "ix", "brusk", "ploven"]
        return (0..<count).map { _ in
            (0..<12).map { i in i % 3 == 2 ? "ke" : words[Int(random.next(below: 8))] }
                .joined(separator: " ") + "."
        }
    }

    static let text = Array(sentences(400, seed: 1).joined(separator: "\n\n").utf8)
    static let pool: [PoolShard.Document] = {
        let plays =
            (try? String(
                contentsOf: Checkpoints.sample.appendingPathComponent("validation.txt"),
                encoding: .utf8))?
            .split(separator: "\n").filter { $0.count > 60 }.prefix(32) ?? []
        return sentences(64, seed: 2).map { PoolShard.Document(slice: "zorba", text: $0) }
            + plays.map { PoolShard.Document(slice: "dictionary", text: String($0)) }
    }()

    // MARK: Candidates

    /// The current version's tensors.
    func tensors(_ part: String = part) throws -> [ExpertFile.Tensor] {
        let loaded = try node.model(nil)
        let decoded = try loaded.decode(part)
        let layout = try #require(
            loaded.model.document.config.parts.first { $0.name == part })
        return layout.tensors.compactMap { tensor in
            decoded[tensor.name].map {
                ExpertFile.Tensor(
                    name: tensor.name, rows: tensor.rows, columns: tensor.columns,
                    values: $0.array(0..<tensor.rows * tensor.columns))
            }
        }
    }

    /// The part after a short training.
    func trained(_ part: String = part, steps: Int = 40, text: [UInt8] = JudgedHome.text) throws
        -> [ExpertFile.Tensor]
    {
        let loaded = try node.model(nil)
        var options = TrainingOptions(steps: steps)
        options.batch = 8
        options.sequence = 64
        options.rate = 2e-3
        let miner = try Miner(
            model: loaded, part: part,
            text: TrainingText(text, name: "text", tokenizer: loaded.tokenizer),
            options: options,
            pool: WorkerPool(threads: 2), folder: folder.appendingPathComponent("training"),
            isFresh: true)
        return try miner.run { _ in }.tensors
    }

    func block(
        _ tensors: [ExpertFile.Tensor], part: String = part, key: SigningKey? = nil,
        bits: Int64 = 12
    ) throws -> Block {
        try Contribution(to: node.model(nil), store: node.store, plugins: node.plugins).block(
            part, tensors, key: key ?? node.signingKey(), bits: bits,
            now: Int64(Date().timeIntervalSince1970 * 1000))
    }

    func judge(
        _ tensors: [ExpertFile.Tensor], part: String = part, key: SigningKey? = nil
    ) throws -> Judge.Judgement {
        let block = try block(tensors, part: part, key: key)
        let judge = try node.judge()
        try judge.submit(block)
        return try judge.judge(block.hash)
    }
}

extension [ExpertFile.Tensor] {
    /// Each tensor's numbers through a function of tensor name, row, column and value.
    func mapped(_ body: (String, Int, Int, Float) -> Float) -> [ExpertFile.Tensor] {
        map { tensor in
            ExpertFile.Tensor(
                name: tensor.name, rows: tensor.rows, columns: tensor.columns,
                values: tensor.values.enumerated().map {
                    body(tensor.name, $0 / tensor.columns, $0 % tensor.columns, $1)
                })
        }
    }
}
