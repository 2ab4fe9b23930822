import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Going back, and forward, with what was accepted together.
@Suite struct RollbackTests {
    private static let (part, router) = ("layer0.expert0", "layer0.router")

    /// An expert that was accepted with its layer's router.
    private func pair(_ shop: Workshop) throws -> (expert: Block, router: Block) {
        let node = try shop.node
        let contribution = try Contribution(
            to: node.model(nil), store: node.store, plugins: node.plugins)
        let key = try node.signingKey()
        let router = try contribution.block(
            Self.router, shop.tensors(of: Self.router, factor: 1.01), key: key, bits: 0,
            now: Workshop.now)
        let expert = try contribution.block(
            Self.part, shop.tensors(of: Self.part, factor: 1.01), with: router, key: key, bits: 12,
            now: Workshop.now)
        try node.judge().submit(expert, router: router)
        try #require(try node.judge().judge(expert.hash).outcome == .accept)
        return (expert, router)
    }

    private func parts(_ shop: Workshop) throws -> [Digest?] {
        let parts = try shop.node.catalog.model(named: nil).parts
        return [parts[Self.part], parts[Self.router]]
    }

    @Test func aPairMovesInOneStep() throws {
        let shop = try Workshop("")
        let first = try parts(shop)
        let one = try pair(shop)
        let two = try pair(shop)
        let versions = try shop.node.store.blocks(.type(chain: "A", "version")).count
        // By either half, over one pair or two, and forward again.
        let back = try shop.node.rollback(Self.part, model: nil)
        #expect(back.others.map(\.from.hash) == [two.router.hash])
        #expect(back.others.map(\.to.hash) == [one.router.hash])
        #expect(try parts(shop) == [one.expert.hash, one.router.hash])
        _ = try shop.node.rollback(Self.part, model: nil, to: two.expert.hash)
        #expect(try parts(shop) == [two.expert.hash, two.router.hash])
        _ = try shop.node.rollback(Self.router, model: nil, to: first[1])
        #expect(try parts(shop) == first)
        _ = try shop.node.rollback(Self.router, model: nil, to: two.router.hash)
        #expect(try parts(shop) == [two.expert.hash, two.router.hash])
        #expect(
            try shop.node.store.blocks(.type(chain: "A", "version")).count == versions + 4)
        shop.close()
        let text = try shop.home.succeed("expert", "rollback", Self.part)
        #expect(text.contains("with      layer0.router, since both were accepted together"))
        #expect(text.contains("to        1.1.0  \(one.router.hash)"), "\(text)")
        // A router that was replaced since is not the pair's any more.
        let next = try shop.submit(Self.router)
        try #require(next.outcome == .accept)
        #expect(try shop.node.rollback(Self.part, model: nil).others.isEmpty)
        #expect(try parts(shop) == [first[0], next.candidate.hash])
        #expect(try shop.node.store.verify().failures.isEmpty)
        shop.close()
        try shop.home.fail(
            "expert", "rollback", Self.part,
            naming: ["nothing came before", "--to HASH", "expert show"])
    }

    @Test func whatAReviewFoundWorseComesBackWithAWarning() throws {
        let shop = try Workshop("rewards: flat")
        try shop.edit("flat") { $0.replacing("vesting_blocks: 0", with: "vesting_blocks: 4") }
        let made = try pair(shop)
        let review = try shop.verdict(on: made.expert, upper: -1)
        // The review of the expert counts where its router is named.
        let back = try shop.node.rollback(Self.router, model: nil)
        #expect(back.verdict == review.hash && back.clawback != nil)
        shop.close()
        let again = try shop.home.run(
            "expert", "rollback", Self.part, "--to", "\(made.expert.hash)")
        #expect(again.status == 0, "\(again.error)")
        #expect(
            again.error.contains("was found worse than its parent")
                && again.error.contains(review.hash.description), "\(again.error)")
        let gone = try shop.home.run("expert", "rollback", Self.part)
        #expect(gone.status == 0 && !gone.error.contains("worse"), "\(gone.error)")
    }
}
