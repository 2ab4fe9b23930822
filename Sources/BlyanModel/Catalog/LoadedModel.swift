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
    private let loader: PartLoader
    private let layouts: [String: PartLayout]
    private let openRouter: @Sendable () throws -> any RequestRouter
    private let budget: Int
    // File names of the payloads.
    private let payloads: Set<String>

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

    /// Experts served a request, or a part of it.
    public struct ExpertsUsed: Sendable {
        /// The model's name.
        public let model: String
        /// Which experts, how long, who pays.
        public let use: RequestUse
        /// The block of each part of the model.
        public let blocks: [String: Digest]
    }

    /// Prepares a model; parts are mapped when they are first needed.
    ///
    /// - Parameters:
    ///   - budget: bytes of experts that stay mapped.
    ///   - library: multiplies long prompts; nil = our own kernels do, reproducibly.
    ///   - format: the plugin for a payload type; throws if it is not enabled.
    ///   - router: the router plugin that requests get; throws if there is none.
    /// - Throws: ``ModelError`` if the model is incomplete, or its tokenizer is damaged.
    public init(
        _ model: CatalogModel, store: ChainStore, mode: VerifyMode, budget: Int, threads: Int,
        library: GemmLibrary? = nil,
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
        self.layouts = layouts
        let loader = PartLoader(store: store, mode: mode, format: format)
        self.loader = loader
        let name = model.name
        let parts = model.parts
        self.budget = budget
        payloads = try Set(
            parts.values.compactMap { try store.block($0)?.header.payloadHash?.description })
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
        let openRouter: @Sendable () throws -> any RequestRouter = {
            try RoutedRequest(router(), config)
        }
        self.openRouter = openRouter
        runner = try ModelRunner(
            config: config, parts: cache, threads: threads, library: library,
            openRouter: openRouter,
            onUse: { onUse(ExpertsUsed(model: name, use: $0, blocks: parts)) })
    }

    /// All tensors of a part as f32, a copy of its own.
    ///
    /// - Parameter block: serves instead of the current one; it need not stand on a chain.
    /// - Throws: ``ModelError`` or ``KernelError`` as when the part is loaded.
    package func decode(_ part: String, block: Block? = nil) throws
        -> [String: AlignedBuffer<Float>]
    {
        guard let layout = layouts[part], let current = model.parts[part] else {
            throw ModelError("the model \(model.name) has no part \(part)")
        }
        if let block { return try loader.decode(layout, block) }
        return try loader.decode(layout, block: current)
    }

    /// A block's payload with its format and tensors.
    ///
    /// - Throws: ``KernelError`` if the payload is gone or damaged, or its format not enabled.
    package func open(_ block: Block) throws -> (
        payload: MappedPayload, format: FormatPlugin, tensors: [TensorDescription]
    ) {
        try loader.open(block)
    }

    /// The model with other blocks in the place of current ones, for as long as it is judged.
    ///
    /// - Parameter blocks: parameters of parts of this model; they need not stand on a chain.
    /// - Throws: ``ModelError`` or ``KernelError`` if a part cannot be loaded from its block.
    package func variant(_ blocks: [Block], threads: Int) throws -> ModelRunner {
        var replaced: [String: PartWeights] = [:]
        for block in blocks {
            guard let layout = layouts[block.header.expertName] else {
                throw ModelError(
                    "the model \(model.name) has no part \(block.header.expertName)")
            }
            replaced[layout.name] = try loader.load(layout, block).weights
        }
        return try ModelRunner(
            config: model.document.config, parts: ReplacedParts(cache, replaced), threads: threads,
            openRouter: openRouter)
    }

    /// A router for one sequence, as requests get it.
    package func makeRouter() throws -> (any RequestRouter)? {
        model.document.config.layers.contains { $0.expertCount > 0 } ? try openRouter() : nil
    }

    /// What the expert cache did and what of the model is in memory.
    public struct Figures: Codable, Sendable {
        /// Requests for an expert that was mapped.
        public let hits: Int
        /// Requests that had to map it.
        public let misses: Int
        /// Experts dropped for the budget.
        public let dropped: Int
        /// Experts mapped now.
        public let experts: Int
        /// Bytes of experts that stay mapped at most.
        public let budget: Int
        /// Bytes of payloads mapped now, shared parts included.
        public let bytesMapped: Int
        /// Those of them that lie in memory and in this process's page tables now.
        public let bytesResident: Int
        /// Bytes of private memory that decoded copies take.
        public let bytesDecoded: Int

        /// Hits in percent of all requests, or nil before the first.
        public var hitRate: Double? {
            hits + misses > 0 ? 100 * Double(hits) / Double(hits + misses) : nil
        }
    }

    /// The figures now.
    public var figures: Figures {
        let figures = cache.figures
        return Figures(
            hits: figures.hits, misses: figures.misses, dropped: figures.evictions,
            experts: figures.experts, budget: budget, bytesMapped: figures.mappedBytes,
            bytesResident: min(figures.mappedBytes, ProcessMemory.resident(of: payloads)),
            bytesDecoded: figures.ownedBytes)
    }
}

