import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Synchronization
import Testing

/// A gate that does not return costs its judgement, and not the node.
@Suite(.serialized) struct HangingGateTests {
    private func shop(limit: Int) throws -> (Workshop, TestGate, Block) {
        let shop = try Workshop("", gates: "[structure, tester]")
        let gate = try TestGate(in: shop.home, limit: limit)
        let block = try shop.candidate()
        try shop.node.judge().submit(block)
        return (shop, gate, block)
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = Date()
        try body()
        return Date().timeIntervalSince(start)
    }

    /// The error of a judgement that a gate spoils.
    private func fault(_ judge: Judge, _ block: Block) -> KernelError? {
        #expect(throws: KernelError.self) { try judge.judge(block.hash) }
    }

    @Test func aHangIsAFaultThatNamesGateCandidateAndLimit() throws {
        let (shop, gate, block) = try shop(limit: 400)
        let judge = try shop.node.judge()
        try gate.will(.sleep)
        var first: KernelError?
        let taken = seconds { first = fault(judge, block) }
        #expect(taken > 0.3 && taken < 60, "\(taken) s")
        for part in ["tester 1.0.0", "\(block.hash)", "400 milliseconds", "no verdict"] {
            #expect(first?.message.contains(part) == true, "\(first?.message ?? "")")
        }
        #expect(first?.hint?.contains("blyan plugin reload") == true)
        #expect(judge.candidates.queue.map(\.block) == [block] && PluginCall.areUnderWay)
        #expect(try judge.fault(of: #require(judge.candidates.queue.first)) == first?.message)
        // It is not asked again, whatever it would say now; what needs no gate works.
        try gate.will(.accept)
        let other = try shop.candidate("layer0.expert1")
        try judge.submit(other)
        let again = seconds {
            #expect(fault(judge, other)?.message == first?.message)
            #expect(fault(judge, block)?.message == first?.message)
        }
        #expect(again < 60, "\(again) s")
        #expect(try shop.node.store.verify().failures.isEmpty)
        // A new instance is asked, which may take its time.
        try gate.limit(to: 3_600_000)
        _ = try shop.node.reloadPlugins()
        #expect(try judge.judge(block.hash).outcome == .accept)
        #expect(try judge.judge(other.hash).outcome == .accept)
        #expect(judge.candidates.queue.isEmpty)
    }

    @Test func aGateThatIsLeftIsServedNoMore() throws {
        let (shop, gate, block) = try shop(limit: 300)
        let judge = try shop.node.judge()
        try gate.will(.busy)
        #expect(fault(judge, block)?.message.contains("300 milliseconds") == true)
        // BLYAN_E_CANCELLED, to both.
        try shop.home.waits { gate.said == "-6 -6\n" }
        // Back too late is not back.
        try gate.will(.accept)
        #expect(fault(judge, block)?.message.contains("300 milliseconds") == true)
    }

