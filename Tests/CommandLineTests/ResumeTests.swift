import Foundation
import Testing

/// An import that is killed at any moment loses nothing that was acknowledged, and goes on when it is run again.
@Suite struct ResumeTests {
    /// Blocks in the log when the process is killed: before the meta block, between parts, near the end.
    @Test(arguments: [0, 1, 2, 5, 9, 14, 15])
    func killedAfter(_ blocks: Int) throws {
        let folder = Checkpoints.folder("mixtral-fused")
        let expected = try Checkpoints.expected(folder)
        let home = try Home()
        let log = home.folder.appendingPathComponent("log/records.log").path
        let before = try home.size(log)
        let whole = try Home(.imported)
        let all = try home.size(whole.folder.appendingPathComponent("log/records.log").path)
        // The size of the log stands for its blocks: it grows by each as it becomes durable.
        let target = before + (all - before) * blocks / 16 + (blocks > 0 ? 1 : 0)
        for _ in 0..<2 {
            let process = try home.start(
                ["import", folder.path], output: home.scratch.appendingPathComponent("import.out"),
                error: home.scratch.appendingPathComponent("import.err"))
            while process.isRunning, try home.size(log) < target { usleep(200) }
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            try home.succeed("chain", "verify")
            try home.succeed("chain", "check", "--read-data")
        }
        let exported = try home.succeed("block", "export", "--chain", "B", "--jsonl")
        try home.succeed("import", folder.path)
        let found = try home.evaluate(expected)
        #expect(found.greedy == expected.greedy)
        // What was there stays, and nothing is there twice.
        let kept = exported.split(separator: "\n")
        let now = try home.succeed("block", "export", "--chain", "B", "--jsonl").split(
            separator: "\n")
        #expect(Set(kept).isSubset(of: now))
        #expect(now.count == 14)
        #expect(Set(now).count == 14)
        let payloads = try home.payloads()
        #expect(try payloads.count == whole.payloads().count, "\(payloads)")
        #expect(try home.succeed("import", folder.path).contains("already"))
    }

    @Test func anIncompleteModelIsNotServed() throws {
        let home = try Home()
        try home.importHalf(of: Checkpoints.folder("mixtral-tiny"))
        try home.fail("chat", "hello", naming: ["mixtral-tiny", "import"])
    }
}

extension Home {
    /// Leaves the log of an import that ended half way: cut there, since whoever kills a process may come too late for it.
    func importHalf(of model: URL) throws {
        let log = folder.appendingPathComponent("log/records.log")
        let before = try size(log.path)
        try succeed("import", model.path)
        let all = try size(log.path)
        let file = try FileHandle(forWritingTo: log)
        try file.truncate(atOffset: UInt64(before + (all - before) / 2))
        try file.close()
        // As after the loss of the index: it is rebuilt from what the log has.
        try FileManager.default.removeItem(at: folder.appendingPathComponent("index"))
    }

    func size(_ path: String) throws -> Int {
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        return attributes[.size] as? Int ?? 0
    }

    /// Names of all stored payloads; files that a dead process began do not count as such.
    func payloads() throws -> [String] {
        let root = folder.appendingPathComponent("payloads")
        let all = FileManager.default.enumerator(atPath: root.path)?.allObjects ?? []
        return all.compactMap { $0 as? String }.map { ($0 as NSString).lastPathComponent }
            .filter { $0.count == 64 }.sorted()
    }
}
