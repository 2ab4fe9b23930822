import Foundation
import Testing

/// One plugin at a time is taken away: what needs it fails with an error that names it, the rest works.
@Suite struct MissingPluginTests {
    /// How a plugin is taken away.
    enum Removal: String, CaseIterable, Sendable { case line, manifest, library }

    @Test(arguments: ["tensorblock", "pickle-legacy", "topk", "layer-capped"], Removal.allCases)
    func without(_ plugin: String, _ removal: Removal) throws {
        let home = try Home(.imported)
        let node = home.folder.appendingPathComponent("node.yaml")
        let dense = Checkpoints.folder("qwen2-tiny")
        let isRouter = ["topk", "layer-capped"].contains(plugin)
        // The model that needs the plugin, and one that does not.
        let (needs, other): (String, String?)
        switch plugin {
        case "pickle-legacy":
            try edit(node) { $0.filter { !$0.hasSuffix("- tensorblock") } }
            try home.succeed("import", dense.path)
            try edit(node) { $0.flatMap { $0 == "formats:" ? [$0, "  - tensorblock"] : [$0] } }
            (needs, other) = ("qwen2-tiny", "mixtral-fused")
        case "tensorblock": (needs, other) = ("mixtral-fused", nil)
        default:
            try edit(node) { $0.map { $0.hasPrefix("router:") ? "router: \(plugin)" : $0 } }
            try home.succeed("import", dense.path)
            (needs, other) = ("mixtral-fused", "qwen2-tiny")
        }
        try home.succeed("chat", "--model", needs, "river", "--max-tokens", "2")
        try remove(plugin, removal, home, node)
        let name = isRouter && removal == .line ? "router" : plugin
        try home.fail("chat", "--model", needs, "river", "--max-tokens", "2", naming: [name])
        if plugin == "tensorblock" {
            // Without its line the manifest's next format is written; without its library none is.
            let dense = try home.run("import", dense.path)
            #expect((dense.status == 0) == (removal == .line), "\(dense.error)")
        }
        if let other {
            try home.succeed("chat", "--model", other, "river", "--max-tokens", "2")
            try home.succeed("import", Checkpoints.folder("llama-bf16").path)
        }
        try home.succeed("chain", "verify")
        try home.succeed("chain", "check", "--read-data")
        try home.succeed("block", "export", "--chain", "B", "--jsonl")
        try home.succeed("expert", "list", "--model", needs)
        let list = try home.run("plugin", "list")
        #expect(list.status == (removal == .line ? 0 : 1))
        let state = removal == .line ? "not enabled" : "broken"
        #expect(list.output.contains(state) && !list.output.contains("hint:"), "\(list.output)")
    }

    private func remove(_ plugin: String, _ removal: Removal, _ home: Home, _ node: URL) throws {
        let manifest = home.folder.appendingPathComponent("plugins/\(plugin).yaml")
        switch removal {
        case .line:
            try edit(node) {
                $0.filter { !$0.hasSuffix("- \(plugin)") && $0 != "router: \(plugin)" }
            }
        case .manifest: try FileManager.default.removeItem(at: manifest)
        case .library:
            // Another library than the one that is trusted.
            let other = String(repeating: "0", count: 64)
            try edit(manifest) { $0.map { $0.hasPrefix("sha256:") ? "sha256: \(other)" : $0 } }
        }
    }

    private func edit(_ file: URL, _ change: ([String]) -> [String]) throws {
        let lines = try String(contentsOf: file, encoding: .utf8)
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        try change(lines).joined(separator: "\n").write(to: file, atomically: true, encoding: .utf8)
    }
}
