import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// Who may upload how much, from verdicts alone.
@Suite struct TrustTests {
    private static let noon: Int64 = 20_000 * Trust.day + Trust.day / 2

    private func trust(_ outcomes: Trust.Outcome..., time: Int64 = noon) -> Trust {
        outcomes.reduce(into: Trust()) { $0.add($1, time: time) }
    }

    @Test func threeInARowMakeTrusted() {
        #expect(trust(.accepted, .accepted).level == .newbie)
        #expect(trust(.accepted, .accepted, .accepted).level == .trusted)
        #expect(trust(.accepted, .accepted, .rejected, .accepted).level == .newbie)
        // That somebody was faster breaks no row.
        #expect(trust(.accepted, .accepted, .overtaken, .accepted).level == .trusted)
    }

    @Test func aLongRecordMakesAnExpert() {
        var trust = trust(.accepted, .accepted, .accepted)
        for _ in 1..<Trust.record { trust.add(.accepted, time: Self.noon) }
        #expect(trust.level == .trusted)
        trust.add(.accepted, time: Self.noon)
        #expect(trust.level == .expert)
        #expect(trust.standing(now: Self.noon).quota == 1000)
    }

    @Test func fiveInARowLoseALevel() {
        var trust = trust(.accepted, .accepted, .accepted)
        for _ in 1...Trust.record { trust.add(.accepted, time: Self.noon) }
        for _ in 1...4 { trust.add(.rejected, time: Self.noon) }
        trust.add(.overtaken, time: Self.noon)
        #expect(trust.level == .expert)
        trust.add(.rejected, time: Self.noon)
        #expect(trust.level == .trusted)
        for _ in 1...5 { trust.add(.rejected, time: Self.noon) }
        #expect(trust.level == .newbie)
        for _ in 1...50 { trust.add(.rejected, time: Self.noon) }
        #expect(trust.level == .newbie)
    }

    @Test func twentyADayAndAnAcceptedOneGivesItsUploadBack() throws {
        var trust = Trust()
        for _ in 1...19 { trust.add(.rejected, time: Self.noon) }
        trust.add(.accepted, time: Self.noon)
        #expect(trust.standing(now: Self.noon).used == 19)
        try trust.admit(author: "02ab", now: Self.noon)
        trust.add(.overtaken, time: Self.noon + 1)
        let error = #expect(throws: KernelError.self) {
            try trust.admit(author: "02ab", now: Self.noon)
        }
        #expect(error?.code == .limit)
        #expect(error?.message.contains("quota exceeded: author 02ab is newbie") == true)
        #expect(error?.message.contains("used 20 of 20") == true)
        #expect(error?.message.contains("refills at 2024-10-05T00:00:00Z") == true)
        // Tomorrow.
        let refills = trust.standing(now: Self.noon).refills
        #expect(throws: KernelError.self) { try trust.admit(author: "a", now: refills - 1) }
        try trust.admit(author: "a", now: refills)
        #expect(trust.standing(now: refills).left == 20)
    }

    @Test func whatWaitsIsUsedUp() throws {
        let trust = Trust()
        try trust.admit(author: "a", now: Self.noon, waiting: 19)
        let error = #expect(throws: KernelError.self) {
            try trust.admit(author: "a", now: Self.noon, waiting: 20)
        }
        #expect(error?.hint?.contains("wait for their verdict") == true)
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func randomRecordsKeepTheRules(seed: UInt64) {
        var random = SeededRandom(state: seed)
        for _ in 0..<200 {
            var trust = Trust()
            var (now, row, streak): (Int64, Int64, Int64) = (Self.noon, 0, 0)
            for _ in 0..<300 {
                // Clocks of validators differ, and may go back.
                now += Int64.random(in: -1_000_000...10_000_000, using: &random)
                let before = trust.level
                let outcome = [Trust.Outcome.accepted, .rejected, .overtaken].randomElement(
                    using: &random)
                guard let outcome else { continue }
                let used = trust.standing(now: now).used
                trust.add(outcome, time: now)
                switch outcome {
                case .accepted: (row, streak) = (row + 1, 0)
                case .rejected: (row, streak) = (0, streak + 1)
                case .overtaken: break
                }
                if trust.level > before {
                    #expect(outcome == .accepted && (row >= 3 || before > .newbie))
                }
                if trust.level < before { #expect(outcome == .rejected && streak >= 5) }
                let standing = trust.standing(now: now)
                #expect(standing.used >= 0 && standing.left <= standing.quota)
                #expect(outcome != .accepted || standing.used <= used)
                #expect(standing.refills > now)
                if trust.rejectedInRow == 0, outcome == .rejected { streak = 0 }
            }
        }
    }

    @Test func theBookFollowsTheHeaders() throws {
        let key = try Bank.key(3)
        var book = TrustBook()
        var blocks: [Block] = []
        func add(_ type: String, _ facts: [String: JSONValue]) throws {
            var header = BlockHeader(
                chainID: "A", blockType: type, index: Int64(blocks.count), previous: nil,
                timestamp: Self.noon)
            header.metadata = facts
            blocks.append(try Block(signing: header, with: key))
        }
        func verdict(_ author: String, _ outcome: String, _ reason: String = "") throws {
            try add(
                "verdict",
                [
                    "author": .string(author), "outcome": .string(outcome),
                    "reason": .string(reason),
                ])
        }
        for _ in 0..<3 { try verdict("a", "accept") }
        try verdict("b", "reject", "structure/norm")
        try verdict("b", "reject", "intake/parent-replaced")
        try add("policy", ["author": .string("b"), "outcome": .string("accept")])
        try add("verdict", ["outcome": .string("accept")])
        try verdict("b", "else")
        // What was accepted was judged again: no upload.
        try add(
            "verdict",
            ["author": .string("a"), "outcome": .string("reject"), "review": .bool(true)])
        for block in blocks { book.add(block) }
        #expect(book.next == 9)
        #expect(book.trust("a").level == .trusted && book.trust("a").accepted == 3)
        #expect(book.trust("b").judged == 2 && book.trust("b").rejectedInRow == 1)
        #expect(book.trust("nobody") == Trust())
        // The same from another home, in two parts.
        var again = TrustBook()
        for block in blocks.prefix(4) { again.add(block) }
        for block in blocks.dropFirst(Int(again.next)) { again.add(block) }
        #expect(again.trust("b") == book.trust("b"))
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00Z"), (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59Z"), (-1, "1969-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] as [(Int64, String)])
    func timesAreWritten(milliseconds: Int64, text: String) {
        #expect(UTC.text(milliseconds) == text)
    }
}
