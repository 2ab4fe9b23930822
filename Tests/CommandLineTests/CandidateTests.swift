import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Candidates that wait, as commands meet them.
@Suite struct CandidateTests {
    @Test func judgingSaysWhetherAllWereAcceptedAndWhyNot() throws {
        let shop = try Workshop("", gates: "[structure, similarity]")
        let judge = try shop.node.judge()
        for factor in [50, 1.01] as [Float] { try judge.submit(shop.candidate(factor: factor)) }
        shop.close()
        let made = try shop.home.run("candidate", "judge")
        #expect(made.status == 2, "\(made.error)")
        for words in [
            "verdict   rejected: structure/norm", "norm_ppm 49999999; tensor gate",
            "verdict   rejected: similarity/", "change_ppm 10000", "; rescaling_ppm ",
        ] {
            #expect(made.output.contains(words), "\(words) is not in \(made.output)")
        }
        #expect(try !shop.home.run("candidate", "judge", "--json").output.contains("norm_ppm"))
        try shop.manifest("")
        try shop.home.succeed("plugin", "reload")
        try shop.node.judge().submit(shop.candidate())
        shop.close()
        let accepted = try shop.home.succeed("candidate", "judge")
        #expect(
            accepted.contains("verdict   accepted") && !accepted.contains("_ppm"), "\(accepted)")
        // Newest first, and no review among them.
        _ = try shop.verdict(
            on: #require(
                shop.node.store.block(
                    try shop.node.catalog.model(named: nil)
                        .parts["layer0.expert0"] ?? .zero)), upper: -1)
        shop.close()
        struct Judged: Decodable { let candidate, expert, author, outcome, reason: String }
        let text = try shop.home.succeed("candidate", "list", "--judged", "2", "--json")
        let judged = try JSONDecoder().decode([Judged].self, from: Data(text.utf8))
        #expect(judged.map(\.outcome) == ["accept", "reject"], "\(text)")
        #expect(judged.last?.reason.hasPrefix("similarity/") == true, "\(text)")
        let table = try shop.home.succeed("candidate", "list", "--judged", "9")
        #expect(table.contains("structure/norm") && table.split(separator: "\n").count == 4)
    }

    /// Whoever was overtaken while waiting is told by whom, and how to go on.
    @Test func whoWasOvertakenIsToldHowToGoOn() throws {
        let shop = try Workshop("")
        let judge = try shop.node.judge()
        for factor in [1.01, 1.02, 1.03] as [Float] {
            try judge.submit(shop.candidate(factor: factor))
        }
        let waiting = judge.candidates.queue.map { String($0.block.hash.description.prefix(16)) }
        shop.close()
        try shop.home.succeed("candidate", "judge", waiting[0])
        let made = try shop.home.run("candidate", "judge", waiting[1])
        let told = try shop.home.run("candidate", "judge", waiting[2], "--json")
        for (outcome, words) in [
            (made, "verdict   rejected: intake/parent-replaced"), (told, "\"hint\":\"train"),
        ] {
            #expect(outcome.status == 2 && outcome.output.contains(words), "\(outcome.output)")
            #expect(outcome.output.contains("somebody was faster"), "\(outcome.output)")
            #expect(
                outcome.output.contains("`blyan expert export layer0.expert0`"),
                "\(outcome.output)")
        }
    }

    /// A file that may not grow is an error that is told, and no death by a signal.
    @Test func aFileSizeLimitIsToldAsAnError() throws {
        let home = try Home()
        let shell = Process(), errors = Pipe()
        shell.executableURL = URL(fileURLWithPath: "/bin/sh")
        shell.arguments = [
            "-c", "ulimit -f 100; exec \"$@\"", "sh", Home.program.path, "import",
            Checkpoints.routed.path, "--home", home.folder.path,
        ]
        shell.standardOutput = FileHandle.nullDevice
        shell.standardError = errors
        try shell.run()
        let text = String(
            decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        shell.waitUntilExit()
        #expect(shell.terminationReason == .exit && shell.terminationStatus == 1, "\(text)")
        #expect(text.contains("File too large"), "\(text)")
        try home.succeed("chain", "verify")
    }

    /// The home opens, what can be read is judged, and nothing is deleted of what cannot.
    @Test func aDamagedCandidateIsLeftOutAndTold() throws {
        let shop = try Workshop("")
        let judge = try shop.node.judge()
        let (bad, good) = try (shop.candidate(), shop.candidate("layer0.expert1"))
        for block in [bad, good] { try judge.submit(block) }
        shop.close()
        let folder = shop.home.folder.appendingPathComponent("candidates")
        let name = try #require(
            try FileManager.default.contentsOfDirectory(atPath: folder.path)
                .first { $0.contains(bad.hash.description) })
        let file = folder.appendingPathComponent(name)
        let whole = try Data(contentsOf: file)
        try whole.prefix(whole.count / 2).write(to: file)
        let listed = try shop.home.run("chain", "log")
        #expect(listed.status == 0)
        for words in [name, "is no candidate that its author signed", "remove it"] {
            #expect(listed.error.contains(words), "\(listed.error)")
        }
        #expect(try shop.node.judge().candidates.queue.map(\.block.hash) == [good.hash])
        #expect(try #require(try shop.node.judge().judgeNext()).outcome == .accept)
        shop.close()
        // A copy mends it: its payload is still there.
        try whole.write(to: file)
        #expect(try shop.home.succeed("candidate", "judge").contains("verdict   accepted"))
    }
}
