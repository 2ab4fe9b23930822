import BlyanKernel
import BlyanModel
import Foundation
import Testing

/// What both routers promise: a token's experts do not depend on how tokens were batched or chunked.
@Suite struct RouterInvarianceTests {
    static let layers = 3, experts = 8, slots = 2, tokens = 24

    static func capped(_ count: Int) -> (String) -> String {
        { $0.replacing("max_experts: 6", with: "max_experts: \(count)") }
    }

    static func logits(seed: UInt64) -> [[Float]] {
        var random = Seeded(state: seed)
        return (0..<layers).map { _ in
            (0..<tokens * experts).map { _ in Float.random(in: -4...4, using: &random) }
        }
    }

    /// Routes one request in chunks of the given sizes.
    static func run(
        _ router: RouterPlugin, _ logits: [[Float]], chunks: [Int]
    ) throws -> [[UInt32]] {
        let request = try router.open(
            layers: layers, experts: experts, slots: slots, normalises: true)
        var ids = [[UInt32]](repeating: [], count: layers)
        var start = 0
        for chunk in chunks {
            for layer in 0..<layers {
                let rows = Array(logits[layer][start * experts..<(start + chunk) * experts])
                ids[layer] += try route(
                    router, request, layer: layer, rows, from: UInt64(start)
                ).ids
            }
            start += chunk
        }
        return ids
    }

    @Test(
        arguments: ["topk", "layer-capped"],
        [[1, 23], [12, 12], [23, 1], Array(repeating: 1, count: 24), [5, 7, 11, 1]])
    func chunksDoNotChangeTheChoice(name: String, chunks: [Int]) throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load(name))
        let logits = Self.logits(seed: 11)
        #expect(
            try Self.run(router, logits, chunks: chunks)
                == Self.run(router, logits, chunks: [Self.tokens]))
    }

    @Test(arguments: ["topk", "layer-capped"])
    func requestsInOneBatchDoNotMeet(name: String) throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load(name))
        let a = Self.logits(seed: 1)[0], b = Self.logits(seed: 2)[0]
        let alone = try [a, b].map { try Self.run(router, [$0, $0, $0], chunks: [Self.tokens])[0] }
        let requests = try (0..<2).map { _ in
            try router.open(
                layers: Self.layers, experts: Self.experts, slots: Self.slots, normalises: true)
        }
        var mixed: [Float] = []
        for token in 0..<Self.tokens {
            for source in [a, b] {
                mixed += source[token * Self.experts..<(token + 1) * Self.experts]
            }
        }
        let choice = try unsafe mixed.withUnsafeBufferPointer {
            try unsafe router.route(
                layer: 0, logits: $0, requests: (0..<Self.tokens * 2).map { requests[$0 % 2] },
                positions: (0..<Self.tokens * 2).map { UInt64($0 / 2) })
        }
        for (which, expected) in alone.enumerated() {
            var found: [UInt32] = []
            for token in 0..<Self.tokens {
                let start = (token * 2 + which) * Self.slots
                found += choice.ids[start..<start + Self.slots]
            }
            #expect(found == expected)
        }
    }

    @Test(arguments: ["topk", "layer-capped"])
    func aCloneContinuesAndTheOriginalIsNotMoved(name: String) throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load(name))
        let logits = Self.logits(seed: 5)[0], half = Self.tokens / 2 * Self.experts
        let whole = try Self.run(router, [logits, logits, logits], chunks: [Self.tokens])[0]
        let request = try router.open(
            layers: Self.layers, experts: Self.experts, slots: Self.slots, normalises: true)
        let first = try route(router, request, layer: 0, Array(logits[..<half]))
        let rest = Array(logits[half...])
        let copy = try route(
            router, request.clone(), layer: 0, rest, from: UInt64(Self.tokens / 2))
        let original = try route(router, request, layer: 0, rest, from: UInt64(Self.tokens / 2))
        #expect(first.ids + copy.ids == whole)
        #expect(first.ids + original.ids == whole)
    }
}

