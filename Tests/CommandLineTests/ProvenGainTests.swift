import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanModel
import BlyanServer
import Testing

/// A gain is paid once, whatever an operator rolls back.
@Suite struct ProvenGainTests {
    private static let part = "layer0.expert0"

    /// A receipt by which a candidate is accepted with a lower bound; its evidence is made up.
    private func receipt(_ shop: Workshop, _ candidate: Block, lower: Int64) throws
        -> VerdictDocument
    {
        let node = try shop.node
        let model = try node.catalog.model(named: nil)
        let policy = try #require(
            try node.store.blocks(.type(chain: "A", "policy")).last {
                $0.header.metadata["kind"]?.string == "judging"
            })
        var document = try Workshop.document(
            VerdictDocument(
                model: model.meta.hash, version: #require(model.version).hash, policy: policy.hash,
                block: candidate, router: nil, received: Workshop.now, draw: nil, gates: [],
                outcome: "accept", reason: ""),
            gates: [
                [
                    "improvement_ppb": .int(lower + 10), "lower_ppb": .int(lower),
                    "delta_ppb": .int(1000),
                ]
            ])
        try document.sign(node.signingKey(), genesis: #require(node.store.genesis))
        return document
    }

    /// The gain that a policy is told of; then the candidate is the current version.
    private func accept(_ shop: Workshop, lower: Int64, factor: Float) throws -> RewardEvent.Gain? {
        let node = try shop.node
        let candidate = try shop.candidate(Self.part, factor: factor)
        let document = try receipt(shop, candidate, lower: lower)
        let told = try node.acceptance(candidate, document)
        let model = try node.catalog.model(named: nil)
        let (key, place) = (try node.signingKey(), node.store.next(on: "A"))
        let verdict = try DocumentBlock(
            "verdict", document.encoded, dependsOn: [model.meta.hash, candidate.hash],
            metadata: [
                "candidate": .string(candidate.hash.description), "outcome": .string("accept"),
                "reason": .string(""), "author": .string(candidate.header.miner),
            ], in: node.store
        ).block(at: place, with: key, now: Workshop.now)
        var parts = model.parts
        parts[Self.part] = candidate.hash
        let list = VersionDocument(
            model: model.meta.hash, parts: parts, parent: model.version?.hash,
            verdict: verdict.hash)
        let version = try DocumentBlock(
            "version", list.encoded(), dependsOn: [model.meta.hash],
            metadata: ["model": .string(model.name)], in: node.store
        ).block(at: (place.index + 1, verdict.hash), with: key, now: Workshop.now)
        try node.store.append([candidate, verdict, version])
        // An auditor finds the same, whatever came later.
        #expect(try node.acceptance(candidate, document, by: verdict) == .some(told))
        guard case .accepted(let event) = told else { return nil }
        return event.gain
    }

    @Test func aGainIsPaidOnce() throws {
        let shop = try Workshop("")
        _ = try shop.submit("layer0.expert1")
        let node = try shop.node
        // An expert that only moves forward is paid for every step.
        #expect(try accept(shop, lower: 5000, factor: 1.01)?.lower == 5000)
        #expect(try accept(shop, lower: 3000, factor: 1.02)?.lower == 3000)
        // Back to the first of the two: its 5,000 stand, of 4,000 more 3,000 are paid already.
        _ = try node.rollback(Self.part, model: nil)
        let again = try accept(shop, lower: 4000, factor: 1.03)
        #expect(again == RewardEvent.Gain(improvement: 1010, lower: 1000, delta: 1000))
        // Back to the import: less than what was proven in all is not paid at all, more in part.
        for (lower, paid) in [(8000, 0), (9500, 500)] as [(Int64, Int64)] {
            let first = try #require(
                try node.store.blocks(.expert(Self.part)).first { $0.header.index <= 1 })
            _ = try node.rollback(Self.part, model: nil, to: first.hash)
            #expect(try accept(shop, lower: lower, factor: 1.04)?.lower == paid)
        }
        #expect(try node.store.verify().failures.isEmpty)
    }

    @Test func whatAReviewShowsToBeWorseHasProvenNothing() throws {
        let shop = try Workshop("")
        _ = try shop.submit("layer0.expert1")
        let node = try shop.node
        #expect(try accept(shop, lower: 5000, factor: 1.01)?.lower == 5000)
        let current = try #require(try node.catalog.model(named: nil).parts[Self.part])
        _ = try shop.verdict(on: #require(try node.store.block(current)), upper: -1)
        _ = try node.rollback(Self.part, model: nil)
        #expect(try accept(shop, lower: 4000, factor: 1.02)?.lower == 4000)
    }
}
