import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Synchronization
import Testing

/// From a trained expert to the version that serves, and all that must not get there.
@Suite(.serialized) struct JudgeTests {
    @Test func aRealGainIsAcceptedServedAndAudited() throws {
        let home = try JudgedHome()
        let before = try home.node.model(nil)
        let made = try home.judge(home.trained())
        #expect(made.outcome == .accept, "\(made.reason) \(made.gates)")
        #expect(made.gates.map(\.name) == ["structure", "quick-perplexity", "proof-of-learning"])
        let after = try home.node.model(nil)
        #expect(after.model.parts[JudgedHome.part] == made.candidate.hash)
        #expect(after.model.version?.hash == made.version?.hash)
        #expect(before.model.parts[JudgedHome.part] != made.candidate.hash)
        // Both versions are there; nothing else changed.
        let versions = try home.node.catalog.versions(of: JudgedHome.part, model: after.model)
        #expect(versions.count == 2 && versions[1].header.version == "1.1.0")
        #expect(
            after.model.parts.filter { $0.key != JudgedHome.part }
                == before.model.parts.filter { $0.key != JudgedHome.part })
        #expect(try home.node.judge().candidates.queue.isEmpty)
        #expect(try home.node.store.verify().failures.isEmpty)
        // Whoever has the receipt judges again, by any of the three blocks, and after a restart.
        let blocks = try [made.candidate, #require(made.verdict), #require(made.version)]
        for block in blocks {
            #expect(try home.node.judge().audit(block).differences == [])
        }
        try home.reopen()
        #expect(try home.node.judge().audit(blocks[1]).differences == [])
        #expect(throws: KernelError.self) { try home.node.judge().submit(made.candidate) }
    }

