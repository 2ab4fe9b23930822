import BlyanKernel
import Foundation
import Testing

/// Numbers that are the same in every run.
struct SeededRandom: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        // splitmix64, https://prng.di.unimi.it/splitmix64.c
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// A process that appends until it is killed.
@Suite struct CrashTests {
    /// Kills in a run; `BLYAN_CRASH_KILLS` asks for more.
    static let kills = max(
        100, Int(ProcessInfo.processInfo.environment["BLYAN_CRASH_KILLS"] ?? "") ?? 0)

    /// What a child said before it was killed.
    struct Record {
        var recovered = false
        var batches: [[String]] = []
        var acknowledged: [String] = []

        init(_ output: String) {
            // The last line may be cut.
            for line in output.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
                let words = line.split(separator: " ").map(String.init)
                switch words.first {
                case "opened": recovered = true
                case "try": batches.append(Array(words.dropFirst()))
                case "done": acknowledged += words.dropFirst()
                default: break
                }
            }
        }
    }

    /// Starts a child and kills it `delay` microseconds after it said `word`.
    static func run(_ home: URL, seed: Int, killAfter word: String, delay: UInt32) throws -> Record
    {
        let child = Process(), pipe = Pipe(), errors = Pipe()
        child.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent().appendingPathComponent("CrashChild")
        child.arguments = [home.path, String(seed)]
        child.standardOutput = pipe
        child.standardError = errors
        try child.run()
        var output = Data()
        while !String(decoding: output, as: UTF8.self).contains("\(word)\n") {
            let more = pipe.fileHandleForReading.availableData
            if more.isEmpty {
                let reason = errors.fileHandleForReading.readDataToEndOfFile()
                Issue.record(
                    "the child ended by itself: \(String(decoding: reason, as: UTF8.self))")
                break
            }
            output += more
        }
        usleep(delay)
        kill(child.processIdentifier, SIGKILL)
        output += pipe.fileHandleForReading.readDataToEndOfFile()
        child.waitUntilExit()
        #expect(child.terminationReason == .uncaughtSignal && child.terminationStatus == SIGKILL)
        return Record(String(decoding: output, as: UTF8.self))
    }

    @Test func nothingAcknowledgedIsLostAndNothingPartialIsSeen() throws {
        let home = try TemporaryHome()
        var random = SeededRandom(state: 20)
        var batches: [[String]] = []
        var acknowledged: [String] = []
        var killedInRecovery = 0
        for i in 0..<Self.kills {
            let inRecovery = i % 3 == 1
            let record = try Self.run(
                home.url, seed: i, killAfter: inRecovery ? "recovering" : "opened",
                delay: UInt32.random(in: 0...(inRecovery ? 8_000 : 40_000), using: &random))
            killedInRecovery += record.recovered ? 0 : 1
            batches += record.batches
            acknowledged += record.acknowledged
            if i % 10 == 9 || i == Self.kills - 1 { try check(home.url, acknowledged, batches) }
        }
        #expect(killedInRecovery > 0, "no kill hit recovery")
        #expect(acknowledged.count > Self.kills)
    }

    private func check(_ home: URL, _ acknowledged: [String], _ batches: [[String]]) throws {
        // Payloads of a record that was cut stay as long as what was cut.
        try ChainStore(home: home).close()
        try removeCuts(home)
        try ChainStore(home: home).close()
        let store = try ChainStore(home: home)
        defer { store.close() }
        #expect(store.repairs.isEmpty)
        let found = try store.blocks(.arrival)
        let names = Set(found.map(\.hash.description))
        #expect(names.count == found.count)
        for hash in acknowledged { #expect(names.contains(hash), "lost \(hash)") }
        for batch in batches {
            let there = batch.filter { names.contains($0) }.count
            #expect(there == 0 || there == batch.count, "a part of a record is seen")
        }
        #expect(names.isSubset(of: batches.joined()))
        #expect(try store.verify().failures.isEmpty)
        #expect(try store.check(readData: true).failures.isEmpty)
        let payloads = Set(found.compactMap(\.header.payloadHash?.description))
        #expect(try payloadFiles(home) == payloads)
    }
}

/// Removes what was cut off a home's log.
func removeCuts(_ home: URL) throws {
    let folder = home.appendingPathComponent("log")
    for name in try FileManager.default.contentsOfDirectory(atPath: folder.path)
    where name.contains(".cut-") {
        try FileManager.default.removeItem(at: folder.appendingPathComponent(name))
    }
}

/// Names of all files under a home's payloads.
func payloadFiles(_ home: URL) throws -> Set<String> {
    let folder = home.appendingPathComponent("payloads")
    let paths = try FileManager.default.subpathsOfDirectory(atPath: folder.path)
    return Set(
        paths.filter { $0.count != 2 }.map { $0.split(separator: "/").last.map(String.init) ?? $0 })
}
