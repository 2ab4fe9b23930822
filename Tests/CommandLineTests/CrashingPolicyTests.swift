import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanLedger
import BlyanServer
import Foundation
import Testing

/// A reward policy that ends the node is named by the next start, and does not keep it from coming up.
@Suite(.serialized) struct CrashingPolicyTests {
    private static let name = "the reward policy payer 1.0.0 ended the node"

    @Test func theNodeComesUpAndGoesOn() throws {
        let shop = try Workshop("rewards: payer")
        let policy = try TestPolicy(in: shop.home)
        let (home, name) = (shop.home, Self.name)
        let authors = try [Workshop.key(73), Workshop.key(74)]
        let blocks = try zip(["layer0.expert0", "layer0.expert1"], authors).map {
            try shop.candidate($0, by: $1)
        }
        for block in blocks { try shop.node.judge().submit(block) }
        let (bad, good) = (blocks[0].hash, blocks[1].hash)
        shop.close()
        try policy.will(.abort, to: authors[0].publicKey)
        #expect(try !home.die(by: SIGABRT).contains(name))
        // One death may be a power cut: the others first, then once more.
        let second = try home.die(by: SIGABRT)
        #expect(second.contains("\(name) while it was asked about candidate \(bad)"), "\(second)")
        #expect(second.contains("judged    accept \(good)"), "\(second)")
        // Twice is no accident: the node stays.
        let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
        let log = home.scratch.appendingPathComponent("run.err")
        let third = try home.waits(for: "left out", in: log, holder.process)
        #expect(
            third.contains("\(name) twice while it was asked about candidate \(bad)"), "\(third)")
        let list = try home.candidates()
        #expect(list.map { $0["candidate"]?.string } == [bad.description])
        #expect(list[0]["state"]?.string == "stopped")
        #expect(list[0]["fault"]?.string?.contains("\(name) twice") == true)
        guard case .array(let deaths)? = list[0]["deaths"] else { return }
        #expect(deaths.map { $0["reward"]?.string } == ["payer"])
        #expect(deaths.map { $0["count"]?.int } == [2])
        let told = try home.run("candidate", "list")
        #expect(told.output.contains("stopped") && told.error.contains("\(name) twice"))
        #expect(told.error.contains("blyan candidate judge \(bad.description.prefix(16))"))
        // By itself it is left out; asked for by name the same library is asked again.
        let all = try home.run("candidate", "judge", "--passphrase-file", home.passphraseFile)
        #expect(all.status == 0 && all.error.contains("left out") && all.output.isEmpty)
        #expect(holder.process.isRunning)
        #expect(holder.end(SIGTERM) < 60)
        // Nothing of it was written: the whole record is, once there is an answer.
        #expect(try shop.node.store.block(bad) == nil && shop.ledger.count == 1)
        #expect(try shop.balance(authors[0]) == 0 && shop.balance(authors[1]) == 7)
        shop.close()
        try policy.will(.pay)
        let judged = try home.succeed("candidate", "judge", "\(bad.description.prefix(16))")
        #expect(judged.contains("verdict   accepted"))
        #expect(try home.candidates().isEmpty)
        #expect(try shop.balance(authors[0]) == 7 && shop.node.ledger.verify().failures.isEmpty)
        shop.close()
        try home.succeed("chain", "verify")
    }

    /// Also where it ends the node in its test vectors, which it runs before it is asked.
    @Test(arguments: ["", TestPolicy.everything]) func anotherLibraryIsAsked(events: String) throws
    {
        let shop = try Workshop("rewards: payer")
        var policy = try TestPolicy(in: shop.home)
        let block = try shop.candidate(by: Workshop.key(75))
        try shop.node.judge().submit(block)
        shop.close()
        try policy.will(.abort, to: events)
        for _ in 0..<2 { _ = try shop.home.die(by: SIGABRT) }
        let log = shop.home.scratch.appendingPathComponent("run.err")
        do {
            let holder = try Holder(shop.home, "--passphrase-file", shop.home.passphraseFile)
            _ = try shop.home.waits(for: "left out", in: log, holder.process)
            policy = try TestPolicy(in: shop.home, build: "mended")
            try policy.will(.pay)
            try shop.home.succeed("plugin", "reload")
            _ = try shop.home.waits(for: "judged    accept \(block.hash)", in: log, holder.process)
            holder.end(SIGTERM)
        }
        #expect(try shop.home.candidates().isEmpty)
        #expect(try shop.balance(Workshop.key(75)) == 7)
    }
}