    /// A receipt has so many levels for what a gate found.
    @Test func evidenceThatNoReceiptHoldsIsAFaultThatNamesGateAndLimit() throws {
        let (shop, gate, block) = try shop(limit: 60_000)
        let judge = try shop.node.judge()
        for deed in [TestGate.Deed.deep6, .deep8, .deep9] {
            try gate.will(deed)
            let fault = fault(judge, block)
            for part in ["tester", "nests deeper than the 5 levels"] {
                #expect(fault?.message.contains(part) == true, "\(fault?.message ?? "")")
            }
        }
        #expect(judge.candidates.queue.map(\.block) == [block])
        try gate.will(.deep5)
        let made = try judge.judge(block.hash)
        #expect(made.outcome == .accept)
        let document = try VerdictDocument(
            parsing: shop.node.store.document(#require(made.verdict)))
        #expect(document.gates.last?.evidence == made.gates.last?.evidence)
    }

    @Test func whoStopsAJudgementNeedNotWaitForTheGate() throws {
        let (shop, gate, block) = try shop(limit: 3_600_000)
        let judge = try shop.node.judge()
        func stopped(_ deed: TestGate.Deed) throws -> Double {
            try gate.will(deed)
            let end = Date(timeIntervalSinceNow: 0.3)
            return seconds {
                Cancellation.$current.withValue(Cancellation { Date() > end }) {
                    let error = #expect(throws: KernelError.self) { try judge.judge(block.hash) }
                    #expect(error?.code == .cancelled, "\(error?.message ?? "")")
                }
            }
        }
        // One that asks for services hears of it at once, and can be asked again.
        #expect(try stopped(.busy) < 60)
        #expect(gate.said == "-6 0\n" || gate.said == "-6 -6\n", "\(gate.said ?? "")")
        // One that does not is left, and cannot as long as it is at it.
        #expect(try stopped(.doze) < 60)
        #expect(fault(judge, block)?.message.contains("is still at candidate") == true)
        try gate.will(.accept)
        try shop.home.waits { try shop.node.plugins.fault(of: "tester") == nil }
        #expect(try judge.judge(block.hash).outcome == .accept)
    }

    @Test func whoWaitsForAnotherJudgementCanBeStopped() throws {
        let (shop, gate, block) = try shop(limit: 3_600_000)
        let judge = try shop.node.judge()
        try gate.will(.busy)
        let isOver = Mutex(false)
        let first = Cancellation.$current.withValue(Cancellation { isOver.withLock { $0 } }) {
            Background { _ = try judge.judge(block.hash) }
        }
        while !FileManager.default.fileExists(atPath: shop.home.askedFile) { usleep(5000) }
        let taken = seconds {
            Cancellation.$current.withValue(Cancellation { true }) {
                let error = #expect(throws: KernelError.self) { try judge.judge(block.hash) }
                #expect(error?.code == .cancelled)
            }
        }
        #expect(taken < 60, "\(taken) s")
        isOver.withLock { $0 = true }
        #expect(throws: KernelError.self) { try first.value() }
    }

    @Test func theNodeServesAndStopsBesideAGateThatHangs() throws {
        for limit in [700, 3_600_000] {
            let (shop, gate, block) = try shop(limit: limit)
            shop.close()
            try gate.will(.sleep)
            let home = shop.home
            let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
            let log = home.scratch.appendingPathComponent("run.err")
            if limit == 700 {
                _ = try home.waits(for: "not judged: the gate tester", in: log, holder.process)
                let list = try home.succeed("candidate", "list", "--json")
                #expect(list.contains("\"state\":\"fault\"") && list.contains("700 milliseconds"))
                let inspect = try home.run("plugin", "inspect", "tester")
                #expect(inspect.error.contains("asked nothing more"), "\(inspect.error)")
                try home.fail(
                    "candidate", "judge", "--passphrase-file", home.passphraseFile,
                    naming: ["tester 1.0.0", "\(block.hash)", "blyan plugin reload"])
            } else {
                while !FileManager.default.fileExists(atPath: home.askedFile) { usleep(10_000) }
            }
            #expect(try home.succeed("chain", "verify").contains("verified"))
            #expect(holder.end(SIGTERM) < 60)
            #expect(holder.process.terminationStatus == 0)
            #expect(!FileManager.default.fileExists(atPath: home.askedFile))
            let list = try home.succeed("candidate", "list", "--json")
            #expect(list.contains("\"state\":\"waits\""), "\(list)")
        }
    }

    /// What failed is tried again when the gates are others, without anybody asking for it.
    @Test func theNodeJudgesWhatWaitsAfterAReload() throws {
        let (shop, gate, block) = try shop(limit: 300)
        shop.close()
        try gate.will(.sleep)
        let home = shop.home
        let holder = try Holder(home, "--passphrase-file", home.passphraseFile)
        let log = home.scratch.appendingPathComponent("run.err")
        _ = try home.waits(for: "not judged: the gate tester", in: log, holder.process)
        try gate.will(.accept)
        try gate.limit(to: 3_600_000)
        try home.succeed("plugin", "reload")
        _ = try home.waits(for: "judged    accept \(block.hash)", in: log, holder.process)
        #expect(try home.succeed("candidate", "list", "--json").contains("[]"))
        holder.end(SIGTERM)
    }

    /// A command that holds the home for itself.
    @Test func aCommandEndsBesideAGateThatHangs() throws {
        let (shop, gate, _) = try shop(limit: 300)
        shop.close()
        try gate.will(.sleep)
        try shop.home.fail("candidate", "judge", naming: ["tester 1.0.0", "300 milliseconds"])
        try gate.limit(to: 3_600_000)
        let error = shop.home.scratch.appendingPathComponent("judge.err")
        let process = try shop.home.start(
            ["candidate", "judge"], output: shop.home.scratch.appendingPathComponent("judge.out"),
            error: error)
        while !FileManager.default.fileExists(atPath: shop.home.askedFile) { usleep(10_000) }
        kill(process.processIdentifier, SIGINT)
        process.waitUntilExit()
        #expect(process.terminationReason == .exit && process.terminationStatus == 1)
        #expect(try String(contentsOf: error, encoding: .utf8).contains("stopped on request"))
        #expect(!FileManager.default.fileExists(atPath: shop.home.askedFile))
        try gate.will(.accept)
        #expect(try shop.home.succeed("candidate", "judge").contains("verdict   accepted"))
    }
}

extension Home {
    /// The file that says which gate is asked now.
    var askedFile: String { folder.appendingPathComponent("candidates/asked.json").path }
    /// The file with the passphrase of the home's key.
    var passphraseFile: String { folder.appendingPathComponent("key.passphrase").path }

    /// Waits until a file has a text, at most five minutes, and answers all that it has.
    func waits(for text: String, in file: URL, _ process: Process) throws -> String {
        let limit = Date(timeIntervalSinceNow: 300)
        while true {
            let isRunning = process.isRunning && Date() < limit
            let found = try String(contentsOf: file, encoding: .utf8)
            if found.contains(text) { return found }
            guard isRunning else {
                throw Failure(description: "\(text) is not said, but: \(found)")
            }
            usleep(20_000)
        }
    }
}
