import Foundation
import Testing

/// Damage in a home: named, refused, and mended where it can be.
@Suite struct DamagedHomeTests {
    private struct Shown: Decodable {
        struct Version: Decodable { let block, payload: String; let tensors: [Tensor] }
        struct Tensor: Decodable { let name: String; let offset: Int }
        let versions: [Version]
    }

    private func show(_ expert: String, in home: Home) throws -> Shown.Version {
        let text = try home.succeed("expert", "show", expert, "--json")
        let shown = try JSONDecoder().decode(Shown.self, from: Data(text.utf8))
        return try #require(shown.versions.first)
    }

    private func change(_ url: URL, _ edit: (inout Data) -> Void) throws {
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: url.path)
        var data = try Data(contentsOf: url)
        edit(&data)
        // In place: the file's identity stays, as with a failing disk.
        let handle = try FileHandle(forWritingTo: url)
        try handle.write(contentsOf: data)
        try handle.truncate(atOffset: UInt64(data.count))
        try handle.close()
    }

    private func payload(_ home: Home, _ hash: String) -> URL {
        home.folder.appendingPathComponent("payloads/\(hash.prefix(2))/\(hash)")
    }

    @Test(arguments: ["layer1.expert2", "layer0.attention", "layer0.router", "embedding", "norm"])
    func aFlippedBitNeverReachesTheModel(_ expert: String) throws {
        let home = try Home(.imported)
        let expected = try Checkpoints.expected(Checkpoints.routed)
        let version = try show(expert, in: home)
        let file = payload(home, version.payload)
        let offset = try #require(version.tensors.last).offset + 5
        try change(file) { $0[offset] ^= 0x10 }
        let prompt = home.scratch.appendingPathComponent("prompt.txt")
        try Data(expected.prompt.utf8).write(to: prompt)
        try home.fail(
            "eval", "--prompt-file", prompt.path, "--json", naming: [expert, version.block, "tile"])
        try home.fail("chain", "check", "--read-data", naming: [expert, version.block, "tile"])
        try home.succeed("chain", "verify")
        try change(file) { $0[offset] ^= 0x10 }
        #expect(try home.evaluate(expected).greedy == expected.greedy)
        try home.succeed("chain", "check", "--read-data")
    }

    /// What the error's hint says: importing again mends what is damaged or gone, and stores nothing twice.
    @Test(arguments: ["flip", "cut", "remove", "pipe"]) func importingAgainMends(how: String) throws
    {
        let home = try Home(.imported)
        let expected = try Checkpoints.expected(Checkpoints.routed)
        let version = try show("layer1.expert2", in: home)
        let file = payload(home, version.payload)
        switch how {
        case "flip": try change(file) { $0[4200] ^= 1 }
        case "cut": try change(file) { $0.removeLast(100) }
        default:
            try FileManager.default.removeItem(at: file)
            if how == "pipe" { #expect(mkfifo(file.path, 0o600) == 0) }
        }
        try home.fail("chain", "check", "--read-data", naming: ["layer1.expert2"])
        try home.succeed("import", Checkpoints.routed.path)
        try home.succeed("chain", "check", "--read-data")
        #expect(try home.evaluate(expected).greedy == expected.greedy)
    }

    @Test func aDamagedMetaDocumentBlocksItsModelAlone() throws {
        let home = try Home(.imported)
        try home.succeed("import", Checkpoints.folder("qwen2-tiny").path)
        let headers = try home.succeed("block", "export", "--chain", "A", "--jsonl")
            .split(separator: "\n").compactMap {
                try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]
            }
        let meta = try #require(
            headers.first {
                let model = ($0["metadata"] as? [String: Any])?["model"] as? String
                return $0["block_type"] as? String == "meta" && model == "mixtral-fused"
            }?["payload_hash"] as? String)
        try change(payload(home, meta)) { $0[$0.count / 2] ^= 1 }
        try home.succeed("chat", "--model", "qwen2-tiny", "river", "--max-tokens", "2")
        try home.fail("chat", "--model", "mixtral-fused", "river", naming: ["damaged", "block"])
        try home.fail("chat", "--model", "none", "river", naming: ["qwen2-tiny", "mixtral-fused"])
    }

    @Test func aMissingOrShortPayloadIsNamed() throws {
        let home = try Home(.imported)
        let version = try show("layer0.expert1", in: home)
        let file = payload(home, version.payload)
        try change(file) { $0 = $0.prefix(5000) }
        try home.fail("chain", "check", naming: ["layer0.expert1", version.block])
        try home.fail("chat", "river of light in the east", naming: ["layer0.expert1"])
        try FileManager.default.removeItem(at: file)
        try home.fail("chain", "check", naming: ["layer0.expert1", version.block])
        try home.fail("chat", "river of light in the east", naming: ["layer0.expert1"])
        try home.succeed("chain", "verify")
    }

    @Test func theIndexIsMadeAgain() throws {
        let home = try Home(.imported)
        let log = try home.succeed("chain", "log", "--json")
        try FileManager.default.removeItem(at: home.folder.appendingPathComponent("index"))
        #expect(try home.succeed("chain", "reindex").contains("17 blocks"))
        #expect(try home.succeed("chain", "log", "--json") == log)
    }

    /// Whatever happened to the index, the home opens and it is built from the log.
    @Test(arguments: ["cut", "empty", "file", "folder"]) func anIndexThatIsNoneIsMadeAgain(
        how: String
    )
        throws
    {
        let home = try Home(.imported)
        let log = try home.succeed("chain", "log", "--json")
        let index = home.folder.appendingPathComponent("index")
        // Its blocks lie in a table once it was opened again.
        let tables = try FileManager.default.contentsOfDirectory(atPath: index.path)
            .filter { $0.hasSuffix(".ldb") }
        let table = index.appendingPathComponent(try #require(tables.first))
        switch how {
        case "cut": try change(table) { $0.removeLast($0.count / 2) }
        case "empty": try change(table) { $0 = Data() }
        case "file":
            try FileManager.default.removeItem(at: index)
            try Data("nothing".utf8).write(to: index)
        default:
            try FileManager.default.removeItem(at: index.appendingPathComponent("CURRENT"))
            try FileManager.default.createDirectory(
                at: index.appendingPathComponent("CURRENT"), withIntermediateDirectories: true)
        }
        #expect(try home.succeed("chain", "log", "--json") == log)
        #expect(try home.succeed("chain", "reindex").contains("17 blocks"))
    }

    /// What a version block says follows from the blocks, so that importing again mends that too.
    @Test(arguments: ["version", "meta"]) func importingAgainMendsDocuments(type: String) throws {
        let home = try Home(.imported)
        let header = try #require(
            home.succeed("chain", "log", "-n", "100", "--json").split(separator: "\n").first {
                $0.contains(#""block_type":"\#(type)""#)
            })
        let hash = try #require(header.firstMatch(of: #/"payload_hash":"([0-9a-f]+)"/#)?.output.1)
        try FileManager.default.removeItem(at: payload(home, String(hash)))
        try home.fail("chat", "river", naming: [type == "meta" ? "meta" : "version"])
        #expect(
            try home.succeed("import", Checkpoints.routed.path).contains(
                "1 payload, gone or damaged"))
        #expect(
            try home.succeed("import", Checkpoints.routed.path).contains("nothing was stored"))
        try home.succeed("chain", "check", "--read-data")
        try home.succeed("chat", "river", "--max-tokens", "1")
    }

    /// A holder maps a file again when it was put back.
    @Test(arguments: ["cut", "flip"]) func aHolderTakesWhatWasPutBack(how: String) throws {
        let home = try Home(.imported)
        let expected = try Checkpoints.expected(Checkpoints.routed)
        let holder = try Holder(home)
        let version = try show("layer1.expert2", in: home)
        let file = payload(home, version.payload)
        let whole = try Data(contentsOf: file)
        if how == "cut" { #expect(try home.evaluate(expected).greedy == expected.greedy) }
        let offset = try #require(version.tensors.last).offset + 5
        try change(file) { if how == "cut" { $0 = Data() } else { $0[offset] ^= 1 } }
        let prompt = home.scratch.appendingPathComponent("prompt.txt")
        try Data(expected.prompt.utf8).write(to: prompt)
        for _ in 0..<2 {
            try home.fail(
                "eval", "--prompt-file", prompt.path, "--json", naming: ["layer1.expert2"])
        }
        let other = home.scratch.appendingPathComponent("other")
        try whole.write(to: other)
        #expect(rename(other.path, file.path) == 0)
        #expect(try home.evaluate(expected).greedy == expected.greedy)
        #expect(holder.process.isRunning)
    }

    /// Bytes that rot after they were verified: once a check has found them, no answer comes from them any more.
    @Test func whatACheckFoundIsNotServed() throws {
        let home = try Home(.imported)
        let expected = try Checkpoints.expected(Checkpoints.routed)
        let holder = try Holder(home)
        #expect(try home.evaluate(expected).greedy == expected.greedy)
        let version = try show("layer1.expert2", in: home)
        let offset = try #require(version.tensors.last).offset + 5
        try change(payload(home, version.payload)) { $0[offset] ^= 0x40 }
        try home.fail("chain", "check", "--read-data", naming: ["layer1.expert2"])
        let prompt = home.scratch.appendingPathComponent("prompt.txt")
        try Data(expected.prompt.utf8).write(to: prompt)
        try home.fail("eval", "--prompt-file", prompt.path, naming: ["layer1.expert2", "tile"])
        #expect(try home.succeed("import", Checkpoints.routed.path).contains("written again"))
        #expect(try home.evaluate(expected).greedy == expected.greedy)
        #expect(holder.process.isRunning)
    }

    /// A manifest that cannot be read is no reason not to check a chain, and is said.
    @Test func verifyNeedsNoManifest() throws {
        let home = try Home(.imported)
        try home.editManifest { $0 + "\nodd: [" }
        try home.fail("chain", "log", naming: ["node.yaml"])
        let outcome = try home.run("chain", "verify", "--json")
        #expect(outcome.status == 1 && outcome.error.contains("node.yaml"))
        #expect(outcome.output.contains("\"blocks\":17") && outcome.output.contains("\"ok\":false"))
    }

    @Test func aChangedHeaderIsNamed() throws {
        let home = try Home(.imported)
        let file = home.folder.appendingPathComponent("log/records.log")
        try change(file) { data in
            guard let found = data.range(of: Data("layer1.expert2".utf8)) else { return }
            data[found.upperBound - 1] = UInt8(ascii: "3")
        }
        try home.fail("chain", "verify", naming: ["record"])
    }

    /// A bit of the last record: what the error recommends makes nothing worse.
    @Test func aDamagedLogIsReportedOnAndKept() throws {
        let home = try Home(.imported)
        let file = home.folder.appendingPathComponent("log/records.log")
        let whole = try Data(contentsOf: file)
        let version = try #require(
            home.succeed("chain", "log", "-n", "1", "--json").split(separator: "\n").first)
        #expect(version.contains("\"block_type\":\"version\""))
        try change(file) { $0[$0.count - 20] ^= 1 }
        let damaged = try Data(contentsOf: file)
        for _ in 0..<2 {
            try home.fail(
                "chain", "verify", naming: ["does not open", "record", "was acknowledged"])
            try home.fail("chain", "verify", "--json", naming: ["restore the log from a copy"])
            try home.fail("chain", "reindex", naming: ["record", "restore the log from a copy"])
            try home.fail("model", "list", naming: ["restore the log from a copy"])
            #expect(try Data(contentsOf: file) == damaged)
        }
        try change(file) { $0 = whole }
        try home.succeed("chain", "verify")
        try home.succeed("chain", "check", "--read-data")
        #expect(try home.succeed("chain", "reindex").contains("17 blocks"))
    }

    /// Bytes that no Merkle leaf covers: the scrub compares them with the payload's hash.
    @Test func theScrubFindsWhatNoLeafCovers() throws {
        let home = try Home(.imported)
        let version = try show("layer0.expert1", in: home)
        let file = payload(home, version.payload)
        // The directory's offset, before the one leaf hash or more at the end.
        let log = try home.succeed("chain", "log", "-n", "100", "--json")
        let line = try #require(log.split(separator: "\n").first { $0.contains(version.payload) })
        let covered = try #require(
            line.firstMatch(of: #/"covered":([0-9]+)/#).flatMap { Int($0.output.1) })
        try change(file) { $0[covered + 60] ^= 0x80 }
        let manifest = home.folder.appendingPathComponent("node.yaml")
        let text = try String(contentsOf: manifest, encoding: .utf8)
        try text.replacing("scrub_cpu_percent: 5", with: "scrub_cpu_percent: 100")
            .write(to: manifest, atomically: true, encoding: .utf8)
        let error = home.scratch.appendingPathComponent("scrub.err")
        let process = try home.start(
            ["run"], output: home.scratch.appendingPathComponent("scrub.out"), error: error)
        defer { process.terminate() }
        let wanted = "layer0.expert1 (block \(version.block)) does not have the hash"
        for _ in 0..<600 where try !String(contentsOf: error, encoding: .utf8).contains(wanted) {
            usleep(100_000)
        }
        let said = try String(contentsOf: error, encoding: .utf8)
        #expect(said.contains(wanted), "\(said)")
    }

    @Test func aFullDiskBehindStandardOutput() throws {
        let home = try Home(.imported)
        let error = home.scratch.appendingPathComponent("full.err")
        let process = try home.start(
            ["chain", "log"], output: URL(fileURLWithPath: "/dev/full"), error: error)
        process.waitUntilExit()
        #expect(process.terminationStatus == 1)
        let text = try String(contentsOf: error, encoding: .utf8)
        #expect(text.contains("standard output: No space left on device"), "\(text)")
    }

    @Test func anUnknownKeyIsNamedWithItsPlace() throws {
        let home = try Home(.imported)
        let file = home.folder.appendingPathComponent("node.yaml")
        let text = try String(contentsOf: file, encoding: .utf8)
        let line = text.split(separator: "\n", omittingEmptySubsequences: false).count
        try (text + "cache_budjet: 1GiB\n").write(to: file, atomically: true, encoding: .utf8)
        try home.fail("chain", "verify", naming: ["node.yaml:\(line):1", "cache_budget"])
    }
}
