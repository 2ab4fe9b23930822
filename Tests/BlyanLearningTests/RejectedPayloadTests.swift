import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// What is kept of rejected candidates, and what never goes.
@Suite struct RejectedPayloadTests {
    private let home: JudgedHome
    private let judge: Judge

    init() throws {
        home = try JudgedHome(gates: [("structure", "")], pool: [])
        judge = try home.node.judge()
    }

    /// A candidate that the gate rejects.
    private func rejected(_ factor: Float) throws -> Block {
        let made = try home.judge(home.tensors().mapped { $3 * factor })
        try #require(made.outcome == .reject)
        return made.candidate
    }

    private func isThere(_ block: Block) throws -> Bool {
        try FileManager.default.fileExists(
            atPath: home.node.store.payloads.path(of: #require(block.header.payloadHash)))
    }

    private func allow(_ bytes: Int64, milliseconds: Int64 = .max) {
        var budget = CandidateStore.Budget()
        (budget.bytes, budget.milliseconds) = (bytes, milliseconds)
        judge.candidates.budget = budget
    }

    @Test func theOldestGoBeyondTheBudgetOfBytes() throws {
        let first = try rejected(50)
        allow(2 * first.header.payloadSize)
        let blocks = try [first, rejected(51), rejected(52), rejected(53)]
        #expect(try blocks.map(isThere) == [false, false, true, true])
        try home.reopen()
        #expect(try blocks.map(isThere) == [false, false, true, true])
        #expect(try home.node.store.verify().failures.isEmpty)
        // The verdict stays; judging again needs what is gone, and says so.
        let verdict = try #require(try home.node.judge().verdict(of: first.hash))
        #expect(throws: KernelError.self) { try home.node.judge().audit(verdict) }
        let last = try #require(try home.node.judge().verdict(of: blocks[3].hash))
        #expect(try home.node.judge().audit(last).differences == [])
    }

    @Test func theOldGoByAgeWithoutAVerdict() throws {
        let block = try rejected(50)
        allow(.max, milliseconds: 60_000)
        try home.node.prunePayloads()
        #expect(try isThere(block))
        allow(.max, milliseconds: -1)
        try home.node.prunePayloads()
        #expect(try !isThere(block))
    }

    @Test func whatABlockNamesStays() throws {
        let current = try #require(try home.node.model(nil).model.parts[JudgedHome.part])
        let standing = try #require(try home.node.store.block(current))
        // The same bytes as those that serve, in a shape that the gate takes: rejected as replaced.
        let twin = try home.block(home.tensors())
        #expect(twin.header.payloadHash == standing.header.payloadHash)
        try judge.submit(twin)
        _ = try home.judge(home.tensors().mapped { $3 * 1.01 })
        allow(0)
        let made = try judge.judge(twin.hash)
        #expect(made.outcome == .reject && made.reason == "intake/parent-replaced")
        #expect(try isThere(twin))
        #expect(try home.node.store.verify().failures.isEmpty)
        #expect(judge.candidates.keeps(try #require(twin.header.payloadHash)) == false)
    }

    @Test func whatAnotherCandidateHasStays() throws {
        let block = try rejected(50)
        let again = try home.block(home.tensors().mapped { $3 * 50 })
        #expect(again.header.payloadHash == block.header.payloadHash && again.hash != block.hash)
        try judge.submit(again)
        allow(0)
        judge.prune()
        #expect(try isThere(again))
        #expect(try judge.judge(again.hash).outcome == .reject)
        #expect(try !isThere(again))
    }

    @Test func nothingGoesWhilePayloadsAreWritten() throws {
        let block = try rejected(50)
        allow(0)
        try home.node.holdingPayloads {
            judge.prune()
            _ = try rejected(51)
            #expect(try isThere(block))
        }
        judge.prune()
        #expect(try !isThere(block))
    }

    /// A copy of a home with nothing but blocks and payloads: what was rejected can be audited there too.
    @Test func aCopyWithoutCandidatesKeepsThem() throws {
        let blocks = try [rejected(50), rejected(51)]
        let stray = try home.node.store.payloads.makeWriter()
        try stray.write(Array("no block names this".utf8))
        let nobodys = try stray.finish().hash
        try FileManager.default.removeItem(
            at: home.folder.appendingPathComponent("candidates"))
        for _ in 0..<2 {
            try home.reopen()
            let judge = try home.node.judge()
            for block in blocks {
                #expect(try isThere(block))
                #expect(try judge.audit(#require(judge.verdict(of: block.hash))).differences == [])
            }
            #expect(
                !FileManager.default.fileExists(atPath: home.node.store.payloads.path(of: nobodys)))
        }
        // They are kept as long as others are.
        let judge = try home.node.judge()
        judge.candidates.budget.bytes = blocks[1].header.payloadSize
        judge.prune()
        #expect(try blocks.map(isThere) == [false, true])
    }
}
