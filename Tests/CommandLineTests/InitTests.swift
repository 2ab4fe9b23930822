import Foundation
import Testing

/// A home is made where nothing is lost by it, also in a second try.
@Suite struct InitTests {
    private func mode(_ path: String) throws -> Int? {
        try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    }

    @Test func theRandomPassphraseIsForItsOwnerAlone() throws {
        let home = try Home.unmade()
        let outcome = try home.run("init")
        #expect(outcome.status == 0)
        #expect(outcome.error.contains("key.passphrase"))
        #expect(try mode(home.folder.path + "/key.passphrase") == 0o600)
        #expect(try mode(home.folder.path + "/key.json") == 0o600)
    }

    /// What an init leaves that was killed before its last file, the node manifest.
    @Test(arguments: [
        ["node.yaml"], ["node.yaml", "key.json", "log", "index", "payloads"],
        ["node.yaml", "plugins", "node.schema.json"],
    ])
    func anInterruptedInitGoesOn(missing: [String]) throws {
        let home = try Home()
        let secret = home.folder.appendingPathComponent("key.passphrase")
        let before = try Data(contentsOf: secret)
        for name in missing {
            try FileManager.default.removeItem(at: home.folder.appendingPathComponent(name))
        }
        try home.succeed("init")
        #expect(try Data(contentsOf: secret) == before)
        try home.succeed("import", Checkpoints.routed.path)
        try home.succeed("chain", "verify")
    }

    @Test func aFolderWithSomethingElseIsLeftAlone() throws {
        let home = try Home.unmade()
        try FileManager.default.createDirectory(
            at: home.folder, withIntermediateDirectories: true)
        let file = home.folder.appendingPathComponent("thesis.txt")
        try Data("words".utf8).write(to: file)
        try home.fail("init", naming: ["no home", "thesis.txt", "--home"])
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: home.folder.path) == ["thesis.txt"])
        try home.fail("chain", "log", naming: ["is not a home"])
    }

    @Test func aManifestThatIsGivenBecomesTheHomes() throws {
        let home = try Home.unmade()
        let manifest = home.scratch.appendingPathComponent("mine.yaml")
        try Data("formats: [tensorblock]\nrouter: layer-capped\n".utf8).write(to: manifest)
        try home.succeed("init", "--manifest", manifest.path)
        let list = try home.succeed("plugin", "list")
        #expect(list.contains("layer-capped"))
        #expect(list.contains(#/topk .*not enabled/#))
        try Data("fromats: []\n".utf8).write(to: manifest)
        let other = try Home.unmade()
        try other.fail("init", "--manifest", manifest.path, naming: ["mine.yaml:1:1", "formats"])
        #expect(!FileManager.default.fileExists(atPath: other.folder.path))
    }
}
