import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// The fast path beside the reference path, over every model that the tests have.
@Suite(.serialized) struct NoiseBandTests {
    /// The band that the gate has unless it is configured, in millionths of the loss.
    private static let band = 50.0

    /// How far the paths are apart, in millionths.
    private struct Gap {
        /// Of one document's loss, at most.
        var document = 0.0
        /// Of an improvement: that of all documents.
        var improvement = 0.0

        mutating func extend(_ other: Gap) {
            document = max(document, other.document)
            improvement = max(improvement, other.improvement)
        }
    }

    private static let fixtures: [String] = {
        let folder = Checkpoints.root.appendingPathComponent("Tests/Fixtures/checkpoints")
        let all = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        // Pickled ones are twins of others, and need a plugin to be opened.
        return all.sorted().filter { !$0.hasPrefix("pickled-") }.map { name in
            let gguf = folder.appendingPathComponent("\(name)/model.gguf").path
            return FileManager.default.fileExists(atPath: gguf)
                ? gguf : folder.appendingPathComponent(name).path
        }
    }()

    /// Every third document.
    private static let pool = JudgedHome.pool.indices.filter { $0 % 3 == 0 }.map {
        JudgedHome.pool[$0]
    }

    private static func gate(_ more: String) -> [(name: String, config: String)] {
        [
            (
                "proof-of-learning",
                "documents: 96\n  least_documents: 16\n  resamples: 1000\n  floor_ppm: -1000000\n  \(more)"
            )
        ]
    }

    /// The evaluator's own numbers, on both paths.
    private static func gap(_ home: JudgedHome, _ tensors: [ExpertFile.Tensor], _ part: String)
        throws -> Gap
    {
        let block = try home.block(tensors, part: part)
        let library = GemmLibrary.openBLAS()
        try #require(library != nil, "Scripts/deps.sh installs libopenblas0-pthread")
        let evaluator = try Evaluator(
            model: home.node.model(nil), blocks: [block],
            shard: PoolShard(parsing: JudgedHome.shard(Self.pool)),
            seed: SHA256.hash([1]), threads: 2, cache: LossCache(), library: library)
        let all = 0..<evaluator.documents.count
        func losses(_ path: Evaluator.Path) throws -> [[Int64]] {
            try [Evaluator.Subject.baseline, .candidate].map {
                try evaluator.losses($0, path, all)
            }
        }
        let (exact, fast) = try (losses(.reference), losses(.fast))
        var gap = Gap()
        for (a, b) in zip(exact.joined(), fast.joined()) {
            gap.document = max(gap.document, 1e6 * Double(abs(a - b)) / Double(a))
        }
        func improvement(_ losses: [[Int64]]) -> Double {
            let sums = losses.map { Double($0.reduce(0, +)) }
            return 1 - sums[1] / sums[0]
        }
        gap.improvement = 1e6 * abs(improvement(exact) - improvement(fast))
        return gap
    }

    /// A candidate with other weights, on an expert or on the router that chooses among them.
    private static func disturbed(_ home: JudgedHome, _ part: String, by share: Float) throws
        -> [ExpertFile.Tensor]
    {
        var random = SplitMix64(seed: 5)
        return try home.tensors(part).mapped { _, _, _, value in
            value * (1 + share * (Float(random.next(below: 2001)) / 1000 - 1))
        }
    }