    /// What is no gain earns nothing, and its evidence stays.
    @Test func whatIsNoGainIsRejected() throws {
        let home = try JudgedHome()
        var random = SplitMix64(seed: 3)
        func noise() -> Float { Float(random.next(below: 2001)) / 1000 - 1 }
        let own = try home.tensors()
        let cases: [(String, [ExpertFile.Tensor], String)] = [
            ("copy", own, "quick-perplexity/hopeless"),
            (
                "noise around it", own.mapped { $3 + 0.02 * noise() },
                "proof-of-learning/no-improvement"
            ),
            ("zero", own.mapped { _, _, _, _ in 0 }, "structure/norm"),
            ("garbage", own.mapped { _, _, _, _ in noise() }, "structure/norm"),
            ("sign flip", own.mapped { -$3 }, "quick-perplexity/hopeless"),
            ("twice as large", own.mapped { 2 * $3 }, "quick-perplexity/hopeless"),
            ("no number", own.mapped { $1 == 3 && $2 == 5 ? .nan : $3 }, "structure/not-finite"),
            (
                "infinity", own.mapped { $1 == 3 && $2 == 5 ? .infinity : $3 },
                "structure/not-finite"
            ),
        ]
        for (name, tensors, reason) in cases {
            let made = try home.judge(tensors)
            #expect(made.outcome == .reject && made.reason == reason, "\(name): \(made.reason)")
            #expect(try home.node.store.block(made.candidate.hash) == nil)
            #expect(
                try home.node.judge().audit(#require(made.verdict)).differences == [], "\(name)")
            // What no gate needed text for uses none up.
            let isCounted = made.verdict?.header.metadata["shard"] != nil
            #expect(isCounted != reason.hasPrefix("structure/"), "\(name)")
        }
        #expect(try home.node.model(nil).model.version?.header.index ?? 0 < 10)
        #expect(try home.node.store.verify().failures.isEmpty)
    }

    /// Each gate that measures asks for a gain on its own.
    @Test(arguments: [
        ("quick-perplexity", "least_ppm: 500"),
        ("proof-of-learning", "documents: 96\n  least_documents: 16\n  delta_ppm: 500"),
    ]) func whoMeasuresTakesNoCopy(gate: String, config: String) throws {
        let home = try JudgedHome(gates: [(gate, config)])
        var random = SplitMix64(seed: 5)
        let own = try home.tensors()
        for share: Float in [0, 0.001, 0.02, 0.2] {
            let made = try home.judge(
                own.mapped { $3 * (1 + share * (Float(random.next(below: 2001)) / 1000 - 1)) })
            #expect(made.reason.hasPrefix(gate + "/"), "\(share): \(made.reason)")
        }
    }

    /// A slice of which most samples of the draw would have one or two documents.
    @Test func aRareSliceIsLookedAt() throws {
        let common = JudgedHome.pool.filter { $0.slice == "dictionary" }.map(\.text)
        let pool =
            (0..<12).flatMap { round in
                common.map { PoolShard.Document(slice: "dictionary", text: "\(round). \($0)") }
            } + JudgedHome.pool.filter { $0.slice == "zorba" }.prefix(8)
        let home = try JudgedHome(gates: [("quick-perplexity", "least_ppm: 500")], pool: pool)
        let made = try home.judge(home.trained())
        #expect(made.gates.first?.evidence["documents"]?.int == 32)
    }

    @Test func aReceiptThatWasAlteredDoesNotAgree() throws {
        let home = try JudgedHome()
        let tensors = try home.trained()
        let unstamped = try home.block(tensors, bits: 0)
        let made = try home.judge(tensors)
        let verdict = try #require(made.verdict)
        let judge = try home.node.judge()
        let document = try VerdictDocument(parsing: home.node.store.document(verdict))
        /// Signed by the validator itself: what it says must not matter.
        func audit(_ change: (inout VerdictDocument) throws -> Void) throws -> [String] {
            var altered = document
            altered.signatures = [:]
            try change(&altered)
            if altered.signatures.isEmpty {
                try altered.sign(
                    home.node.signingKey(), genesis: #require(home.node.store.genesis))
            }
            let writer = try home.node.store.payloads.makeWriter()
            try writer.write(altered.encoded)
            var header = verdict.header
            try writer.finish().describe(in: &header, type: "json")
            let block = try Block(signing: header, with: home.node.signingKey())
            // Beside that the version does not rest on this block.
            return try judge.audit(block).differences.filter { !$0.contains("version block") }
        }
        var uncounted = verdict.header
        uncounted.metadata["shard"] = nil
        let hidden = try Block(signing: uncounted, with: home.node.signingKey())
        #expect(try judge.audit(hidden).differences.contains { $0.contains("does not count") })
        func gate(_ key: String, _ change: (JSONValue) -> JSONValue) throws -> [String] {
            try audit { altered in
                let last = altered.gates[2]
                guard case .object(var evidence) = last.evidence, let old = evidence[key] else {
                    throw KernelError(.malformed, "the evidence has no \(key)")
                }
                evidence[key] = change(old)
                altered.gates[2] = VerdictDocument.Gate(
                    name: last.name, version: last.version, outcome: last.outcome,
                    reason: last.reason, evidence: .object(evidence))
            }
        }
        func first(_ value: JSONValue) -> JSONValue {
            guard case .array(var list) = value, let number = list[0].int else { return value }
            list[0] = .int(number + 1)
            return .array(list)
        }
        #expect(try audit { _ in } == [])
        #expect(try audit { $0.block = unstamped }.contains { $0.contains("a stamp of 0 bits") })
        for key in ["candidate_unat", "baseline_unat", "documents", "tokens"] {
            #expect(try !gate(key, first).isEmpty, "\(key)")
        }
        #expect(try !gate("slices") { _ in .object([:]) }.isEmpty)
        #expect(try !gate("lower_ppb") { .int(($0.int ?? 0) + 1) }.isEmpty)
        let draw = try #require(document.draw)
        func redraw(
            seed: Digest? = nil, shard: Digest? = nil, count: Int? = nil, secret: Digest? = nil
        )
            throws -> [String]
        {
            try audit {
                $0.draw = VerdictDocument.Draw(
                    shard: shard ?? draw.shard,
                    secrets: secret.map { s in draw.secrets.mapValues { _ in s } } ?? draw.secrets,
                    count: count ?? draw.count, seed: seed ?? draw.seed)
            }
        }
        let other = SHA256.hash([1, 2, 3])
        #expect(try !redraw(seed: other).isEmpty)
        #expect(try !redraw(count: draw.count + 1).isEmpty)
        #expect(try !redraw(secret: other).isEmpty)
        #expect(try !redraw(shard: other).isEmpty)
        #expect(
            try !audit {
                $0.outcome = "reject"; $0.reason = "structure/norm"
            }.isEmpty)
        #expect(
            try !audit {
                $0.received += 1; $0.signatures = document.signatures
            }.isEmpty)
    }

