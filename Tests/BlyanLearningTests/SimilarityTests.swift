import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// First committer of equal work wins, however the second one dresses it.
@Suite(.serialized) struct SimilarityTests {
    /// Neurons in another order.
    private func reordered(_ tensors: [ExpertFile.Tensor], _ seed: UInt64) -> [ExpertFile.Tensor] {
        var random = SplitMix64(seed: seed)
        let neurons = tensors.first { $0.name == "gate" }?.rows ?? 0
        let order = (0..<neurons).shuffled(using: &random)
        return tensors.map { tensor in
            let values = tensor.values
            return ExpertFile.Tensor(
                name: tensor.name, rows: tensor.rows, columns: tensor.columns,
                values: values.indices.map {
                    let (row, column) = ($0 / tensor.columns, $0 % tensor.columns)
                    return tensor.name == "down"
                        ? values[row * tensor.columns + order[column]]
                        : values[order[row] * tensor.columns + column]
                })
        }
    }

    /// A factor from each up row to the column of down that it feeds.
    private func rescaled(_ tensors: [ExpertFile.Tensor], by factor: (Int) -> Float)
        -> [ExpertFile.Tensor]
    {
        tensors.mapped { name, row, column, value in
            switch name {
            case "up": value * factor(row)
            case "down": value / factor(column)
            default: value
            }
        }
    }

    private func added(
        _ base: [ExpertFile.Tensor], _ own: [ExpertFile.Tensor], _ old: [ExpertFile.Tensor],
        _ factor: Float = 1
    ) -> [ExpertFile.Tensor] {
        base.indices.map { i in
            ExpertFile.Tensor(
                name: base[i].name, rows: base[i].rows, columns: base[i].columns,
                values: base[i].values.indices.map {
                    base[i].values[$0] + factor * (own[i].values[$0] - old[i].values[$0])
                })
        }
    }

    private func told(_ made: Judge.Judgement) -> String {
        guard case .object(var evidence)? = made.gates.last?.evidence else { return "" }
        evidence["change"] = nil
        return String(decoding: JSONValue.object(evidence).canonical(), as: UTF8.self)
    }

    @Test func equalWorkIsNotTakenTwice() throws {
        let home = try JudgedHome(gates: [("structure", ""), ("similarity", "")], pool: [])
        let old = try home.tensors()
        let own = try home.trained()
        let first = try home.judge(own)
        #expect(first.outcome == .accept, "\(first.reason)")
        let base = try home.tensors()
        let more = added(base, own, old)
        let cases: [(String, [ExpertFile.Tensor])] = [
            ("again", more), ("half as strong", added(base, own, old, 0.5)),
            ("in another order", reordered(more, 1)),
            ("rescaled", rescaled(more) { $0 % 2 == 0 ? 1.37 : -0.8 }),
            ("both", reordered(rescaled(more) { $0 % 3 == 0 ? 0.7 : 1.3 }, 2)),
        ]
        for (name, tensors) in cases {
            let made = try home.judge(tensors)
            // What is little beside its rescaling is refused as that.
            let reason = name == "rescaled" ? "rescaled" : "copied-change"
            #expect(
                made.reason == "similarity/" + reason, "\(name): \(made.reason) \(told(made))")
            #expect(
                try home.node.judge().audit(#require(made.verdict)).differences == [], "\(name)")
        }
        // An audit of the first verdict looks back no further than that did.
        #expect(try home.node.judge().audit(first.candidate).differences == [])
        // Work of one's own goes on, also with neurons in another order.
        let next = try home.trained(steps: 12)
        let other = try home.judge(reordered(next, 3))
        #expect(other.outcome == .accept, "\(other.reason) \(other.gates)")
        try home.reopen()
        #expect(try home.node.judge().audit(other.candidate).differences == [])
    }

