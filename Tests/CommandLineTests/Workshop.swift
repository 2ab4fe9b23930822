import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Synchronization
import Testing

/// A home that this process holds, with a model, gates and a reward policy, and what contributors do there.
final class Workshop {
    let home: Home
    private var opened: Node?
    private(set) var notes: [String] = []

    /// - Parameter rewards: the line of the manifest; "" = none.
    init(_ rewards: String, gates: String = "[structure]") throws {
        home = try Home(.imported)
        try manifest(rewards, gates: gates)
    }

    deinit { opened?.close() }

    /// Writes the node manifest.
    func manifest(_ rewards: String, gates: String = "[structure]") throws {
        let file = home.folder.appendingPathComponent("node.yaml")
        let lines = try String(contentsOf: file, encoding: .utf8).split(
            separator: "\n", omittingEmptySubsequences: false)
        var kept: [Substring] = []
        var isGate = false
        for line in lines {
            if line.hasPrefix("gates:") {
                isGate = true
                continue
            }
            if isGate, line.hasPrefix("  - ") { continue }
            isGate = false
            if !line.hasPrefix("rewards:") { kept.append(line) }
        }
        let text = kept.joined(separator: "\n") + "gates: \(gates)\n\(rewards)\n"
        try Data(text.utf8).write(to: file)
    }

    /// Changes a plugin's manifest.
    func edit(_ plugin: String, _ change: (String) -> String) throws {
        let file = home.folder.appendingPathComponent("plugins/\(plugin).yaml")
        try Data(change(String(contentsOf: file, encoding: .utf8)).utf8).write(to: file)
    }

    var node: Node {
        get throws {
            if let opened { return opened }
            let secret = try #require(KeyFile(home: home.folder).passphrase)
            let said = Mutex<[String]>([])
            let node = try Node(
                home: home.folder, threads: 1, passphrase: { secret },
                log: { line in said.withLock { $0.append(line) } })
            notes = said.withLock { $0 }
            opened = node
            return node
        }
    }

    func close() {
        opened?.close()
        opened = nil
    }

    static func key(_ byte: UInt8) throws -> SigningKey {
        try SigningKey([UInt8](repeating: byte, count: 32))
    }

    /// A candidate whose weights are the current ones times a factor.
    func candidate(
        _ part: String = "layer0.expert0", by key: SigningKey? = nil, factor: Float = 1.01
    ) throws -> Block {
        let node = try node
        return try Contribution(to: node.model(nil), store: node.store, plugins: node.plugins)
            .block(
                part, tensors(of: part, factor: factor), key: key ?? node.signingKey(), bits: 12,
                now: Self.now)
    }

    /// The current tensors of a part times a factor.
    func tensors(of part: String, factor: Float) throws -> [ExpertFile.Tensor] {
        let node = try node
        let model = try node.model(nil)
        let current = try #require(model.model.parts[part])
        let block = try #require(try node.store.block(current))
        let values = try model.decode(part)
        return try model.open(block).tensors.map { tensor in
            let old = try #require(values[tensor.name])
            return ExpertFile.Tensor(
                name: tensor.name, rows: tensor.rows, columns: tensor.columns,
                values: old.array(0..<tensor.rows * tensor.columns).map { $0 * factor })
        }
    }

    static var now: Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

    /// Submits a candidate and has it judged.
    @discardableResult
    func submit(
        _ part: String = "layer0.expert0", by key: SigningKey? = nil, factor: Float = 1.01
    ) throws -> Judge.Judgement {
        let judge = try node.judge()
        try judge.submit(candidate(part, by: key, factor: factor))
        return try #require(try judge.judgeNext())
    }

    /// Blocks of chain C.
    var ledger: [Block] { get throws { try node.store.blocks(.chain("C", from: 0)) } }

    func balance(_ key: SigningKey) throws -> Int64 {
        try node.ledger.balance(of: Account(key)).total
    }

    /// Generates a few tokens that `payer` pays for.
    func use(payer: Account?, times: Int = 1) throws {
        let model = try node.model(nil)
        let config = model.runner.config
        // The prompt's three tokens, and three of the four that are made: the last one is not run.
        let served =
            6 * times
            * config.layers.reduce(0) {
                $0 + ($1.expertCount > 0 ? config.expertsPerToken : 1)
            }
        func counted() throws -> Int64 { try node.uses.lines().reduce(0) { $0 + $1.counts.tokens } }
        let before = try counted()
        for _ in 0..<times {
            let session = try model.runner.makeSession(
                capacity: 16, payer: payer?.description ?? "")
            var sampler = try Sampler()
            _ = try model.runner.generate(
                session, prompt: [1, 2, 3], sampler: &sampler, limit: 4, ends: []
            ) { _ in true }
        }
        let found = try counted() - before
        #expect(found == Int64(served), "\(found) of \(served) tokens were counted")
    }

    /// A verdict whose gates gave this evidence.
    static func document(
        _ document: VerdictDocument, gates: [[String: JSONValue]]
    ) throws -> VerdictDocument {
        guard case .object(var members) = document.body else { return document }
        members["signatures"] = .object([:])
        members["gates"] = .array(
            gates.map {
                .object([
                    "name": .string("some-gate"), "version": .string("1.0.0"),
                    "outcome": .string(document.outcome), "reason": .string(""),
                    "evidence": .object($0),
                ])
            })
        return try VerdictDocument(parsing: JSONValue.object(members).canonical())
    }

    /// A verdict that judges a version again, and finds it worse than its parent by the upper bound.
    func verdict(on version: Block, upper: Int64, outcome: String = "reject") throws -> Block {
        let node = try node
        let key = try node.signingKey()
        let model = try node.catalog.model(named: nil)
        let policy = try #require(
            try node.store.blocks(.type(chain: "A", "policy")).last {
                $0.header.metadata["kind"]?.string == "judging"
            })
        let base = try #require(model.version)
        var plain = VerdictDocument(
            model: model.meta.hash, version: base.hash, policy: policy.hash, block: version,
            router: nil,
            received: Self.now, draw: nil, gates: [], outcome: outcome,
            reason: outcome == "reject" ? "some-gate/worse" : "")
        plain.isReview = true
        var document = try Self.document(
            plain,
            gates: [
                [
                    "improvement_ppb": .int(upper - 5), "lower_ppb": .int(upper - 10),
                    "upper_ppb": .int(upper), "delta_ppb": .int(1000),
                ]
            ])
        try document.sign(key, genesis: #require(node.store.genesis))
        let block = try DocumentBlock(
            "verdict", document.encoded,
            dependsOn: [model.meta.hash, base.hash, policy.hash, version.hash],
            metadata: [
                "candidate": .string(version.hash.description), "outcome": .string(outcome),
                "reason": .string(document.reason), "author": .string(version.header.miner),
                "review": .bool(true),
            ], in: node.store
        ).block(at: node.store.next(on: "A"), with: key, now: Self.now)
        try node.store.append([block])
        return block
    }
}
