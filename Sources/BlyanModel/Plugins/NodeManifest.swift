public import BlyanKernel
internal import BlyanYAML
internal import Foundation

/// What this node runs and how it serves: the operator's one file, `node.yaml`.
///
/// Valid by `node.schema.json`; the schema's descriptions are the reference for every key. A plugin that is not
/// listed is not loaded.
public struct NodeManifest: Sendable {
    /// When payload bytes are checked against their signed root while serving.
    public enum Verify: Sendable, Equatable {
        /// On every read.
        case always
        /// Each leaf once per process.
        case touch
        /// As ``touch``, and across processes for so many seconds while the file does not change.
        case remember(seconds: Int)
    }

    /// What multiplies long prompts.
    public enum Prompts: String, Sendable {
        /// Our own kernels: a token's bits do not depend on how its prompt was chunked.
        case exact
        /// OpenBLAS: the same within rounding, dependent on how a prompt was chunked.
        case fast
    }

    /// The file that was read.
    public let path: String
    /// Names of the formats to load; imports write the first one.
    public let formats: [String]
    /// Name of the router, or nil: then models with experts are not served.
    public let router: String?
    /// Names of the gates that candidates pass, in this order; without any, none is judged.
    public let gates: [String]
    /// Name of the reward policy, or nil: then nobody is paid.
    public let rewards: String?
    /// Folder of the plugin manifests.
    public let pluginFolder: String
    /// Folders searched for libraries after the manifest's own.
    public let libraryFolders: [String]
    /// When payload bytes are checked.
    public let verify: Verify
    /// What multiplies long prompts.
    public let prompts: Prompts
    /// Share of one core for the background scrub, in percent; 0 = none.
    public let scrubPercent: Int
    /// Bytes of experts kept mapped.
    public let cacheBudget: Int
    /// Compute threads; 0 = one per core.
    public let threads: Int
    private let formatsLine: Int
    private let promptsLine: Int

    /// Reads and checks a manifest.
    ///
    /// Relative folders count from the file.
    ///
    /// - Parameter home: has the plugin manifests in `plugins` where the file names no folder; nil = as the file's own.
    /// - Throws: ``KernelError/Code/config`` with file, line, column, and the nearest right spelling;
    ///   ``KernelError/Code/io`` if the file cannot be read.
    public init(path: String, home: String? = nil) throws(KernelError) {
        let text = try TextFile.read(path)
        let root = try KernelError.reading { () throws(YAMLError) in
            let root = try YAMLReader.read(text, file: path)
            try JSONSchema(Self.schema, name: "node.schema.json").check(root, file: path)
            return root
        }
        self.path = path
        formats = root["formats"]?.strings ?? []
        formatsLine = root["formats"]?.line ?? 1
        router = root["router"]?.string
        gates = root["gates"]?.strings ?? []
        rewards = root["rewards"]?.string
        pluginFolder =
            root["plugins"]?.string.map { TextFile.join(path, $0) }
            ?? home.map { $0 + "/plugins" } ?? TextFile.join(path, "plugins")
        libraryFolders = (root["libraries"]?.strings ?? []).map { TextFile.join(path, $0) }
        scrubPercent = root["scrub_cpu_percent"]?.integer ?? 5
        threads = root["threads"]?.integer ?? 0
        switch root["verify"]?.string {
        case "always": verify = .always
        case "remember": verify = .remember(seconds: root["remember_seconds"]?.integer ?? 86_400)
        default: verify = .touch
        }
        prompts = root["prompts"]?.string.flatMap(Prompts.init) ?? .exact
        promptsLine = root["prompts"]?.line ?? 1
        let budget = root["cache_budget"]
        guard let bytes = ByteCount.parse(budget?.string ?? "1GiB") else {
            let refusal = (budget ?? root).error("the cache budget does not fit 63 bits", in: path)
            throw KernelError(.config, refusal.message)
        }
        cacheBudget = bytes
    }

    /// The library that multiplies long prompts; nil = our own kernels do.
    ///
    /// - Throws: ``KernelError/Code/config`` if the file says `fast` and the library cannot be loaded.
    public func promptLibrary() throws(KernelError) -> GemmLibrary? {
        try promptLibrary(file: GemmLibrary.openBLASFile)
    }

    package func promptLibrary(file: String) throws(KernelError) -> GemmLibrary? {
        guard prompts == .fast else { return nil }
        guard let library = GemmLibrary.openBLAS(file) else {
            throw KernelError(
                .config,
                "\(path):\(promptsLine): \"prompts\" is \"fast\", which needs OpenBLAS, and \(file) cannot be loaded",
                hint: "install the package libopenblas0-pthread, or write \"prompts: exact\"")
        }
        return library
    }

    /// Names of all plugins to load, in order.
    public var plugins: [String] {
        formats + (router.map { [$0] } ?? []) + gates + (rewards.map { [$0] } ?? [])
    }

    /// The manifest file of a plugin.
    public func manifestPath(of plugin: String) -> String { "\(pluginFolder)/\(plugin).yaml" }

    /// Names of all plugins whose manifests lie in ``pluginFolder``, enabled or not.
    public var installed: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: pluginFolder)) ?? [])
            .filter { $0.hasSuffix(".yaml") }.map { String($0.dropLast(5)) }.sorted()
    }

    /// Where a plugin's library lies, or nil if it is in none of the folders that are searched.
    public func library(of plugin: PluginManifest) -> String? {
        ([plugin.path] + libraryFolders.map { $0 + "/" })
            .map { TextFile.join($0, plugin.library) }
            .first { FileManager.default.fileExists(atPath: $0) }
    }

    /// The error for a payload type that no enabled plugin reads; it names the manifest line to add.
    public func notEnabled(payloadType: String) -> KernelError {
        notEnabled("payload type \"\(payloadType)\" is not enabled on this node") {
            $0.payloadTypes.contains(payloadType)
        }
    }

    /// The error for foreign files that no enabled plugin reads; it names the manifest line to add.
    public func notEnabled(fileExtension suffix: String) -> KernelError {
        let files = suffix.isEmpty ? "files without an extension" : ".\(suffix) files"
        return notEnabled("no format that is enabled on this node reads \(files)") {
            $0.fileExtensions.contains(suffix)
        }
    }

    private func notEnabled(_ message: String, reads: (PluginManifest) -> Bool) -> KernelError {
        let owner = installed.lazy.compactMap { try? PluginManifest(path: manifestPath(of: $0)) }
            .first(where: reads)
        guard let owner else {
            return KernelError(
                .plugin, message,
                hint: "no manifest in \(pluginFolder) reads it; install its plugin")
        }
        return KernelError(
            .plugin, "\(message); plugin \(owner.name) reads it",
            hint: "add \"- \(owner.name)\" under \"formats:\" in \(path), line \(formatsLine)")
    }

    /// The JSON Schema of node manifests, for editors.
    public static var schema: String {
        String(decoding: PackageResources.node_schema_json, as: UTF8.self)
    }
}

/// Sizes as people write them.
public enum ByteCount {
    /// The bytes in text such as `512MiB`, or nil if it is not one or does not fit.
    public static func parse(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let shifts = ["B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40]
        guard let number = Int(digits), let shift = shifts[String(text.dropFirst(digits.count))]
        else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : bytes
    }
}
