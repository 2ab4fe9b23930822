public import BlyanYAML

/// What a plugin manifest says: one shared library, the hash it must have, and its configuration.
///
/// Valid by `plugin.schema.json`; the schema's descriptions are the reference for every key.
public struct PluginManifest: Sendable {
    /// The four kinds of plugin.
    public enum Kind: String, Sendable, CaseIterable {
        /// How tensors lie in a payload.
        case format
        /// Whether a candidate is good enough.
        case gate
        /// Which experts serve a token.
        case router
        /// Who is paid.
        case reward
    }

    /// The file that was read.
    public let path: String
    /// The plugin's own name.
    public let name: String
    /// What it is.
    public let kind: Kind
    /// The plugin's own version (SemVer).
    public let version: String
    /// The library's file as written.
    public let library: String
    /// The library's hash, or nil while the operator has not trusted one.
    public let sha256: Digest?
    /// The ABI that the library was built for.
    public let abi: PluginABI
    /// Milliseconds after which a call counts as an overrun, or nil.
    public let callMilliseconds: Int?
    /// Payload types that a format reads, its own first.
    public let payloadTypes: [String]
    /// Extensions of foreign files that a format reads, without the dot.
    public let fileExtensions: [String]
    /// The configuration, an empty object if the manifest has none; the chain may ask for another one.
    package(set) public var config: YAMLNode

    /// Reads and checks a manifest.
    ///
    /// - Throws: ``KernelError/Code/config`` with file, line, column, and the nearest right spelling;
    ///   ``KernelError/Code/io`` if the file cannot be read.
    public init(path: String) throws(KernelError) {
        let source = try TextFile.read(path)
        let root = try KernelError.reading { () throws(YAMLError) in
            let root = try YAMLReader.read(source, file: path)
            try JSONSchema(Self.schema, name: "plugin.schema.json").check(root, file: path)
            return root
        }
        func text(_ key: String) -> String { root[key]?.string ?? "" }
        self.path = path
        name = text("name")
        kind = Kind(rawValue: text("kind")) ?? .format
        version = text("version")
        library = text("library")
        sha256 = Digest(hex: text("sha256"))
        abi = PluginABI(
            major: UInt16(clamping: root["abi"]?["major"]?.integer ?? 0),
            minor: UInt16(clamping: root["abi"]?["minor"]?.integer ?? 0))
        callMilliseconds = root["limits"]?["call_milliseconds"]?.integer
        payloadTypes = root["payload_types"]?.strings ?? (kind == .format ? [name] : [])
        fileExtensions = root["file_extensions"]?.strings ?? []
        config = root["config"] ?? YAMLNode(value: .map([]), line: root.line, column: root.column)
        if let isolation = root["isolation"], isolation.string == "process" {
            let refusal = isolation.error(
                "plugin \(name) asks for isolation \"process\", which is not built yet", in: path)
            throw KernelError(
                .config, refusal.message,
                hint:
                    "write \"isolation: in-process\" if you trust the library as you trust the node"
            )
        }
    }

    /// The JSON Schema of plugin manifests, for editors.
    public static var schema: String {
        String(decoding: PackageResources.plugin_schema_json, as: UTF8.self)
    }
}

/// A version of the plugin contract: a library loads in every host of the same major and at least its minor.
public struct PluginABI: Sendable, Equatable, CustomStringConvertible {
    /// Must be equal.
    public let major: UInt16
    /// The host's must not be lower.
    public let minor: UInt16

    /// Makes a version.
    public init(major: UInt16, minor: UInt16) {
        self.major = major
        self.minor = minor
    }

    /// As in `1.0`.
    public var description: String { "\(major).\(minor)" }
}