    /// Whoever was rejected may do it better: only then the work is taken, and from then on nobody's to take again.
    @Test func ownWorkThatWasRejectedIsNoCopy() throws {
        let gates = [("structure", ""), ("similarity", "")]
        let hopeless = ("quick-perplexity", "least_ppm: 1000000")
        let home = try JudgedHome(gates: gates + [hopeless])
        let old = try home.tensors(), own = try home.trained()
        let (author, other) = try (SigningKey(), SigningKey())
        func judge(_ factor: Float, by key: SigningKey) throws -> Judge.Judgement {
            try home.judge(added(old, own, old, factor), key: key)
        }
        let first = try judge(1, by: author)
        #expect(first.reason.hasPrefix("quick-perplexity/"), "\(first.reason)")
        let gentler = try judge(0.7, by: author)
        #expect(gentler.reason.hasPrefix("quick-perplexity/"), "\(gentler.reason) \(told(gentler))")
        let copy = try judge(0.7, by: other)
        #expect(copy.reason == "similarity/copied-change", "\(copy.reason)")
        let copied = copy.gates.last?.evidence["nearest_candidate"]?.string
        #expect(copied == gentler.candidate.hash.description, "\(told(copy))")
        // What was refused as a copy is the copier's own as little.
        #expect(try judge(0.6, by: other).reason == "similarity/copied-change")
        // An audit looks back on what there was, and finds the same.
        for made in [first, gentler, copy] {
            #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
        }
        try home.adopt(gates)
        let taken = try judge(0.5, by: author)
        #expect(taken.outcome == .accept, "\(taken.reason) \(told(taken))")
        let base = try home.tensors()
        for key in [author, other] {
            let again = try home.judge(added(base, own, old, 0.4), key: key)
            #expect(again.reason == "similarity/copied-change", "\(again.reason)")
        }
    }

    @Test func nothingNewIsRefused() throws {
        let home = try JudgedHome(gates: [("structure", ""), ("similarity", "")], pool: [])
        let own = try home.tensors()
        let cases: [(String, [ExpertFile.Tensor], String)] = [
            ("the same", own, "no-change"), ("another order", reordered(own, 1), "no-change"),
            ("powers of two", rescaled(own) { $0 % 2 == 0 ? 2 : -0.5 }, "rescaled"),
            ("other factors", rescaled(own) { $0 % 2 == 0 ? 1.3 : 0.7 }, "rescaled"),
            (
                "both", reordered(rescaled(own) { $0 % 2 == 0 ? 1.3 : 0.7 }, 2), "rescaled"
            ),
            ("larger", own.mapped { $3 * 1.25 }, "rescaled"),
            ("sign flip", own.mapped { -$3 }, "rescaled"),
            ("larger gates", own.mapped { $0 == "gate" ? $3 * 1.1 : $3 }, "rescaled"),
            ("another expert", try home.tensors("layer2.expert7"), "copied-expert"),
            (
                "another expert in another order",
                reordered(rescaled(try home.tensors("layer1.expert2")) { _ in 1.5 }, 4),
                "copied-expert"
            ),
        ]
        for (name, tensors, reason) in cases {
            let made = try home.judge(tensors)
            #expect(made.reason == "similarity/" + reason, "\(name): \(made.reason) \(told(made))")
        }
    }

    /// Also where no gate before it looks for them.
    @Test func whatIsNoNumberIsNoWork() throws {
        let home = try JudgedHome(gates: [("similarity", "")], pool: [])
        let own = try home.tensors()
        for odd in [Float.nan, .infinity, -.infinity] {
            let made = try home.judge(own.mapped { $1 == 3 && $2 == 5 ? odd : $3 })
            #expect(made.reason == "similarity/not-finite", "\(odd): \(told(made))")
        }
        #expect(try home.judge(own.mapped { _, _, _, _ in .nan }).outcome == .reject)
    }

    @Test func aRouterIsComparedToo() throws {
        let home = try JudgedHome(gates: [("structure", ""), ("similarity", "")], pool: [])
        let router = "layer3.router"
        let old = try home.tensors(router)
        var random = SplitMix64(seed: 5)
        let own = old.mapped { $3 + Float(random.next(below: 2001)) * 1e-5 - 1e-2 }
        #expect(try home.judge(old, part: router).reason == "similarity/no-change")
        #expect(
            try home.judge(old.mapped { $3 * 1.1 }, part: router).reason == "similarity/rescaled")
        let made = try home.judge(own, part: router)
        #expect(made.outcome == .accept, "\(made.reason)")
        let base = try home.tensors(router)
        #expect(
            try home.judge(added(base, own, old, 2), part: router).reason
                == "similarity/copied-change")
    }
}