    @Test func badCandidatesAreRefusedWithWhatToDo() throws {
        let home = try JudgedHome(pool: [])
        let judge = try home.node.judge()
        try judge.adoptPolicy()
        func refusal(_ block: Block) -> String {
            do {
                try judge.submit(block)
                return "taken"
            } catch { return "\(error)" }
        }
        let own = try home.tensors()
        let good = try home.block(own)
        #expect(refusal(try home.block(own, bits: 0)).contains("stamp"))
        func altered(_ change: (inout BlockHeader) -> Void) throws -> Block {
            var header = good.header
            change(&header)
            header.nonce = ""
            return try Block(signing: Stamp.search(header), with: home.node.signingKey())
        }
        #expect(
            refusal(try altered { $0.expertName = "layer9.expert9" }).contains("layer9.expert9"))
        #expect(refusal(try altered { $0.expertName = "head" }).contains("experts and routers"))
        #expect(refusal(try altered { $0.version = "1.0.0" }).contains("expected one above"))
        #expect(refusal(try altered { $0.index += 1 }).contains("does not stand where it claims"))
        #expect(refusal(try altered { $0.dependsOn = [] }).contains("depends on no model"))
        #expect(refusal(try altered { $0.timestamp = 1 << 50 }).contains("yet to come"))
        #expect(
            refusal(try altered { $0.previous = home.node.store.genesis }).contains(
                "somebody was faster"))
        #expect(
            refusal(try altered { $0.payloadHash = SHA256.hash([7]) }).contains("payload"))
        // Signed by another key than it claims.
        var line = String(decoding: good.line, as: UTF8.self)
        line = line.replacingOccurrences(
            of: good.header.miner, with: try SigningKey().publicKey)
        let forged = try Block(parsing: Array(line.utf8))
        #expect(refusal(forged).contains("not signed by the key that it claims"))
        #expect(refusal(good) == "taken")
        #expect(refusal(good).contains("waits for its verdict already"))
        // Without held-out text nothing can be judged: it waits on, and is judged when there is some.
        #expect(try judge.judge(good.hash).reason == "quick-perplexity/no-text")
        #expect(judge.candidates.queue.count == 1)
        _ = try judge.addShard(JudgedHome.shard(JudgedHome.pool))
        #expect(try judge.judge(good.hash).outcome == .reject)
        #expect(refusal(good).contains("was judged already"))
    }

    /// What was acknowledged waits through a restart, with its payload, and is judged once.
    @Test func candidatesOutliveARestart() throws {
        let home = try JudgedHome()
        let block = try home.block(home.tensors().mapped { $3 * 1.001 })
        try home.node.judge().submit(block)
        let payload = try #require(block.header.payloadHash)
        try home.reopen()
        #expect(home.node.store.payloads.contains(payload, size: UInt64(block.header.payloadSize)))
        let judge = try home.node.judge()
        #expect(judge.candidates.queue.map(\.block) == [block])
        let made = try #require(try judge.judgeNext())
        #expect(made.candidate == block && made.outcome == .reject)
        #expect(try judge.judgeNext() == nil)
        try home.reopen()
        #expect(try home.node.judge().judgeNext() == nil)
        // Those of rejected candidates are kept for a while, so that they can be judged again.
        #expect(home.node.store.payloads.contains(payload, size: UInt64(block.header.payloadSize)))
        #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
    }

    /// A verdict that is durable ends the wait, also if the process was killed before it could say so.
    @Test func aCandidateWhoseVerdictIsDurableIsNotJudgedAgain() throws {
        let home = try JudgedHome()
        let block = try home.block(home.tensors())
        let judge = try home.node.judge()
        try judge.submit(block)
        let waiting = home.folder.appendingPathComponent("candidates")
        let files = try FileManager.default.contentsOfDirectory(atPath: waiting.path)
        let file = waiting.appendingPathComponent(try #require(files.first))
        let bytes = try Data(contentsOf: file)
        let made = try judge.judge(block.hash)
        // As it lay there before the verdict.
        try bytes.write(to: file)
        try home.reopen()
        let again = try home.node.judge()
        #expect(again.candidates.queue.isEmpty)
        #expect(again.verdict(of: block.hash)?.hash == made.verdict?.hash)
        let verdicts = try home.node.store.blocks(.type(chain: "A", "verdict"))
        #expect(verdicts.count == 1)
    }

    @Test func whoWaitsTooLongBehindAnotherIsTold() throws {
        let home = try JudgedHome()
        let better = try home.block(home.trained())
        let slower = try home.block(home.tensors().mapped { $3 * 1.001 })
        let judge = try home.node.judge()
        try judge.submit(better)
        try judge.submit(slower)
        #expect(try judge.judge(better.hash).outcome == .accept)
        let made = try judge.judge(slower.hash)
        #expect(made.reason == "intake/parent-replaced")
        #expect(try judge.audit(#require(made.verdict)).differences == [])
    }

    /// What a judge needs of a node, with steps of a test's own.
    private static func host(
        _ node: Node, model: (@Sendable () throws -> LoadedModel)? = nil,
        append: (@Sendable ([Block], AcceptedCandidate) throws -> Void)? = nil
    ) -> Judge.Host {
        Judge.Host(
            store: node.store, key: { try node.signingKey() }, plugins: { node.plugins },
            model: { _, _ in try model?() ?? node.model(nil) }, threads: 1,
            clock: { Int64(Date().timeIntervalSince1970 * 1000) }, onStored: { _ in },
            append: append)
    }

    /// A version that was left while a verdict was written does not come back by it.
    @Test func whatChangedMeanwhileIsJudgedAgain() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let other = "layer3.expert5"
        let left = try home.judge(
            home.tensors(other).mapped { $3 * 1.01 }, part: other
        ).candidate
        let node = home.node
        let tries = Mutex(0)
        let judge = try Judge(
            Self.host(
                node,
                append: { record, _ in
                    let count = tries.withLock { count in
                        count += 1
                        return count
                    }
                    if count == 1 { _ = try node.rollback(other, model: nil) }
                    try node.store.append(record)
                }), candidates: CandidateStore(home: home.folder, now: 0))
        let block = try home.block(home.tensors().mapped { $3 * 1.01 })
        try judge.submit(block)
        let made = try judge.judge(block.hash)
        #expect(made.outcome == .accept && tries.withLock { $0 } == 2)
        let parts = try node.model(nil).model.parts
        #expect(parts[JudgedHome.part] == block.hash)
        #expect(parts[other] == left.header.previous)
        #expect(try judge.audit(#require(made.verdict)).differences == [])
    }

    /// The policy is the chain's: a manifest that differs judges nothing until it is adopted.
    @Test func thePolicyIsWhatTheChainSays() throws {
        let home = try JudgedHome()
        _ = try home.judge(home.tensors())
        let first = try #require(try home.node.judge().currentPolicy())
        #expect(
            first.policy.gates.map(\.name) == [
                "structure", "quick-perplexity", "proof-of-learning",
            ])
        let file = home.folder.appendingPathComponent("plugins/structure.yaml")
        let text = try String(contentsOf: file, encoding: .utf8)
        try (text + "config:\n  norm_ratio_percent: 150\n").write(
            to: file, atomically: true, encoding: .utf8)
        try home.reopen()
        let error = #expect(throws: KernelError.self) {
            try home.judge(home.tensors().mapped { $3 * 1.002 })
        }
        #expect(error?.message.contains("structure") == true)
        #expect(try home.node.judge().candidates.queue.count == 1)
        let adopted = try home.node.judge().adoptPolicy()
        #expect(adopted.hash != first.block.hash)
        #expect(try home.node.judge().judgeNext()?.outcome == .reject)
    }

    @Test func shardsAreUsedUpOneAfterTheOther() throws {
        let home = try JudgedHome(pool: [])
        let judge = try home.node.judge()
        let half = JudgedHome.pool.count / 2
        let first = try judge.addShard(JudgedHome.shard(Array(JudgedHome.pool[..<half])))
        _ = try judge.addShard(JudgedHome.shard(Array(JudgedHome.pool[half...])))
        #expect(throws: KernelError.self) {
            try judge.addShard(JudgedHome.shard(Array(JudgedHome.pool[half...])))
        }
        _ = try home.judge(home.tensors())
        #expect(judge.judgements(on: try #require(first.header.payloadHash)) == 1)
    }

    /// A shard that a gate finds too small keeps everything waiting until it is put aside.
    @Test func aShardCanBeRetired() throws {
        let small = Array(JudgedHome.pool.prefix(8))
        let home = try JudgedHome(gates: [("quick-perplexity", "least_ppm: 500")], pool: small)
        try home.adopt([
            ("proof-of-learning", "documents: 96\n  least_documents: 16\n  delta_ppm: 500")
        ])
        let judge = try home.node.judge()
        // From here on nobody can commit one like it.
        let error = #expect(throws: KernelError.self) {
            try judge.addShard(JudgedHome.shard(Array(JudgedHome.pool.suffix(8))))
        }
        #expect(error?.message.contains("no fewer than 16") == true, "\(error?.message ?? "")")
        _ = try judge.addShard(JudgedHome.shard(Array(JudgedHome.pool.dropFirst(8))))
        let block = try home.block(home.tensors())
        try judge.submit(block)
        #expect(try judge.judge(block.hash).reason == "proof-of-learning/too-little-text")
        let shards = try judge.shardBlocks()
        _ = try judge.retireShard(shards[0])
        #expect(throws: KernelError.self) { try judge.retireShard(shards[0]) }
        let made = try judge.judge(block.hash)
        #expect(made.reason == "proof-of-learning/no-improvement")
        let verdict = try #require(made.verdict)
        #expect(
            verdict.header.metadata["shard"]?.string == shards[1].header.payloadHash?.description)
        // Also after the other one is retired: it was in use when that verdict was written.
        _ = try judge.retireShard(shards[1])
        #expect(try judge.audit(verdict).differences == [])
        try home.reopen()
        #expect(try home.node.judge().audit(verdict).differences == [])
        let other = try home.tensors().mapped { $3 * 1.003 }
        #expect(try home.judge(other).reason == "proof-of-learning/no-text")
    }

    /// Who comes first with a piece of work is judged, and nobody twice for it.
    @Test func theSameWorkDoesNotWaitTwice() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let judge = try home.node.judge()
        let tensors = try home.tensors().mapped { $3 * 1.01 }
        let first = try home.block(tensors)
        try judge.submit(first)
        for key in [try home.node.signingKey(), try SigningKey()] {
            let again = try home.block(tensors, key: key)
            let error = #expect(throws: KernelError.self) { try judge.submit(again) }
            #expect(error?.message.contains("\(first.hash)") == true, "\(error?.message ?? "")")
            #expect(error?.hint?.contains("candidate judge") == true)
        }
        #expect(judge.candidates.queue.map(\.block.hash) == [first.hash])
        #expect(try judge.judge(first.hash).outcome == .accept)
        // Whoever asks for what is judged by now is told.
        #expect(
            try judge.judge(first.hash).version?.hash == home.node.model(nil).model.version?.hash)
    }

    /// A document counts once, in whatever shard, order, case and spacing.
    @Test func noDocumentIsCommittedTwice() throws {
        let home = try JudgedHome(gates: [("structure", "")])
        let judge = try home.node.judge()
        let fresh = JudgedHome.sentences(20, seed: 11).map {
            PoolShard.Document(slice: "zorba", text: $0)
        }
        let old = JudgedHome.pool[0]
        for (extra, what) in [
            (fresh[3], "document 4 again"),
            (.init(slice: "other", text: fresh[3].text.uppercased() + " \n"), "document 4 again"),
            (old, "one of shard"), (.init(slice: "zorba", text: "a"), "1 bytes"),
        ] as [(PoolShard.Document, String)] {
            let error = #expect(throws: KernelError.self) {
                try judge.addShard(JudgedHome.shard(fresh + [extra]))
            }
            #expect(error?.message.contains(what) == true, "\(error?.message ?? "")")
            #expect(error?.message.contains("document 21") == true)
        }
        _ = try judge.addShard(JudgedHome.shard(fresh))
    }

    /// Of slices with a few documents each no bound is drawn alone.
    @Test func rareSlicesAreLookedAtTogether() throws {
        let pool = JudgedHome.pool.enumerated().map { i, document in
            PoolShard.Document(
                slice: document.slice == "dictionary" ? "d\(i)" : document.slice,
                text: document.text)
        }
        let home = try JudgedHome(
            gates: [
                ("proof-of-learning", "documents: 96\n  least_documents: 16\n  delta_ppm: 500")
            ], pool: pool)
        let made = try home.judge(home.trained())
        guard case .object(let slices)? = made.gates.last?.evidence["slices"] else {
            Issue.record("no slices")
            return
        }
        #expect(Set(slices.keys) == ["*", "zorba"])
        #expect(slices["*"]?["documents"]?.int == 32)
        #expect(
            slices["*"]?["lower_ppb"]?.int ?? 0 < slices["*"]?["improvement_ppb"]?.int ?? 0)
        #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
    }

    /// A version block that brings more than what was accepted.
    @Test func whatRidesAlongIsFound() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let node = home.node
        let other = "layer0.expert0"
        let left = try home.judge(home.tensors(other).mapped { $3 * 1.01 }, part: other).candidate
        let older = try #require(left.header.previous)
        let judge = try Judge(
            Self.host(
                node,
                append: { record, _ in
                    let version = record[record.count - 1]
                    var list = try JSONDecoder().decode(
                        VersionDocument.self, from: Data(node.store.document(version)))
                    list.parts[other] = older.description
                    let writer = try node.store.payloads.makeWriter()
                    try writer.write(list.encoded())
                    var header = version.header
                    try writer.finish().describe(in: &header, type: "json")
                    try node.store.append(
                        record.dropLast() + [Block(signing: header, with: node.signingKey())])
                }), candidates: CandidateStore(home: home.folder, now: 0))
        let block = try home.block(home.tensors().mapped { $3 * 1.01 })
        try judge.submit(block)
        let made = try judge.judge(block.hash)
        let differences = try judge.audit(#require(made.verdict)).differences
        #expect(differences.contains { $0.contains("and nothing else") }, "\(differences)")
    }

    /// Text and other models may change while a verdict is made: what is written is what an audit finds.
    @Test func textThatIsRetiredMeanwhileIsNotJudgedBy() throws {
        let home = try JudgedHome(gates: [("quick-perplexity", "least_ppm: 500")])
        let node = home.node
        let fresh = JudgedHome.sentences(40, seed: 12).map {
            PoolShard.Document(slice: "zorba", text: $0)
        }
        _ = try node.judge().addShard(JudgedHome.shard(fresh))
        let isDone = Mutex(false)
        let candidates = CandidateStore(home: home.folder, now: 0)
        let judge = try Judge(
            Self.host(
                node,
                // Asked for in the middle of a judgement.
                model: {
                    let isFirst = isDone.withLock { done in
                        defer { done = true }
                        return !done
                    }
                    if isFirst {
                        let other = try node.judge()
                        _ = try other.retireShard(other.shardBlocks()[0])
                    }
                    return try node.model(nil)
                }), candidates: candidates)
        try judge.adoptPolicy()
        let block = try home.block(home.tensors().mapped { $3 * 1.01 })
        try judge.submit(block)
        let verdict = try #require(try judge.judge(block.hash).verdict)
        #expect(
            verdict.header.metadata["shard"]?.string
                == SHA256.hash(JudgedHome.shard(fresh)).description)
        #expect(try judge.audit(verdict).differences == [])
    }
}
