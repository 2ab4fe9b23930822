import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanServer
import Foundation
import Testing

/// A gate that ends the node is named by the next start, and does not keep it from coming up.
@Suite(.serialized) struct CrashingGateTests {
    /// Two candidates that wait; the gate does something to the first one.
    private func home(_ deed: TestGate.Deed) throws -> (Home, TestGate, [Digest]) {
        let shop = try Workshop("", gates: "[structure, tester]")
        let gate = try TestGate(in: shop.home)
        let blocks = try [shop.candidate("layer0.expert0"), shop.candidate("layer0.expert1")]
        for block in blocks { try shop.node.judge().submit(block) }
        shop.close()
        try gate.will(deed, to: blocks[0].hash)
        return (shop.home, gate, blocks.map(\.hash))
    }

    @Test(arguments: [(TestGate.Deed.abort, SIGABRT), (.null, SIGSEGV)])
    func theNodeComesUpAndGoesOn(deed: TestGate.Deed, signal: Int32) throws {
        let (home, gate, candidates) = try home(deed)
        let (bad, good) = (candidates[0], candidates[1])
        let name = "the gate tester 1.0.0 ended the node"
        #expect(try !home.die(by: signal).contains(name))
        // One death may be a power cut: the others first, then once more.
        let second = try home.die(by: signal)
        #expect(second.contains("\(name) while it judged candidate \(bad)"), "\(second)")
        #expect(second.contains("judged    accept \(good)"), "\(second)")
        // Twice is no accident: the node stays.
        let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
        let log = home.scratch.appendingPathComponent("run.err")
        let third = try home.waits(for: "left out", in: log, holder.process)
        #expect(third.contains("\(name) twice while it judged candidate \(bad)"), "\(third)")
        let entry = try #require(home.candidates().first)
        #expect(try home.candidates().count == 1 && entry["candidate"]?.string == bad.description)
        #expect(entry["state"]?.string == "stopped")
        #expect(entry["fault"]?.string?.contains("\(name) twice") == true)
        guard case .array(let deaths)? = entry["deaths"] else { return }
        #expect(deaths.count == 1 && deaths[0]["gate"]?.string == "tester")
        #expect(deaths[0]["count"]?.int == 2)
        let told = try home.run("candidate", "list")
        #expect(told.output.contains("stopped") && told.error.contains("\(name) twice"))
        #expect(told.error.contains("blyan candidate judge \(bad.description.prefix(16))"))
        // By itself it is left out; asked for by name the same library is asked again.
        let all = try home.run("candidate", "judge", "--passphrase-file", home.passphraseFile)
        #expect(all.status == 0 && all.error.contains("left out") && all.output.isEmpty)
        #expect(holder.process.isRunning)
        #expect(holder.end(SIGTERM) < 60)
        try gate.will(.accept)
        let judged = try home.succeed("candidate", "judge", "\(bad.description.prefix(16))")
        #expect(judged.contains("verdict   accepted"))
        #expect(try home.candidates().isEmpty)
        try home.succeed("chain", "verify")
    }

    @Test func anotherLibraryIsAsked() throws {
        let (home, _, candidates) = try home(.abort)
        for _ in 0..<2 { _ = try home.die(by: SIGABRT) }
        let gate = try TestGate(in: home, build: "mended")
        try gate.will(.accept)
        let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
        _ = try home.waits(
            for: "judged    accept \(candidates[0])",
            in: home.scratch.appendingPathComponent("run.err"), holder.process)
        holder.end(SIGTERM)
        #expect(try home.candidates().isEmpty)
    }

    /// A kill in the middle of a judgement looks the same: once it is retried, and an answer wipes it out.
    @Test func aKillIsForgottenWhenTheGateAnswers() throws {
        let (home, gate, candidates) = try home(.sleep)
        func kill(_ signal: Int32) throws {
            let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
            while !(FileManager.default.contents(atPath: home.askedFile).map {
                String(decoding: $0, as: UTF8.self).contains("\"gate\":\"tester\"")
            } ?? false) { usleep(5000) }
            usleep(300_000)
            holder.end(signal)
        }
        try kill(SIGKILL)
        var entries = try home.candidates()
        #expect(entries.map { $0["state"]?.string } == ["waits", "fault"])
        #expect(entries.last?["candidate"]?.string == candidates[0].description)
        // Stopped on purpose: that counts for nothing.
        try kill(SIGTERM)
        entries = try home.candidates()
        guard case .array(let deaths)? = entries.last?["deaths"] else { return }
        #expect(deaths.map { $0["count"]?.int } == [1])
        // A file that a power cut left empty blames nobody.
        try Data().write(to: URL(fileURLWithPath: home.askedFile))
        #expect(
            try home.candidates().map { $0["state"]?.string } == entries.map { $0["state"]?.string }
        )
        #expect(!FileManager.default.fileExists(atPath: home.askedFile))
        try gate.will(.accept)
        try home.succeed("candidate", "judge")
        #expect(try home.candidates().isEmpty)
    }
}
