import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// A gate that learns from verdicts what is not worth evaluating, and can be audited at every point.
@Suite(.serialized) struct ImmuneTests {
    /// What is far too large is refused by the gate behind it; a little noise is not.
    private func home(explore: Int) throws -> JudgedHome {
        try JudgedHome(
            gates: [
                ("immune", "budget_ppm: 200000\n  explore_ppm: \(explore)"), ("structure", ""),
            ], pool: [])
    }

    private func submit(_ home: JudgedHome, _ i: Int, large: Bool) throws -> Judge.Judgement {
        var random = SplitMix64(seed: UInt64(i))
        return try home.judge(
            home.tensors().mapped { _, _, _, value in
                large ? value * 50 : value + Float(random.next(below: 2001)) * 1e-6 - 1e-3
            })
    }

    @Test func whatOthersRefuseIsLearnt() throws {
        let home = try home(explore: 0)
        var verdicts: [Block] = []
        for i in 0..<16 {
            let made = try submit(home, i, large: i % 2 == 1)
            let isEarly = i < 8
            if i % 2 == 0 { #expect(made.outcome == .accept, "\(i): \(made.reason)") }
            if i % 2 == 1, isEarly { #expect(made.outcome == .reject, "\(i)") }
            try verdicts.append(#require(made.verdict))
        }
        let made = try submit(home, 16, large: true)
        #expect(made.reason == "immune/unlikely", "\(made.reason) \(made.gates)")
        #expect(try submit(home, 17, large: false).outcome == .accept)
        // Judged again, each looks back on what was before it, in any order and by a gate that knows nothing yet.
        let judge = try home.node.judge()
        for verdict in [verdicts[15], verdicts[2], verdicts[9]] {
            #expect(try judge.audit(verdict).differences == [])
        }
        try home.reopen()
        #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
        #expect(try home.node.judge().audit(verdicts[5]).differences == [])
    }

    @Test func nothingIsRefusedBeforeTheBudgetCanBeKept() throws {
        let home = try home(explore: 0)
        for i in 0..<6 {
            #expect(try submit(home, i, large: true).reason == "structure/norm")
        }
    }

    @Test func someOfTheUnlikelyPassToLearnFrom() throws {
        let home = try home(explore: 1_000_000)
        for i in 0..<16 { _ = try submit(home, i, large: i % 2 == 1) }
        let made = try submit(home, 17, large: true)
        #expect(made.reason == "structure/norm")
        #expect(made.gates.first?.evidence["explored"] == .bool(true))
    }
}
