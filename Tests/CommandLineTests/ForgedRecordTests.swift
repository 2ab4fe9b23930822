import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// What a validator could write beside what the node writes: refused by the chain, or found by an audit.
@Suite struct ForgedRecordTests {
    static let part = "layer0.expert0"

    /// A version block as a validator might write it.
    private func version(
        _ shop: Workshop, _ parts: [String: Digest], parent: Digest?, verdict: Digest?
    ) throws -> Block {
        let node = try shop.node
        let model = try node.catalog.model(named: nil)
        let list = VersionDocument(
            model: model.meta.hash, parts: parts, parent: parent, verdict: verdict)
        return try DocumentBlock(
            "version", list.encoded(), dependsOn: [model.meta.hash],
            metadata: ["model": .string(model.name)], in: node.store
        ).block(at: node.store.next(on: "A"), with: node.signingKey(), now: Workshop.now)
    }

    @Test func partsChangeByVerdictsAndByGoingBackAlone() throws {
        let shop = try Workshop("rewards: flat")
        let made = try shop.submit()
        let verdict = try #require(made.verdict).hash
        let node = try shop.node
        let model = try node.catalog.model(named: nil)
        let newest = try #require(model.version)
        let first = try #require(made.candidate.header.previous)
        let unjudged = try shop.candidate(factor: 1.3)
        try node.store.append([unjudged])
        func refusal(_ parts: [String: Digest], _ parent: Digest?, _ verdict: Digest?) throws
            -> String
        {
            let block = try version(shop, parts, parent: parent, verdict: verdict)
            let error = #expect(throws: KernelError.self) { try node.store.append([block]) }
            #expect(error?.code == .rule)
            return error?.message ?? ""
        }
        var parts = model.parts
        parts[Self.part] = unjudged.hash
        // Without a verdict, by that on something else, as a new beginning, and past the newest version.
        for verdict in [nil, verdict] {
            #expect(try refusal(parts, newest.hash, verdict).contains("was not current before"))
        }
        #expect(try refusal(parts, nil, nil).contains("the newest of its model is"))
        let old = try #require(
            try node.store.blocks(.type(chain: "A", "version")).first { $0.hash != newest.hash })
        #expect(try refusal(model.parts, old.hash, nil).contains("the newest of its model is"))
        // What was current before comes back, and what was accepted again after it.
        for hash in [first, made.candidate.hash] {
            let model = try node.catalog.model(named: nil)
            parts = model.parts
            parts[Self.part] = hash
            try node.store.append([
                version(shop, parts, parent: model.version?.hash, verdict: nil)
            ])
        }
        #expect(try node.catalog.model(named: nil).parts[Self.part] == made.candidate.hash)
        #expect(try node.store.verify().failures.isEmpty)
    }

    @Test func noPolicyGovernsWhatWasPaidBefore() throws {
        let shop = try Workshop("rewards: flat")
        try shop.submit()
        let node = try shop.node
        var terms = try #require(try RewardTerms.governing(node.store)).terms
        for first in [0, 2] as [Int64] {
            terms.first = first
            let block = try DocumentBlock(
                "policy", terms.document.canonical(), dependsOn: [],
                metadata: ["kind": .string(RewardTerms.kind), "name": .string(terms.name)],
                in: node.store
            ).block(at: node.store.next(on: "A"), with: node.signingKey(), now: Workshop.now)
            let error = #expect(throws: KernelError.self) { try node.store.append([block]) }
            #expect(error?.message.contains("expected the next one, 1") == true)
        }
    }

    @Test func aReviewEarnsNothing() throws {
        let shop = try Workshop("rewards: flat")
        let author = try Workshop.key(44)
        let made = try shop.submit(by: author)
        let node = try shop.node
        let document = try LedgerDocument(
            node.store.document(#require(try shop.ledger.last)))
        guard case .reward(let honest)? = document.transactions.first else { return }
        let review = try shop.verdict(on: made.candidate, upper: 7, outcome: "accept")
        let reason = Reason(
            blocks: honest.reason.blocks, verdict: review.hash, policy: honest.reason.policy)
        let again = try node.ledger.append(
            [
                .reward(
                    Reward(to: honest.to, amount: honest.amount, vesting: 0, reason: reason))
            ], key: node.signingKey(), time: Workshop.now)
        let found = try node.auditRewards(of: again).differences
        #expect(found.contains { $0.contains("paid for \(made.candidate.hash) before") })
        #expect(found.contains { $0.contains("1 rewards, the policy gives 0") }, "\(found)")
    }

    /// Record by record, as another home could have them, but without what a validator leaves out.
    @Test func whatIsMissingIsFound() throws {
        let shop = try Workshop("rewards: flat")
        try shop.edit("flat") { $0.replacing("vesting_blocks: 0", with: "vesting_blocks: 4") }
        let author = try Workshop.key(46)
        let made = try shop.submit(by: author)
        let verdict = try #require(made.verdict)
        let node = try shop.node
        #expect(try node.missingRewards(of: verdict).isEmpty)
        let review = try shop.verdict(on: made.candidate, upper: -1)
        let missing = try node.missingRewards(of: review)
        #expect(missing.count == 1 && missing[0].contains("transaction 0 of block 0"), "\(missing)")
        try node.ledger.append(
            node.clawbacks(of: made.candidate, because: review), key: node.signingKey(),
            time: Workshop.now)
        #expect(try node.missingRewards(of: review).isEmpty)
        // Chain C never had the payment.
        let bare = try Workshop("rewards: flat")
        bare.close()
        for folder in ["payloads", "log"] {
            let (from, to) = (shop.home.folder, bare.home.folder)
            try FileManager.default.removeItem(at: to.appendingPathComponent(folder))
            try FileManager.default.copyItem(
                at: from.appendingPathComponent(folder), to: to.appendingPathComponent(folder))
        }
        for folder in ["index", "ledger"] {
            try? FileManager.default.removeItem(at: bare.home.folder.appendingPathComponent(folder))
        }
        let log = bare.home.folder.appendingPathComponent("log/records.log")
        try Self.dropLedger(from: log)
        let unpaid = try bare.node.missingRewards(of: verdict)
        #expect(unpaid.count == 1 && unpaid[0].contains("nobody was paid"), "\(unpaid)")
    }

    /// Takes the blocks of chain C out of a log: its frames are "BLR1", the length, 16 bytes of SHA-256, and lines.
    private static func dropLedger(from log: URL) throws {
        var rest = try [UInt8](Data(contentsOf: log))[...]
        var kept: [UInt8] = []
        while rest.count >= 24 {
            let count = rest.dropFirst(4).prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
            let lines = rest.dropFirst(24).prefix(count).split(separator: UInt8(ascii: "\n"))
            rest = rest.dropFirst(24 + count)
            let body = try lines.filter { try Block(parsing: Array($0)).header.chainID != "C" }
                .flatMap { Array($0) + [UInt8(ascii: "\n")] }
            guard !body.isEmpty else { continue }
            kept += Array("BLR1".utf8)
            kept += (0..<4).map { UInt8(truncatingIfNeeded: body.count >> (8 * $0)) }
            kept += SHA256.hash(body).bytes.prefix(16) + body
        }
        try Data(kept).write(to: log)
    }
}