/// A model's parts, some of them from elsewhere.
private struct ReplacedParts: PartSource {
    private let others: any PartSource
    private let replaced: [String: PartWeights]

    init(_ others: any PartSource, _ replaced: [String: PartWeights]) {
        self.others = others
        self.replaced = replaced
    }

    func part(_ name: String) throws -> PartWeights { try replaced[name] ?? others.part(name) }

    func forget() throws {
        try others.forget()
        for part in replaced.values { try part.checkFault() }
    }
}

extension RouterPlugin {
    /// Opens a request of a model, to see whether the router takes it.
    ///
    /// - Throws: ``KernelError`` with what the router finds impossible; nothing for a model without experts.
    public func check(_ config: ModelConfig) throws(KernelError) {
        if config.layers.contains(where: { $0.expertCount > 0 }) { _ = try open(config) }
    }

    fileprivate func open(_ config: ModelConfig) throws(KernelError) -> Request {
        try open(
            layers: config.layers.count, experts: config.layers.map(\.expertCount).max() ?? 0,
            slots: config.expertsPerToken, normalises: config.normalisesExpertWeights)
    }
}

/// A request of the router plugin, as the decoder calls it.
private final class RoutedRequest: RequestRouter {
    private let plugin: RouterPlugin
    private let request: RouterPlugin.Request
    private let experts: Int

    init(_ plugin: RouterPlugin, _ config: ModelConfig) throws {
        self.plugin = plugin
        request = try plugin.open(config)
        experts = request.experts
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
public struct ProcessMemory: Codable, Sendable {
    /// Bytes in memory: those of files and those of its own.
    public let resident: Int
    /// Bytes of mapped files in memory: payloads, index, the program and its libraries.
    public let file: Int
    /// Bytes that belong to this process alone.
    public let anonymous: Int

    /// The figures now; zero where `/proc` does not tell.
    public static var current: ProcessMemory {
        let lines = read("/proc/self/status")
        func value(_ key: String) -> Int { lines.lazy.compactMap { kilobytes($0, key) }.first ?? 0 }
        return ProcessMemory(
            resident: value("VmRSS:"), file: value("RssFile:"), anonymous: value("RssAnon:"))
    }

    /// Bytes in memory of the files with these names that this process maps; zero where `/proc` does not tell.
    static func resident(of files: Set<String>) -> Int {
        // A file that is mapped twice, by the scrub for instance, counts once.
        var sizes: [String: Int] = [:]
        var file: String?
        for line in read("/proc/self/smaps") {
            if let size = kilobytes(line, "Rss:") {
                if let file { sizes[file] = max(sizes[file] ?? 0, size) }
            } else if line.first?.isLowercase == true || line.first?.isNumber == true {
                // A mapping begins: address, rights, offset, device, inode, path.
                let name = line.split(separator: "/").last.map(String.init)
                file = name.flatMap { files.contains($0) ? $0 : nil }
            }
        }
        return sizes.values.reduce(0, +)
    }

    private static func read(_ path: String) -> [Substring] {
        // Foundation stops at the first short read, and here every read is one.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        defer { if descriptor >= 0 { close(descriptor) } }
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = unsafe Foundation.read(descriptor, &piece, piece.count)
            guard count > 0 else { break }
            text += piece[..<count]
        }
        return String(decoding: text, as: UTF8.self).split(separator: "\n")
    }

    private static func kilobytes(_ line: Substring, _ key: String) -> Int? {
        guard line.hasPrefix(key) else { return nil }
        let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
        return words.count > 1 ? Int(words[1]).map { $0 * 1024 } : nil
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
