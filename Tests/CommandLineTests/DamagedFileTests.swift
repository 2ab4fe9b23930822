import Foundation
import Testing

/// Damaged GGUF files, and files with bytes changed at random.
@Suite struct DamagedFileTests {
    /// A change of a GGUF file, and what the error must name.
    struct Change: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let at: Int
        let bytes: [UInt8]
        let names: [String]
    }

    private static let exabyte: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 16]

    // Magic, version (4), tensors (8), pairs (16), then the first key's length (24).
    @Test(arguments: [
        Change(testDescription: "magic", at: 0, bytes: [0x47, 0x47, 0x4D, 0x4C], names: ["GGUF"]),
        Change(testDescription: "version", at: 4, bytes: [99], names: ["99"]),
        Change(
            testDescription: "tensors", at: 8, bytes: exabyte, names: ["1152921504606846976"]),
        Change(testDescription: "pairs", at: 16, bytes: exabyte, names: ["1152921504606846976"]),
        Change(testDescription: "key", at: 24, bytes: exabyte, names: ["model.gguf"]),
    ])
    func aLyingHeader(_ change: Change) throws {
        let home = try Home()
        let file = home.scratch.appendingPathComponent("model.gguf")
        var data = try Data(contentsOf: URL(fileURLWithPath: Checkpoints.path("gguf-moe")))
        data.replaceSubrange(change.at..<change.at + change.bytes.count, with: change.bytes)
        try data.write(to: file)
        try home.fail("import", file.path, naming: change.names)
        #expect(try home.succeed("block", "export", "--chain", "B", "--jsonl").isEmpty)
    }

    @Test(arguments: [0, 3, 20, 100, 5000, 40_000])
    func cutShort(_ length: Int) throws {
        let home = try Home()
        let file = home.scratch.appendingPathComponent("model.gguf")
        let data = try Data(contentsOf: URL(fileURLWithPath: Checkpoints.path("gguf-moe")))
        try data.prefix(length).write(to: file)
        try home.fail("import", file.path, naming: ["model.gguf"])
        #expect(try home.succeed("block", "export", "--chain", "B", "--jsonl").isEmpty)
    }

    /// Whatever is in a file's header: the program answers, and the home stays whole.
    @Test(arguments: ["gguf-moe", "mixtral-fused"])
    func randomBytes(_ name: String) throws {
        let home = try Home()
        let isGGUF = name.hasPrefix("gguf")
        let copy = home.scratch.appendingPathComponent("copy")
        try FileManager.default.copyItem(at: Checkpoints.folder(name), to: copy)
        let file = copy.appendingPathComponent(isGGUF ? "model.gguf" : "model.safetensors")
        let original = try Data(contentsOf: file)
        // xorshift64: the same files in every run.
        var state: UInt64 = 0x9E37_79B9_7F4A_7C15
        func next(below limit: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(limit))
        }
        for _ in 0..<25 {
            var data = original
            for _ in 0...next(below: 3) {
                data[next(below: isGGUF ? 800 : 2000)] = UInt8(next(below: 256))
            }
            try data.write(to: file)
            _ = try home.run("import", isGGUF ? file.path : copy.path)
        }
        try home.succeed("chain", "verify")
        try home.succeed("chain", "check", "--read-data")
    }
}
