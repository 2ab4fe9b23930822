import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Verdicts that two of three validators have to sign.
@Suite(.serialized) struct QuorumTests {
    /// A home of another validator: its own key, and the chains, payloads and candidates of the first.
    private func copy(of home: JudgedHome, for validator: JudgedHome) throws {
        try validator.replace { folder in
            for name in ["log", "payloads", "candidates"] {
                let target = folder.appendingPathComponent(name)
                try? FileManager.default.removeItem(at: target)
                try FileManager.default.copyItem(
                    at: home.folder.appendingPathComponent(name), to: target)
            }
            try FileManager.default.removeItem(at: folder.appendingPathComponent("index"))
        }
    }

    private func key(_ home: JudgedHome) throws -> String { try home.node.signingKey().publicKey }

    private static let gates = [("quick-perplexity", "least_ppm: 500")]

    @Test func aVerdictIsWrittenOnceEnoughHaveSigned() throws {
        let second = try JudgedHome(gates: Self.gates, pool: [])
        let home = try JudgedHome(
            gates: Self.gates, validators: [key(second), SigningKey().publicKey], threshold: 2)
        let judge = try home.node.judge()
        let candidate = try home.block(home.trained())
        try judge.submit(candidate)
        let made = try judge.judge(candidate.hash)
        #expect(made.outcome == .defer && made.reason == "signatures/1-of-2")
        #expect(made.gates.map(\.outcome) == ["accept"] && made.verdict == nil)
        // The next one waits behind it, and asking again changes nothing.
        let next = try home.block(home.tensors().mapped { $3 * 1.01 })
        try judge.submit(next)
        #expect(try judge.judge(next.hash).reason == "signatures/another-verdict")
        // Unless it is asked for by name: the way out where others do not sign.
        #expect(try judge.judge(next.hash, isAnew: true).reason == "signatures/1-of-2")
        #expect(try judge.draft()?.block.hash == next.hash)
        #expect(try judge.judge(candidate.hash).reason == "signatures/another-verdict")
        #expect(try judge.judge(candidate.hash, isAnew: true).reason == made.reason)
        let draft = try #require(try judge.draft())
        #expect(try judge.judge(candidate.hash).reason == made.reason)
        #expect(try judge.draft() == draft)
        #expect(try judge.judge(candidate.hash, isAnew: true).reason == made.reason)
        #expect(try judge.draft() == draft)
        // A restart keeps it; nobody else's signature counts.
        try home.reopen()
        let again = try home.node.judge()
        #expect(try again.draft() == draft)
        let stranger = try SigningKey()
        var forged = draft
        try forged.sign(stranger, genesis: #require(home.node.store.genesis))
        for (key, signature) in [
            (stranger.publicKey, forged.signatures[stranger.publicKey]),
            (try key(second), forged.signatures[stranger.publicKey]),
        ] {
            let given = try ValidatorSignature(
                candidate: candidate.hash, key: key, signature: #require(signature))
            #expect(throws: KernelError.self) { try again.endorse([given]) }
        }
        guard case .awaits(made.reason) = try again.endorse([]) else {
            Issue.record("a verdict was written with one signature")
            return
        }
        // The other validator judges again in a copy, and signs.
        try copy(of: home, for: second)
        let (audit, signature) = try second.node.judge().cosign()
        #expect(audit.differences == [])
        let file = try #require(signature).json.canonical()
        guard case .judged(let judged) = try again.endorse([ValidatorSignature(parsing: file)])
        else {
            Issue.record("the verdict was not written")
            return
        }
        #expect(judged.outcome == .accept)
        #expect(try home.node.model(nil).model.parts[JudgedHome.part] == candidate.hash)
        let verdict = try #require(judged.verdict)
        let document = try VerdictDocument(parsing: home.node.store.document(verdict))
        #expect(try Set(document.signatures.keys) == [key(home), key(second)])
        #expect(try again.audit(verdict).differences == [])
        #expect(try again.draft() == nil)
        #expect(throws: KernelError.self) { try again.endorse([]) }
        #expect(try again.judge(next.hash).reason == "signatures/1-of-2")
        #expect(try home.node.store.verify().failures.isEmpty)
    }

    @Test func nobodySignsWhatDoesNotAgree() throws {
        let second = try JudgedHome(gates: Self.gates, pool: [])
        let home = try JudgedHome(
            gates: Self.gates, validators: [key(second)], threshold: 2)
        _ = try home.judge(home.trained())
        let file = home.folder.appendingPathComponent("candidates/draft.json")
        let text = try String(contentsOf: file, encoding: .utf8)
        // One document's loss in the evidence, in a document that is canonical still.
        let name = "candidate_unat\\\":"
        let at = try #require(text.range(of: name))
        var altered = text
        let digit = altered[at.upperBound]
        altered.replaceSubrange(
            at.upperBound...at.upperBound, with: digit == "1" ? "2" : "1")
        try Data(altered.utf8).write(to: file)
        try copy(of: home, for: second)
        let (audit, signature) = try second.node.judge().cosign()
        #expect(signature == nil)
        #expect(
            audit.differences.contains { $0.contains("quick-perplexity") }, "\(audit.differences)")
        // Whose key is none of the pact's signs nothing.
        let third = try JudgedHome(gates: Self.gates, pool: [])
        try copy(of: home, for: third)
        #expect(throws: KernelError.self) { try third.node.judge().cosign() }
    }

    @Test func aReviewIsSignedInTheSameWay() throws {
        let second = try JudgedHome(gates: Self.gates, pool: [])
        let proof = [
            (
                "proof-of-learning",
                "documents: 96\n  least_documents: 16\n  delta_ppm: 500\n  floor_ppm: -300000\n  resamples: 1000"
            )
        ]
        try second.write(proof)
        let home = try JudgedHome(gates: proof, validators: [key(second)], threshold: 2)
        func signed() throws -> Judge.Endorsement {
            try copy(of: home, for: second)
            let (audit, signature) = try second.node.judge().cosign()
            #expect(audit.differences == [])
            return try home.node.judge().endorse([#require(signature)])
        }
        _ = try home.judge(home.trained())
        guard case .judged(let made) = try signed(), made.outcome == .accept else {
            Issue.record("it was not accepted")
            return
        }
        let fresh = JudgedHome.sentences(64, seed: 9).map {
            PoolShard.Document(slice: "zorba", text: $0)
        }
        let judge = try home.node.judge()
        _ = try judge.addShard(JudgedHome.shard(fresh))
        let review = try judge.review(made.candidate)
        #expect(review.outcome == .defer && review.reason == "signatures/1-of-2")
        guard case .reviewed(let reviewed) = try signed() else {
            Issue.record("the review was not written")
            return
        }
        #expect(reviewed.outcome == .accept)
        #expect(try judge.audit(#require(reviewed.verdict)).differences == [])
    }

    /// A draft that the chain has left behind is void.
    @Test func aDraftIsVoidOnceThePolicyIsAnother() throws {
        let home = try JudgedHome(
            gates: Self.gates, validators: [SigningKey().publicKey], threshold: 2)
        let made = try home.judge(home.tensors())
        #expect(made.reason == "signatures/1-of-2")
        try home.adopt([("quick-perplexity", "least_ppm: 600")])
        let judge = try home.node.judge()
        #expect(try judge.draft() == nil)
        #expect(throws: KernelError.self) { try judge.endorse([]) }
        #expect(try judge.judge(made.candidate.hash).reason == "signatures/1-of-2")
        #expect(try judge.draft() != nil)
    }

    @Test func aPactThatNobodyCouldMeetIsRefused() throws {
        let other = try SigningKey().publicKey
        for (validators, threshold) in [
            ([other], 3), ([other], 0), ([other, other], 2), (["02ab"], 1),
            ([String(repeating: "0", count: 66)], 1),
        ] {
            let folder = FileManager.default.temporaryDirectory
                .appendingPathComponent("blyan-pact-\(UUID().uuidString)")
            defer { try? FileManager.default.removeItem(at: folder) }
            #expect(throws: KernelError.self) {
                try HomeSetup.run(
                    home: folder, name: "test", validators: validators, threshold: threshold,
                    passphrase: [1], program: Checkpoints.root, now: 1)
            }
            #expect(!FileManager.default.fileExists(atPath: folder.path))
        }
    }

    // MARK: Forgeries

    /// Changes the draft in a home, as whoever has its files can.
    private func forge(_ home: JudgedHome, _ change: (inout VerdictDocument) -> Void) throws {
        let file = home.folder.appendingPathComponent("candidates/draft.json")
        let value = try JSONValue(parsing: Array(Data(contentsOf: file)))
        guard case .object(var members) = value, let text = members["document"]?.string else {
            throw KernelError(.malformed, "no draft")
        }
        var document = try VerdictDocument(parsing: Array(text.utf8))
        change(&document)
        members["document"] = .string(String(decoding: document.encoded, as: UTF8.self))
        try Data(JSONValue.object(members).canonical()).write(to: file)
    }

    private static func gate(_ outcome: String, _ reason: String, _ evidence: JSONValue)
        -> VerdictDocument.Gate
    {
        VerdictDocument.Gate(
            name: "intake", version: "1", outcome: outcome, reason: reason, evidence: evidence)
    }

    /// Nobody signs an acceptance that no gate has given, also of a candidate whose parent was replaced.
    @Test func whatCouldNotStandIsNotAccepted() throws {
        let home = try JudgedHome(
            gates: [("structure", "")], pool: [], validators: [SigningKey().publicKey],
            threshold: 2)
        let judge = try home.node.judge()
        let evidence = JSONValue.object(["lower_ppb": .int(900_000_000)])
        // One that could stand, and one whose parent is another: this home's own rollback moves it.
        let made = try home.judge(home.tensors().mapped { $3 * 1.01 })
        #expect(made.reason == "signatures/1-of-2")
        for change in [
            { $0.gates = [Self.gate("accept", "", evidence)] },
            {
                $0.gates = [Self.gate("reject", "parent-replaced", evidence)]
                ($0.outcome, $0.reason) = ("reject", "intake/parent-replaced")
            },
            { ($0.outcome, $0.reason) = ("reject", "structure/norm") },
            { $0.gates = [] },
            {
                $0.isReview = true
                $0.gates = [
                    Self.gate("reject", "parent-replaced", .object(["upper_ppb": .int(-1)]))
                ]
                ($0.outcome, $0.reason) = ("reject", "intake/parent-replaced")
            },
        ] as [(inout VerdictDocument) -> Void] {
            _ = try judge.judge(made.candidate.hash, isAnew: true)
            #expect(try judge.cosign().signature != nil)
            try forge(home, change)
            let (audit, signature) = try judge.cosign()
            #expect(signature == nil && !audit.differences.isEmpty)
        }
    }

    /// What is written is what was signed, and not what lies beside it.
    @Test func noRouterIsSlippedIn() throws {
        let second = try JudgedHome(gates: [("structure", "")], pool: [])
        let home = try JudgedHome(
            gates: [("structure", "")], pool: [], validators: [key(second)], threshold: 2)
        let judge = try home.node.judge()
        let made = try home.judge(home.tensors().mapped { $3 * 1.01 })
        try copy(of: home, for: second)
        let signature = try #require(try second.node.judge().cosign().signature)
        let router = try home.block(
            home.tensors("layer3.router").mapped { $3 * 0 }, part: "layer3.router")
        let folder = home.folder.appendingPathComponent("candidates")
        let name = try #require(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).first {
                $0.contains(made.candidate.hash.description)
            })
        let file = folder.appendingPathComponent(name)
        guard case .object(var entry) = try JSONValue(parsing: Array(Data(contentsOf: file)))
        else { return }
        entry["router"] = .string(String(decoding: router.line, as: UTF8.self))
        try Data(JSONValue.object(entry).canonical()).write(to: file)
        try home.reopen()
        #expect(throws: KernelError.self) { try home.node.judge().endorse([signature]) }
        let parts = try home.node.model(nil).model.parts
        #expect(parts["layer3.router"] != router.hash)
        #expect(parts[JudgedHome.part] != made.candidate.hash)
        _ = judge
    }

    /// A draft on text that is retired, or beside a model that came later, is void: no audit would find the same.
    @Test func aDraftIsVoidOnceTextOrPartsAreOthers() throws {
        let home = try JudgedHome(
            gates: Self.gates, validators: [SigningKey().publicKey], threshold: 2)
        let judge = try home.node.judge()
        let made = try home.judge(home.tensors())
        #expect(try judge.draft() != nil)
        _ = try judge.retireShard(judge.shardBlocks()[0])
        #expect(try judge.draft() == nil)
        _ = try judge.addShard(
            JudgedHome.shard(
                JudgedHome.sentences(64, seed: 13).map {
                    PoolShard.Document(slice: "zorba", text: $0)
                }))
        #expect(try judge.judge(made.candidate.hash).reason == "signatures/1-of-2")
        #expect(try judge.draft() != nil)
        let importer = try Importer(
            store: home.node.store, key: home.node.signingKey(),
            format: home.node.plugins.format(for: "tensorblock"), payloadType: "tensorblock",
            clock: { 2 })
        _ = try importer.run(
            openCheckpoint(at: Checkpoints.tiny("mixtral-tiny").path), name: "other",
            quantisation: ""
        ) { _ in }
        #expect(try judge.draft() == nil)
    }
}
