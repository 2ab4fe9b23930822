import BlyanKernel
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Parts that leave a home as files and come back.
@Suite struct ExpertFileTests {
    private static let part = "layer0.expert0"

    @Test func aFileIsKnownByWhatIsInIt() throws {
        let shop = try Workshop("")
        let home = shop.home
        let (file, renamed) = (
            "\(home.scratch.path)/expert.safetensors", "\(home.scratch.path)/new"
        )
        try home.succeed("expert", "export", Self.part, "--output", file)
        try FileManager.default.moveItem(atPath: file, toPath: renamed)
        let router = "\(home.scratch.path)/router"
        try home.succeed("expert", "export", "layer0.router", "--output", router)
        let made = try home.succeed(
            "expert", "submit", Self.part, renamed, "--router", router)
        #expect(made.contains("gate      structure, layer0.router: accept"), "\(made)")
        // It tells what it was trained from.
        try home.fail("expert", "submit", Self.part, renamed, naming: ["somebody was faster"])
    }

    @Test func whatIsNoFileIsSaidPlainly() throws {
        let shop = try Workshop("")
        let home = shop.home
        let (text, locked) = (home.scratch.path + "/text.txt", home.scratch.path + "/locked")
        let bare = home.scratch.path + "/bare"
        for file in [text, locked, bare] {
            try Data("no tensors".utf8).write(to: URL(fileURLWithPath: file))
        }
        chmod(locked, 0)
        var cases = [
            ("/nowhere", "cannot open /nowhere: No such file"), (home.scratch.path, "is a folder"),
            ("/dev/null", "is not a regular file"),
            (text, "is no safetensors file, and no format"), (bare, "files without an extension"),
        ]
        // Root reads everything.
        if geteuid() != 0 { cases.append((locked, "Permission denied")) }
        for (file, words) in cases {
            try home.fail("expert", "submit", Self.part, file, naming: [file, words])
        }
        let good = home.scratch.path + "/good"
        try home.succeed("expert", "export", Self.part, "--output", good)
        try home.fail(
            "expert", "submit", Self.part, good, "--router", "/nowhere",
            naming: ["/nowhere", "No such"])
        for parent in ["abcde", "current", String(repeating: "a", count: 65)] {
            let outcome = try home.run("expert", "submit", Self.part, good, "--parent", parent)
            #expect(
                outcome.status == 64 && outcome.error.contains("expected 6 to 64 hex digits"),
                "\(outcome.error)")
        }
    }

    /// Only an older version of the same part was overtaken by somebody.
    @Test func whatAFileWasTrainedFromIsSaid() throws {
        let shop = try Workshop("")
        let home = shop.home
        let other = home.scratch.path + "/other"
        try home.succeed("expert", "export", "layer0.expert1", "--output", other)
        let block = try #require(
            try shop.node.catalog.model(named: nil).parts["layer0.expert1"]
        ).description
        let genesis = try #require(try shop.node.store.genesis).description
        shop.close()
        func file(_ parent: String) throws -> String {
            let name = home.scratch.path + "/changed"
            var bytes = try Data(contentsOf: URL(fileURLWithPath: other))
            bytes.replaceSubrange(
                try #require(bytes.range(of: Data(block.utf8))), with: Data(parent.utf8))
            try bytes.write(to: URL(fileURLWithPath: name))
            return name
        }
        for (parent, words) in [
            (block, "a version of layer0.expert1, and no version of \(Self.part)"),
            (genesis, "block of chain A, and no version of \(Self.part)"),
            (
                String(repeating: "ab", count: 32),
                "is no block of this home: there is no block abab"
            ),
            (String(repeating: "z", count: 64), "blyan_parent is no block's hash"),
        ] {
            try home.fail("expert", "submit", Self.part, file(parent), naming: [words])
        }
        let good = home.scratch.path + "/good"
        try home.succeed("expert", "export", Self.part, "--output", good)
        try home.fail(
            "expert", "submit", Self.part, good, "--parent", String(block.prefix(8)),
            naming: ["a version of layer0.expert1"])
        let router = home.scratch.path + "/router"
        try home.succeed("expert", "export", "layer1.router", "--output", router)
        try home.fail(
            "expert", "submit", Self.part, good, "--router", router,
            naming: ["a version of layer1.router, and no version of layer0.router"])
    }

    @Test func anExportWritesOverNothingUnlessItIsForced() throws {
        let home = try Home(.imported)
        let file = home.scratch.appendingPathComponent("mine")
        try Data("mine".utf8).write(to: file)
        try home.fail(
            "expert", "export", Self.part, "--output", file.path,
            naming: [file.path, "is there already", "--force"])
        #expect(try Data(contentsOf: file) == Data("mine".utf8))
        try home.succeed("expert", "export", Self.part, "--output", file.path, "--force")
        #expect(try Data(contentsOf: file).count > 4)
    }
}