    /// Judged on the fast path, and again on the reference path.
    private static func agree(
        _ home: JudgedHome, _ tensors: [ExpertFile.Tensor], _ part: String
    ) throws -> String {
        let made = try home.judge(tensors, part: part)
        let audit = try home.node.judge().audit(#require(made.verdict))
        #expect(audit.differences == [], "\(part)")
        return try #require(made.gates.last?.evidence["path"]?.string)
    }

    /// The band is ten times the largest difference and more, and outside of it both paths decide alike.
    @Test func bothPathsAgreeOutsideTheBand() throws {
        try #require(Self.fixtures.count >= 34)
        var (largest, paths): (Gap, [String: Int]) = (Gap(), [:])
        for (number, path) in Self.fixtures.enumerated() {
            let home = try JudgedHome(
                gates: Self.gate("delta_ppm: 0\n  always_reference: false"), pool: Self.pool,
                model: path)
            let parts = try home.node.model(nil).model.document.config.parts.map(\.name).filter {
                $0.contains(".expert")
            }
            let part = parts[number % 2 == 0 ? 0 : parts.count - 1]
            // Some change next to nothing: inside the band.
            let tensors = try Self.disturbed(home, part, by: number % 9 == 0 ? 1e-3 : 0.5)
            largest.extend(try Self.gap(home, tensors, part))
            paths[try Self.agree(home, tensors, part), default: 0] += 1
        }
        let home = try JudgedHome(gates: Self.gate("delta_ppm: 500\n  always_reference: false"))
        for (part, share) in [("layer0.expert0", 0.3), ("layer1.router", 0.3)] {
            let tensors = try Self.disturbed(home, part, by: Float(share))
            largest.extend(try Self.gap(home, tensors, part))
            #expect(try Self.agree(home, tensors, part) == "fast")
        }
        let trained = try home.trained()
        largest.extend(try Self.gap(home, trained, JudgedHome.part))
        #expect(try Self.agree(home, trained, JudgedHome.part) == "fast")
        #expect(try home.node.model(nil).model.version?.header.index ?? 0 > 3)
        // Decided on both sides of the band's edge, or this would say little.
        #expect(paths["fast", default: 0] >= 20 && paths["band", default: 0] >= 2, "\(paths)")
        print("fast and reference path, in millionths: \(largest), decided on \(paths)")
        // Something was measured: the paths do differ.
        #expect(largest.document > 0.01 && largest.improvement > 0.0001, "\(largest)")
        #expect(10 * largest.improvement <= Self.band, "\(largest)")
        // Whatever is drawn, even if all documents differed by the most, and one way with the candidate, the other without.
        #expect(10 * 2 * largest.document <= Self.band, "\(largest)")
        // What an audit forgives: 2 millionths of a loss.
        #expect(5 * largest.document <= 2, "\(largest)")
    }

    /// Products of bytes are other arithmetic: of a quantised model both paths are the reference path.
    @Test func quantisedModelsAreJudgedExactly() throws {
        let home = try JudgedHome(
            gates: Self.gate("always_reference: false"), quantisation: "int8")
        let tensors = try home.tensors().mapped { $3 * 1.05 }
        let gap = try Self.gap(home, tensors, JudgedHome.part)
        #expect(gap.document == 0 && gap.improvement == 0)
        _ = try Self.agree(home, tensors, JudgedHome.part)
    }

    /// Losses of the fast path may differ by rounding, all else may not.
    @Test func anAuditForgivesRoundingOfTheFastPathAlone() throws {
        let home = try JudgedHome(gates: Self.gate("delta_ppm: 500\n  always_reference: false"))
        let verdict = try #require(home.judge(home.trained()).verdict)
        let judge = try home.node.judge()
        let document = try VerdictDocument(parsing: home.node.store.document(verdict))
        func audit(_ changes: [String: (JSONValue) -> JSONValue]) throws -> [String] {
            var altered = document
            altered.signatures = [:]
            let gate = altered.gates[0]
            guard case .object(var evidence) = gate.evidence else { return ["no evidence"] }
            for (key, change) in changes { evidence[key] = change(try #require(evidence[key])) }
            altered.gates[0] = VerdictDocument.Gate(
                name: gate.name, version: gate.version, outcome: gate.outcome,
                reason: gate.reason, evidence: .object(evidence))
            try altered.sign(home.node.signingKey(), genesis: #require(home.node.store.genesis))
            let writer = try home.node.store.payloads.makeWriter()
            try writer.write(altered.encoded)
            var header = verdict.header
            try writer.finish().describe(in: &header, type: "json")
            // Beside that the version does not rest on this block.
            return try judge.audit(Block(signing: header, with: home.node.signingKey()))
                .differences.filter { !$0.contains("version block") }
        }
        func add(_ number: Int64) -> (JSONValue) -> JSONValue {
            return { value in
                guard case .array(var list) = value else {
                    return .int((value.int ?? 0) + number)
                }
                list[0] = .int((list[0].int ?? 0) + number)
                return .array(list)
            }
        }
        #expect(document.gates[0].evidence["path"] == .string("fast"))
        #expect(try audit([:]) == [])
        for key in ["baseline_unat", "candidate_unat"] {
            #expect(try audit([key: add(10)]) == [], "\(key)")
            #expect(try audit([key: add(1_000)]).count == 1, "\(key)")
        }
        for key in ["improvement_ppb", "lower_ppb", "upper_ppb"] {
            #expect(try audit([key: add(-2_000)]) == [], "\(key)")
            #expect(try audit([key: add(6_000)]).count == 1, "\(key)")
        }
        for key in ["delta_ppb", "floor_ppb", "documents", "tokens", "token_count"] {
            #expect(try audit([key: add(1)]).count == 1, "\(key)")
        }
        // Whoever says that he decided on the reference path is held to every digit.
        let claim: (String) -> (JSONValue) -> JSONValue = { name in { _ in .string(name) } }
        #expect(try audit(["path": claim("band")]).count == 1)
        #expect(try audit(["path": claim("reference")]).count == 1)
    }

    /// Under a policy that asks for the reference path nobody can claim the fast one, and its tolerance.
    @Test func theFastPathIsNoExcuseWhereThePolicyHasNone() throws {
        let home = try JudgedHome(gates: Self.gate("delta_ppm: 500"))
        let verdict = try #require(home.judge(home.tensors()).verdict)
        var document = try VerdictDocument(parsing: home.node.store.document(verdict))
        let gate = document.gates[0]
        guard case .object(var evidence) = gate.evidence else { return }
        #expect(evidence["path"] == .string("reference"))
        evidence["path"] = .string("fast")
        document.gates[0] = VerdictDocument.Gate(
            name: gate.name, version: gate.version, outcome: gate.outcome, reason: gate.reason,
            evidence: .object(evidence))
        document.signatures = [:]
        try document.sign(home.node.signingKey(), genesis: #require(home.node.store.genesis))
        let writer = try home.node.store.payloads.makeWriter()
        try writer.write(document.encoded)
        var header = verdict.header
        try writer.finish().describe(in: &header, type: "json")
        let found = try home.node.judge().audit(
            Block(signing: header, with: home.node.signingKey())
        ).differences
        #expect(found.count == 1 && found[0].contains("evidence.path is \"fast\""), "\(found)")
    }
}
