import Foundation
import Testing

/// A model is identified by the bytes of its weights: others of the same size are another model.
@Suite struct ChangedWeightsTests {
    private func copy(_ home: Home, _ name: String) throws -> (folder: URL, weights: URL) {
        let folder = home.scratch.appendingPathComponent(name)
        try FileManager.default.copyItem(at: Checkpoints.folder(name), to: folder)
        return (folder, folder.appendingPathComponent("model.safetensors"))
    }

    private func change(_ file: URL) throws {
        var data = try Data(contentsOf: file)
        data[data.count - 3] ^= 0x40
        try data.write(to: file)
    }

    @Test func areNotTheModelThatIsHere() throws {
        let home = try Home()
        let (folder, weights) = try copy(home, "mixtral-fused")
        try home.succeed("import", folder.path)
        #expect(try home.succeed("import", folder.path).contains("already"))
        try change(weights)
        try home.fail("import", folder.path, naming: ["another model", "mixtral-fused", "--name"])
        try home.succeed("import", folder.path, "--name", "changed")
        let models = try home.succeed("model", "list")
        #expect(models.contains("mixtral-fused") && models.contains("changed"))
    }

    /// Parts of two sets of weights never become one model.
    @Test func doNotFinishAnImportOfOthers() throws {
        let home = try Home()
        let (folder, weights) = try copy(home, "mixtral-tiny")
        try home.importHalf(of: folder)
        let original = try Data(contentsOf: weights)
        try change(weights)
        try home.fail("import", folder.path, naming: ["another model", "mixtral-tiny"])
        try home.fail("chat", "river", "--max-tokens", "1", naming: ["incomplete"])
        try original.write(to: weights)
        try home.succeed("import", folder.path)
    }
}
