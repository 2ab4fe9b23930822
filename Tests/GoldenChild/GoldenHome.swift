import BlyanJSON
import BlyanKernel
import BlyanModel
import Foundation

/// A number depends on what it must not depend on, or a fixture is not as expected.
struct GoldenError: Error, CustomStringConvertible {
    let description: String
}

/// A home of its own, into which the fixtures are imported as a node does it, with the plugins that ship.
final class GoldenHome {
    /// A checkpoint, how its import quantises, and the router that serves it.
    struct Model {
        let checkpoint: String
        var quantisation = ""
        var router = "topk"

        var name: String {
            "\(checkpoint)\(quantisation.isEmpty ? "" : " \(quantisation)"), \(router)"
        }
    }

    static let models = [
        Model(checkpoint: "mixtral-tiny"),
        Model(checkpoint: "mixtral-tiny", quantisation: "int8"),
        Model(checkpoint: "mixtral-sharded-bf16"),
        Model(checkpoint: "mixtral-sharded-bf16", router: "layer-capped"),
        Model(checkpoint: "llama-bf16"),
        Model(checkpoint: "llama-yarn"),
        Model(checkpoint: "qwen3-moe-f16"),
        Model(checkpoint: "qwen2-moe-windowed"),
        Model(checkpoint: "olmoe-normalised-clipped"),
    ]

    private let folder: URL
    private let store: ChainStore
    private let key: SigningKey
    private let host = PluginHost(services: Kernels.services) { _, _, _ in }
    private var plugins: [String: LoadedPlugin] = [:]
    private var imported: [String: Digest] = [:]

    init() throws {
        folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-golden-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        store = try ChainStore(home: folder)
        key = try SigningKey([UInt8](repeating: 7, count: 32))
        let pact = GenesisPact(name: "golden", rules: [], validators: [key.publicKey])
        let writer = try store.payloads.makeWriter()
        try writer.write(pact.document.canonical())
        var header = BlockHeader(
            chainID: "A", blockType: "genesis", index: 0, previous: nil, timestamp: 1)
        header.metadata = ["network": .string("golden")]
        try writer.finish().describe(in: &header, type: "json")
        try store.append([Block(signing: header, with: key)])
    }

    /// Closes the home and removes it.
    func remove() {
        store.close()
        try? FileManager.default.removeItem(at: folder)
    }

    private static var root: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
    }

    /// A plugin that ships, the library that was built beside this program.
    private func plugin(_ name: String) throws -> LoadedPlugin {
        if let known = plugins[name] { return known }
        let source = Self.root.appendingPathComponent("Manifests/plugins/\(name).yaml")
        let text = try String(contentsOf: source, encoding: .utf8)
        let products = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent().path
        let own = folder.appendingPathComponent("\(name).yaml")
        try text.write(to: own, atomically: true, encoding: .utf8)
        let hash = try PluginHost.libraryHash(
            of: PluginManifest(path: own.path), libraryFolders: [products])
        try text.replacing("sha256: unset", with: "sha256: \(hash)")
            .replacing("max_experts: 6", with: "max_experts: 3")
            .write(to: own, atomically: true, encoding: .utf8)
        let plugin = try host.load(PluginManifest(path: own.path), libraryFolders: [products])
        plugins[name] = plugin
        return plugin
    }

    /// Weights of random logits, and those of logits that lie far apart.
    func routerValues() throws -> [String: String] {
        var values: [String: String] = [:]
        for (name, experts, slots) in [
            ("topk", 8, 2), ("topk", 64, 8), ("topk", 3, 3), ("layer-capped", 8, 2),
        ] {
            for normalises in [true, false] {
                let router = try RouterPlugin(plugin(name))
                let request = try router.open(
                    layers: 1, experts: experts, slots: slots, normalises: normalises)
                var random = Seeded(state: UInt64(experts))
                let rows = 12
                let logits = (0..<rows * experts).map { i in
                    random.next() * Float(1 << (i / experts % 9))
                }
                let choice = try logits.withUnsafeBufferPointer {
                    try router.route(
                        layer: 0, logits: $0, requests: Array(repeating: request, count: rows),
                        positions: (0..<UInt64(rows)).map { $0 })
                }
                let title = "\(name)/\(slots) of \(experts)\(normalises ? ", normalised" : "")"
                values["\(title)/weights"] = hex(choice.weights)
                values["\(title)/experts"] = choice.ids.map(String.init).joined(separator: " ")
            }
        }
        return values
    }

    /// Losses and last logits of one model, which must be the same with 1, 2 and 3 threads, in one chunk and in many.
    func modelValues(_ model: Model) throws -> [String: String] {
        let (format, router) = try (
            FormatPlugin(plugin("tensorblock")), RouterPlugin(plugin(model.router))
        )
        let title = model.checkpoint + model.quantisation
        if imported[title] == nil {
            let path = Self.root.appendingPathComponent("Tests/Fixtures/checkpoints")
                .appendingPathComponent(model.checkpoint).path
            let importer = Importer(
                store: store, key: key, format: format, payloadType: "tensorblock", clock: { 1 })
            imported[title] = try importer.run(
                openCheckpoint(at: path), name: title, quantisation: model.quantisation
            ) { _ in }.model
        }
        let found = try ModelCatalog(store).model(named: title)
        var first: (losses: [Float], lastLogits: [Float])?
        for threads in [1, 2, 3] {
            let loaded = try LoadedModel(
                found, store: store, mode: .touch, budget: 1 << 30, threads: threads,
                format: { _ in format }, router: { router })
            let vocabulary = loaded.runner.config.vocabularySize
            let tokens = (0..<70).map { ($0 * 31 + 7) % vocabulary }
            for chunk in [70, 64, 9, 1] {
                let session = try loaded.runner.makeSession(capacity: tokens.count)
                let found = try loaded.runner.score(tokens, in: session, chunk: chunk)
                if let first {
                    guard hex(first.losses) == hex(found.losses),
                        hex(first.lastLogits) == hex(found.lastLogits)
                    else {
                        throw GoldenError(
                            description:
                                "\(model.name): \(threads) threads and chunks of \(chunk) change bits"
                        )
                    }
                } else {
                    first = found
                }
            }
        }
        guard let first else { return [:] }
        return [
            "\(model.name)/losses": hex(first.losses),
            "\(model.name)/last logits": hex(first.lastLogits),
        ]
    }
}
