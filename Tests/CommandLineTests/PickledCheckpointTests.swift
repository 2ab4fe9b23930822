import Foundation
import Testing

/// `pytorch_model.bin`, one file or several, becomes the blocks that the same weights in safetensors become.
///
/// What they compute is compared with transformers in ``ConformanceTests``.
@Suite struct PickledCheckpointTests {
    /// Payload hash by part.
    private func parts(_ home: Home) throws -> [String: String] {
        struct Header: Decodable { let expert_name, payload_hash: String }
        let lines = try home.succeed("block", "export", "--chain", "B", "--jsonl")
            .split(separator: "\n")
        let headers = try lines.map { try JSONDecoder().decode(Header.self, from: Data($0.utf8)) }
        return Dictionary(uniqueKeysWithValues: headers.map { ($0.expert_name, $0.payload_hash) })
    }

    @Test(arguments: [
        ("pickled-mixtral-fused", "mixtral-fused"), ("pickled-qwen3-sharded", "qwen3-sharded"),
    ])
    func equalSafetensors(_ pickled: String, _ plain: String) throws {
        let (first, second) = (try Home(), try Home())
        try first.succeed("import", Checkpoints.folder(pickled).path)
        try second.succeed("import", Checkpoints.folder(plain).path)
        let expected = try parts(second)
        #expect(expected.count > 5)
        #expect(try parts(first) == expected)
        #expect(
            try first.succeed("import", Checkpoints.folder(pickled).path).contains("already"))
    }

    @Test func withoutThePlugin() throws {
        let home = try Home()
        let folder = Checkpoints.folder("pickled-mixtral-fused").path
        let node = home.folder.appendingPathComponent("node.yaml")
        let text = try String(contentsOf: node, encoding: .utf8)
        try text.replacing("  - pickle-legacy\n", with: "").write(
            to: node, atomically: true, encoding: .utf8)
        try home.fail("import", folder, naming: [".bin", "add \"- pickle-legacy\"", "node.yaml"])
        try text.write(to: node, atomically: true, encoding: .utf8)
        try FileManager.default.removeItem(
            at: home.folder.appendingPathComponent("plugins/pickle-legacy.yaml"))
        try home.fail("import", folder, naming: ["plugins/pickle-legacy.yaml"])
        try home.succeed("import", Checkpoints.routed.path)
    }

    /// A damaged copy of a folder, and what the error must name.
    @Test(arguments: ["cut", "bit", "code", "index", "absent"])
    func damage(_ kind: String) throws {
        let home = try Home()
        let copy = home.scratch.appendingPathComponent("copy")
        try FileManager.default.copyItem(at: Checkpoints.folder("pickled-qwen3-sharded"), to: copy)
        func edit(_ name: String, _ change: (inout Data) -> Void) throws {
            var data = try Data(contentsOf: copy.appendingPathComponent(name))
            change(&data)
            try data.write(to: copy.appendingPathComponent(name))
        }
        let last = "pytorch_model-00003-of-00003.bin"
        var names = [last]
        switch kind {
        case "cut": try edit(last) { $0 = $0.prefix($0.count / 2) }
        case "bit": try edit(last) { $0[$0.count / 2] ^= 1 }
        case "code":
            let call = Data(
                "\u{80}\u{2}cos\nsystem\n(X\u{1}\0\0\0atR.".unicodeScalars.map { UInt8($0.value) })
            try edit(last) { $0 = call }
        case "index":
            try edit("pytorch_model.bin.index.json") {
                $0 = Data(
                    String(decoding: $0, as: UTF8.self)
                        .replacing("\"lm_head.weight\"", with: "\"other\"").utf8)
            }
            names = ["lm_head.weight", "pytorch_model.bin.index.json"]
        default: try FileManager.default.removeItem(at: copy.appendingPathComponent(last))
        }
        try home.fail("import", copy.path, naming: names)
        try home.succeed("chain", "verify")
        try home.succeed("import", Checkpoints.routed.path)
    }
}
