import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Reviews that were altered, whoever signed them: a validator that lies is found by anybody.
@Suite(.serialized) struct ReviewAuditTests {
    /// A verdict block whose document says something else, signed by the validator itself.
    private func forged(
        _ verdict: Block, _ home: JudgedHome, review: Bool? = nil, outcome: String? = nil,
        _ change: (inout VerdictDocument) -> Void
    ) throws -> Block {
        let key = try home.node.signingKey()
        var document = try VerdictDocument(parsing: home.node.store.document(verdict))
        document.signatures = [:]
        change(&document)
        if let review { document.isReview = review }
        try document.sign(key, genesis: #require(home.node.store.genesis))
        let writer = try home.node.store.payloads.makeWriter()
        try writer.write(document.encoded)
        var header = verdict.header
        header.metadata["review"] = document.isReview ? .bool(true) : nil
        header.metadata["outcome"] = .string(document.outcome)
        header.metadata["reason"] = .string(document.reason)
        try writer.finish().describe(in: &header, type: "json")
        return try Block(signing: header, with: key)
    }

    private static func altered(
        _ document: inout VerdictDocument, _ key: String, _ change: (JSONValue) -> JSONValue
    ) {
        let last = document.gates[document.gates.count - 1]
        guard case .object(var evidence) = last.evidence, let old = evidence[key] else { return }
        evidence[key] = change(old)
        document.gates[document.gates.count - 1] = VerdictDocument.Gate(
            name: last.name, version: last.version, outcome: document.outcome,
            reason: document.outcome == "accept" ? "" : "worse", evidence: .object(evidence))
    }

    @Test func aReviewThatWasAlteredDoesNotAgree() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let first = try home.judge(home.tensors().mapped { -$3 })
        try #require(first.outcome == .accept)
        try home.adopt([("structure", ""), ReviewTests.gate])
        _ = try home.node.judge().addShard(JudgedHome.shard(ReviewTests.harmed))
        let made = try home.node.review(JudgedHome.part, model: nil)
        try #require(made.outcome == .reject)
        let verdict = try #require(made.verdict)
        func audit(
            review: Bool? = nil, _ change: (inout VerdictDocument) -> Void
        ) throws -> [String] {
            try home.node.judge().audit(forged(verdict, home, review: review, change)).differences
        }
        #expect(try audit { _ in } == [])
        for key in ["candidate_unat", "baseline_unat", "documents", "tokens"] {
            let found = try audit {
                Self.altered(&$0, key) { value in
                    guard case .array(var list) = value, let number = list[0].int else {
                        return value
                    }
                    list[0] = .int(number + 1)
                    return .array(list)
                }
            }
            #expect(found.contains { $0.contains("evidence.\(key)") }, "\(key): \(found)")
        }
        // Less bad than it is, good after all, or of another draw.
        let upper = try audit { Self.altered(&$0, "upper_ppb") { .int(($0.int ?? 0) + 1) } }
        #expect(upper.contains { $0.contains("evidence.upper_ppb") }, "\(upper)")
        let good = try audit {
            ($0.outcome, $0.reason) = ("accept", "")
            Self.altered(&$0, "upper_ppb") { _ in .int(5) }
        }
        #expect(good.contains { $0.contains("and says reject worse") }, "\(good)")
        let unsound = try audit {
            ($0.outcome, $0.reason) = ("accept", "")
            Self.altered(&$0, "upper_ppb") { $0 }
        }
        #expect(unsound.contains { $0.contains("it is worse if that is below 0") }, "\(unsound)")
        let draw = try #require(
            try VerdictDocument(parsing: home.node.store.document(verdict)).draw)
        let other = SHA256.hash([1, 2, 3])
        for (shard, count, seed) in [
            (draw.shard, draw.count, other), (draw.shard, draw.count + 1, draw.seed),
            (other, draw.count, draw.seed),
        ] {
            let found = try audit {
                $0.draw = .init(shard: shard, secrets: draw.secrets, count: count, seed: seed)
            }
            #expect(!found.isEmpty)
        }
        // A rejected candidate would not stand on chain B.
        let candidate = try audit(review: false) { _ in }
        #expect(candidate.contains { $0.contains("stands on chain B") }, "\(candidate)")
        #expect(candidate.contains { $0.contains("could not stand in the version") })
        // A header alone that says so is found as well, and no clawback may rest on either.
        var header = verdict.header
        header.metadata["review"] = nil
        let bare = try Block(signing: header, with: home.node.signingKey())
        let found = try home.node.judge().audit(bare).differences
        #expect(found.contains { $0.contains("its document that it is one") }, "\(found)")
        // What does not follow: a version is worse, and stays.
        var late = verdict.header
        late.index += 5
        let alone = try home.node.judge().audit(
            Block(signing: late, with: home.node.signingKey()))
        #expect(alone.differences.contains { $0.contains("no version block reverts it") })
    }

    @Test func anAcceptanceIsNoReviewAndAReviewIsNoAcceptance() throws {
        let home = try JudgedHome()
        let accepted = try home.judge(home.trained())
        try #require(accepted.outcome == .accept, "\(accepted.reason)")
        _ = try home.node.judge().addShard(JudgedHome.shard(ReviewTests.learned(5)))
        let made = try home.node.review(JudgedHome.part, model: nil)
        try #require(made.outcome == .accept)
        let judge = try home.node.judge()
        let claimed = try judge.audit(
            forged(#require(accepted.verdict), home, review: true) { _ in }
        ).differences
        #expect(claimed.contains { $0.contains("was no version to judge") }, "\(claimed)")
        let denied = try judge.audit(
            forged(#require(made.verdict), home, review: false) { _ in }
        ).differences
        #expect(denied.contains { $0.contains("could not stand in the version") }, "\(denied)")
        // Text that it was accepted on is not fresh.
        let old = try VerdictDocument(
            parsing: home.node.store.document(#require(accepted.verdict)))
        let stale = try judge.audit(
            forged(#require(made.verdict), home) { document in
                guard let draw = document.draw, let shard = old.draw?.shard else { return }
                document.draw = .init(
                    shard: shard, secrets: draw.secrets, count: draw.count, seed: draw.seed)
            }
        ).differences
        #expect(stale.contains { $0.contains("that the version had never met") }, "\(stale)")
        // A review is judged by the gate that decides, not by those before it.
        let more = try judge.audit(
            forged(#require(made.verdict), home) { document in
                document.gates.insert(
                    .init(
                        name: "structure", version: "1.0.0", outcome: "accept", reason: "",
                        evidence: .object([:])), at: 0)
            }
        ).differences
        #expect(more.contains { $0.contains("the receipt has the gates") }, "\(more)")
    }
}
