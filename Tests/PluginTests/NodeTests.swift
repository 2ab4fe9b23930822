import BlyanKernel
import BlyanModel
import Foundation
import Testing

@Suite struct NodeTests {
    /// A node that routes with `router`, and the manifests of both routers beside it.
    static func node(_ bench: Bench, router: String, more: String = "") throws -> NodeManifest {
        for name in ["topk", "layer-capped"] { _ = try bench.shipped(name) }
        let text =
            "formats: []\nrouter: \(router)\nlibraries: [\"\(Bench.products.path)\"]\n\(more)"
        return try NodeManifest(path: bench.write(text, to: "node.yaml"))
    }

    @Test func theShippedManifestsAreValid() throws {
        let folder = Bench.root.appendingPathComponent("Manifests")
        let node = try NodeManifest(path: folder.appendingPathComponent("node.yaml").path)
        #expect(
            node.plugins == [
                "tensorblock", "pickle-legacy", "topk", "structure", "similarity",
                "quick-perplexity", "canary", "proof-of-learning", "improvement",
            ])
        #expect(node.verify == .touch)
        #expect(node.prompts == .exact)
        #expect(node.cacheBudget == 1 << 30)
        for name in node.plugins + ["layer-capped", "immune", "usage-quality", "flat"] {
            let manifest = try PluginManifest(path: node.manifestPath(of: name))
            #expect(manifest.name == name)
            #expect(manifest.sha256 == nil)
            // The lowest that its kind needs.
            let minor: UInt16 = [.gate, .reward].contains(manifest.kind) ? 1 : 0
            #expect(manifest.abi == PluginABI(major: PluginABI.host.major, minor: minor))
        }
        // Editors read these files, the node what it was built with.
        for (name, built) in [("node", NodeManifest.schema), ("plugin", PluginManifest.schema)] {
            let file = folder.appendingPathComponent("\(name).schema.json")
            #expect(try String(contentsOf: file, encoding: .utf8) == built)
        }
    }

    @Test(arguments: [
        ("verify: remember", NodeManifest.Verify.remember(seconds: 86_400)),
        ("verify: remember\nremember_seconds: 5", .remember(seconds: 5)),
        ("verify: always", .always),
        ("", .touch),
    ])
    func readsHowToVerify(text: String, verify: NodeManifest.Verify) throws {
        #expect(try Self.node(Bench(), router: "topk", more: text).verify == verify)
    }

    /// With a name that is nowhere, so that a library that were touched would be an error.
    @Test(arguments: ["", "prompts: exact\n"])
    func exactPromptsNeedNoLibrary(text: String) throws {
        let node = try Self.node(Bench(), router: "topk", more: text)
        #expect(
            try node.prompts == .exact && node.promptLibrary(file: "libnowhere.so.0")?.name == nil)
    }

    @Test func fastPromptsWithoutTheLibraryNameWhatMendsIt() throws {
        let node = try Self.node(Bench(), router: "topk", more: "prompts: fast\n")
        #expect(try node.promptLibrary()?.name == "openblas")
        let error = #expect(throws: KernelError.self) {
            try node.promptLibrary(file: "libnowhere.so.0")
        }
        #expect(error?.code == .config)
        #expect(error?.message.contains("node.yaml:4: \"prompts\" is \"fast\"") == true)
        #expect(error?.message.contains("libnowhere.so.0") == true)
        #expect(error?.hint?.contains("libopenblas0-pthread") == true)
    }

    @Test(arguments: [
        ("fromats: []\n", "node.yaml:4:1: unknown key \"fromats\", did you mean \"formats\"?"),
        ("threads: many\n", "node.yaml:4:10: \"threads\" is string, expected integer"),
        (
            "cache_budget: 512MB\n",
            "node.yaml:4:15: \"cache_budget\" is \"512MB\", which does not match"
        ),
        ("cache_budget: 999999999TiB\n", "node.yaml:4:15: the cache budget does not fit"),
        ("verify: sometimes\n", "expected one of \"always\", \"touch\", \"remember\""),
        ("prompts: faster\n", "expected one of \"exact\", \"fast\""),
        ("router: topk\n", "key \"router\" stands twice, first in line 2"),
    ])
    func aBadManifestSaysWhere(text: String, message: String) throws {
        let bench = try Bench()
        let error = #expect(throws: KernelError.self) {
            try Self.node(bench, router: "topk", more: text)
        }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    @Test(arguments: [
        ("0B", 0), ("7B", 7), ("3KiB", 3 << 10), ("512MiB", 512 << 20), ("2GiB", 2 << 30),
        ("1TiB", 1 << 40), ("8388607TiB", 8_388_607 << 40),
    ])
    func readsSizes(text: String, bytes: Int) { #expect(ByteCount.parse(text) == bytes) }

    @Test(arguments: [
        "", "B", "1", "1kB", "1 KiB", "-1B", "8388608TiB", "99999999999999999999B", "١B",
    ])
    func refusesWhatIsNoSize(text: String) { #expect(ByteCount.parse(text) == nil) }

    static func first(_ bench: Bench, router: String) throws -> PluginSet {
        try PluginSet(node(bench, router: router), host: Bench.host)
    }

    @Test func aSwapHoldsForLaterRequestsAlone() throws {
        let bench = try Bench()
        let first = try Self.first(bench, router: "topk")
        let request = try first.router().open(layers: 1, experts: 8, slots: 1, normalises: true)
        let second = try first.next(Self.node(bench, router: "layer-capped"))
        #expect(first.generation == 1 && second.generation == 2)
        // Eight tokens that want an expert each: the pinned router gives it, the new one stops at six.
        let logits = (0..<64).map { Float($0 / 8 == $0 % 8 ? 1 : 0) }
        let pinned = try route(first.router(), request, layer: 0, logits)
        let router = try second.router()
        let later = try route(
            router, router.open(layers: 1, experts: 8, slots: 1, normalises: true), layer: 0, logits
        )
        #expect(pinned.ids == Array(0..<8))
        #expect(later.ids == [0, 1, 2, 3, 4, 5, 0, 0])
    }

    @Test func aFailedSwapChangesNothing() throws {
        let bench = try Bench()
        let set = try Self.first(bench, router: "topk")
        #expect(throws: KernelError.self) { try set.next(Self.node(bench, router: "none")) }
        let good = try Self.node(bench, router: "layer-capped")
        let manifest = try String(
            contentsOfFile: good.manifestPath(of: "layer-capped"), encoding: .utf8)
        try bench.write(
            manifest.replacing("version: 1.0.1", with: "version: 9.0.0"),
            to: "plugins/layer-capped.yaml")
        #expect(throws: KernelError.self) { try set.next(good) }
        #expect(try set.router().plugin.manifest.name == "topk")
    }

    @Test func eachPluginIsLoadedOnce() throws {
        let bench = try Bench()
        let set = try Self.first(bench, router: "topk")
        #expect(try set.plugin("topk") === set.router().plugin)
    }

    @Test func aPluginThatIsGoneCostsWhatNeedsItAlone() throws {
        let bench = try Bench()
        _ = try bench.shipped("topk")
        let source = Bench.root.appendingPathComponent("Manifests/plugins/pickle-legacy.yaml")
        try bench.write(
            String(contentsOf: source, encoding: .utf8)
                .replacing("libPickleLegacy", with: "libGone"), to: "plugins/pickle-legacy.yaml")
        let text =
            "formats: [pickle-legacy]\nrouter: topk\nlibraries: [\"\(Bench.products.path)\"]\n"
        let node = try NodeManifest(path: bench.write(text, to: "node.yaml"))
        let set = PluginSet(node, host: Bench.host)
        let error = #expect(throws: KernelError.self) { try set.format(for: "pickle-legacy") }
        #expect(error?.message.contains("plugin pickle-legacy") == true)
        #expect(error?.message.contains("libGone.so is not at") == true)
        #expect(try set.router().plugin.manifest.name == "topk")
    }

    @Test func aPluginOfAnotherKindIsRefused() throws {
        let bench = try Bench()
        _ = try bench.shipped("topk", edit: { $0 + "payload_types: [topk]\n" })
        let text = "formats: [topk]\nrouter: topk\nlibraries: [\"\(Bench.products.path)\"]\n"
        let node = try NodeManifest(path: bench.write(text, to: "node.yaml"))
        let error = #expect(throws: KernelError.self) {
            try PluginSet(node, host: Bench.host).format(for: "topk")
        }
        #expect(error?.message.contains("declares the router \"topk\"") == true)
    }

    @Test func aPayloadTypeThatIsNotEnabledNamesTheLineToAdd() throws {
        let bench = try Bench()
        let source = Bench.root.appendingPathComponent("Manifests/plugins/pickle-legacy.yaml")
        try bench.write(
            String(contentsOf: source, encoding: .utf8), to: "plugins/pickle-legacy.yaml")
        let set = try Self.first(bench, router: "topk")
        let known = #expect(throws: KernelError.self) { try set.format(for: "pickle-legacy") }
        #expect(known?.message.contains("plugin pickle-legacy reads it") == true)
        #expect(known?.hint?.contains("add \"- pickle-legacy\" under \"formats:\"") == true)
        #expect(known?.hint?.contains("\(bench.folder.path)/node.yaml, line 1") == true)
        let unknown = #expect(throws: KernelError.self) { try set.format(for: "eeb") }
        #expect(
            unknown?.hint?.contains("no manifest in \(bench.folder.path)/plugins reads it") == true)
        let plugin = #expect(throws: KernelError.self) { try set.plugin("pickle-legacy") }
        #expect(plugin?.message.contains("is not enabled") == true)
    }
}
