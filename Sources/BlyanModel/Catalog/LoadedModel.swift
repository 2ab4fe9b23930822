public import BlyanKernel
internal import CBlyanMath
internal import Foundation
internal import Synchronization

/// A model that serves: its tokenizer, its runner, and the parts that are mapped.
///
/// Any thread.
public final class LoadedModel: Sendable {
    /// The model as the chain tells it.
    public let model: CatalogModel
    /// Its tokenizer.
    public let tokenizer: Tokenizer
    /// Its forward pass.
    public let runner: ModelRunner
    private let cache: PartCache

    /// An expert was mapped.
    public struct ExpertLoaded: Sendable {
        /// The model's name.
        public let model: String
        /// `layer4.expert7`.
        public let expert: String
        /// The block that holds it.
        public let block: Digest
        /// Bytes of its payload.
        public let bytes: Int
    }

    /// Experts served a step.
    public struct ExpertsUsed: Sendable {
        /// The model's name.
        public let model: String
        /// Tokens by expert name.
        public let tokens: [String: Int]
    }

    /// Prepares a model; parts are mapped when they are first needed.
    ///
    /// - Parameters:
    ///   - budget: bytes of experts that stay mapped.
    ///   - format: the plugin for a payload type; throws if it is not enabled.
    ///   - router: the router plugin that requests get; throws if there is none.
    /// - Throws: ``ModelError`` if the model is incomplete, or its tokenizer is damaged.
    public init(
        _ model: CatalogModel, store: ChainStore, mode: VerifyMode, budget: Int, threads: Int,
        format: @escaping @Sendable (String) throws -> FormatPlugin,
        router: @escaping @Sendable () throws -> RouterPlugin,
        onLoad: @escaping @Sendable (ExpertLoaded) -> Void = { _ in },
        onUse: @escaping @Sendable (ExpertsUsed) -> Void = { _ in }
    ) throws {
        guard model.isComplete else {
            throw ModelError(
                "the model \(model.name) is incomplete: \(model.parts.count) of \(model.partCount) parts are here",
                hint: "run its import again: it goes on where it stopped")
        }
        self.model = model
        tokenizer = try Tokenizer(model.document.tokenizer)
        let layouts = Dictionary(
            uniqueKeysWithValues: model.document.config.parts.map { ($0.name, $0) })
        let loader = PartLoader(store: store, mode: mode, format: format)
        let name = model.name
        let parts = model.parts
        cache = PartCache(budget: budget) { part in
            guard let layout = layouts[part], let block = parts[part] else {
                throw ModelError("the model \(name) has no part \(part)")
            }
            let loaded = try loader.load(layout, block: block)
            onLoad(
                ExpertLoaded(
                    model: name, expert: part, block: block, bytes: loaded.weights.mappedBytes))
            return loaded.weights
        }
        let config = model.document.config
        runner = try ModelRunner(config: config, parts: cache, threads: threads) {
            try RoutedRequest(router(), config)
        } onUse: {
            onUse(ExpertsUsed(model: name, tokens: $0))
        }
    }

    /// What the cache and the process hold, in lines for a person.
    public func report(_ statistics: ModelRunner.Statistics) -> String {
        let figures = cache.figures
        func rate(_ count: Int, _ seconds: Double) -> String {
            seconds > 0 ? String(format: "%.1f", Double(count) / seconds) : "-"
        }
        let total = figures.hits + figures.misses
        let hitRate =
            total > 0 ? String(format: "%.1f %%", 100 * Double(figures.hits) / Double(total)) : "-"
        let memory = ProcessMemory.current
        return """
            prompt     \(statistics.promptTokens) tokens, \(rate(statistics.promptTokens, statistics.promptSeconds)) a second
            answer     \(statistics.tokens) tokens, \(rate(statistics.tokens, statistics.seconds)) a second
            experts    \(figures.experts) mapped, \(figures.misses) loads, \(figures.evictions) dropped, hit rate \(hitRate)
            memory     \(bytes(figures.mappedBytes)) mapped, \(bytes(memory.file)) of it touched, \(bytes(figures.ownedBytes)) decoded, \(bytes(memory.anonymous)) private
            kernels    \(Kernels.name), \(runner.threads) threads
            """
    }

    /// The cache's figures as JSON-ready values.
    public var cacheFigures: [String: Int] {
        let figures = cache.figures
        return [
            "hits": figures.hits, "misses": figures.misses, "evictions": figures.evictions,
            "experts": figures.experts, "bytes_mapped": figures.mappedBytes,
            "bytes_decoded": figures.ownedBytes,
            "bytes_resident": ProcessMemory.current.file,
        ]
    }

    private func bytes(_ count: Int) -> String {
        count >= 1 << 20
            ? String(format: "%.1f MiB", Double(count) / 1_048_576) : "\(count >> 10) KiB"
    }
}

/// A request of the router plugin, as the decoder calls it.
private final class RoutedRequest: RequestRouter {
    private let plugin: RouterPlugin
    private let request: RouterPlugin.Request
    private let experts: Int

    init(_ plugin: RouterPlugin, _ config: ModelConfig) throws {
        self.plugin = plugin
        experts = config.layers.map(\.expertCount).max() ?? 0
        request = try plugin.open(
            layers: config.layers.count, experts: experts, slots: config.expertsPerToken,
            normalises: config.normalisesExpertWeights)
    }

    func route(
        layer: Int, rows: Int, slots: Int, position: Int, logits: UnsafePointer<Float>,
        ids: UnsafeMutablePointer<UInt32>, weights: UnsafeMutablePointer<Float>
    ) throws {
        try unsafe plugin.route(
            layer: layer, logits: UnsafeBufferPointer(start: logits, count: rows * experts),
            requests: Array(repeating: request, count: rows),
            positions: (0..<rows).map { UInt64(position + $0) },
            ids: UnsafeMutableBufferPointer(start: ids, count: rows * slots),
            weights: UnsafeMutableBufferPointer(start: weights, count: rows * slots))
    }
}

/// Memory of this process, as Linux counts it.
public struct ProcessMemory: Sendable {
    /// Bytes of mapped files that were touched.
    public let file: Int
    /// Bytes that belong to this process alone.
    public let anonymous: Int

    /// The figures now; zero where `/proc` does not tell.
    public static var current: ProcessMemory {
        let text = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        func value(_ key: String) -> Int {
            guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(key) }) else {
                return 0
            }
            return
                (line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap {
                    Int($0)
                } ?? 0) * 1024
        }
        return ProcessMemory(file: value("RssFile:"), anonymous: value("RssAnon:"))
    }
}

/// The arithmetic that this processor got.
public enum Kernels {
    /// Its name, such as "avx512-vnni".
    public static var name: String { unsafe String(cString: blyan_math_isa_name(blyan_math_isa())) }

    /// The host service that plugins multiply with.
    public static var services: [String: UnsafeRawPointer] {
        unsafe ["blyan.host.math/1": UnsafeRawPointer(blyan_math_service())]
    }
}