@Suite struct LayerCappedTests {
    @Test(arguments: [2, 3, 5, 8])
    func aLayerUsesNoMoreExpertsThanItMay(cap: Int) throws {
        let bench = try Bench()
        let router = try RouterPlugin(
            bench.load("layer-capped", edit: RouterInvarianceTests.capped(cap)))
        let ids = try RouterInvarianceTests.run(
            router, RouterInvarianceTests.logits(seed: 3), chunks: [24])
        for layer in ids { #expect(Set(layer).count <= cap) }
        // Random logits want more experts than a small cap allows, so the cap is reached.
        #expect(ids.contains { Set($0).count == cap })
    }

    @Test func withRoomForAllExpertsItAgreesWithTopK() throws {
        let bench = try Bench()
        let capped = try RouterPlugin(
            bench.load("layer-capped", edit: RouterInvarianceTests.capped(8)))
        let free = try RouterPlugin(bench.load("topk"))
        let logits = RouterInvarianceTests.logits(seed: 8)[0]
        let choices = try [capped, free].map { router in
            try route(
                router, router.open(layers: 1, experts: 8, slots: 2, normalises: true), layer: 0,
                logits)
        }
        #expect(choices[0].ids == choices[1].ids)
        #expect(choices[0].weights == choices[1].weights)
    }

    @Test func farBelowTheBestTheLogitsDecide() throws {
        let bench = try Bench()
        let router = try RouterPlugin(
            bench.load("layer-capped", edit: RouterInvarianceTests.capped(2)))
        let request = try router.open(layers: 1, experts: 4, slots: 2, normalises: true)
        // The first token takes experts 2 and 3; for the second both are of probability 0 in f32.
        let choice = try route(
            router, request, layer: 0, [0, 0, 2, 2, 500, 500, 0, 1])
        #expect(choice.ids == [2, 3, 3, 2])
        #expect(abs(choice.weights[2] - 0.7310586) < 1e-6)
        #expect(abs(choice.weights[2] + choice.weights[3] - 1) < 1e-6)
    }

    /// What Plugins/README.md tells a third party to do: one command, and nothing of ours but the header.
    @Test func theHeaderAloneIsEnoughToBuildIt() throws {
        let bench = try Bench()
        let root = Bench.root.path, library = bench.folder.appendingPathComponent("own.so").path
        try Bench.run(
            "/usr/bin/cc",
            [
                "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-shared", "-fPIC",
                "-fvisibility=hidden", "-I", "\(root)/Sources/CBlyanPlugin/include",
                "\(root)/Plugins/Routers/LayerCapped/layer_capped.c", "-o", library,
            ])
        let symbols = try Bench.run("/usr/bin/nm", ["-D", "--defined-only", library])
        #expect(symbols.split(separator: "\n").count == 1)
        #expect(symbols.hasSuffix("T blyan_plugin_entry\n"))
        let text = try String(
            contentsOfFile: "\(root)/Manifests/plugins/layer-capped.yaml", encoding: .utf8)
        let path = try bench.write(
            text.replacing("libLayerCapped.so", with: library), to: "own.yaml")
        let hash = try PluginHost.libraryHash(of: PluginManifest(path: path))
        try bench.write(
            text.replacing("libLayerCapped.so", with: library)
                .replacing("sha256: unset", with: "sha256: \(hash)"), to: "own.yaml")
        let router = try RouterPlugin(Bench.host.load(PluginManifest(path: path)))
        let request = try router.open(layers: 1, experts: 4, slots: 1, normalises: true)
        #expect(try route(router, request, layer: 0, [0, 3, 1, 2]).ids == [1])
    }

    @Test func refusesACapBelowTheModelsOwnNumber() throws {
        let bench = try Bench()
        let router = try RouterPlugin(
            bench.load("layer-capped", edit: RouterInvarianceTests.capped(1)))
        let error = #expect(throws: KernelError.self) {
            try router.open(layers: 1, experts: 4, slots: 2, normalises: true)
        }
        #expect(error?.code == .config)
        #expect(error?.message.contains("raise max_experts") == true)
    }

    @Test func refusesATokenThatComesTwice() throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load("layer-capped"))
        let request = try router.open(layers: 1, experts: 4, slots: 2, normalises: true)
        try route(router, request, layer: 0, [0, 1, 2, 3])
        #expect(throws: KernelError.self) {
            try route(router, request, layer: 0, [0, 1, 2, 3])
        }
        try route(router, request, layer: 0, [0, 1, 2, 3], from: 1)
    }
}
