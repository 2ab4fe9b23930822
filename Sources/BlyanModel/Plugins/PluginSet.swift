package import BlyanJSON
public import BlyanKernel
internal import BlyanYAML
internal import Synchronization

/// The plugins of one node manifest: what a request pins when it starts and keeps to its end.
///
/// Each plugin is loaded when it is first needed, so that a plugin that is gone costs what needs it and no more.
/// Any thread.
public final class PluginSet: Sendable {
    /// Counts from 1 with every swap.
    public let generation: Int
    /// The manifest that says which plugins are enabled.
    public let node: NodeManifest
    private let host: PluginHost
    // Read once: what an operator edits meanwhile is for the next generation.
    private let manifests: [String: Result<PluginManifest, KernelError>]
    private let loaded = Mutex<[String: Result<LoadedPlugin, KernelError>]>([:])
    private let policies = Mutex<[String: RewardPlugin]>([:])
    /// Reward policies that the chain asks for and the manifest does not list, as they were loaded last.
    private let unlisted = Mutex<[String: LoadedPlugin]>([:])
    /// Routers as the chain asks for them and the manifest does not, by name, version and configuration.
    private let routers = Mutex<[String: RouterPlugin]>([:])

    /// The first generation; nothing is loaded yet.
    public convenience init(_ node: NodeManifest, host: PluginHost) {
        self.init(node, host: host, generation: 1)
    }

    private init(_ node: NodeManifest, host: PluginHost, generation: Int) {
        self.node = node
        self.host = host
        self.generation = generation
        manifests = Dictionary(
            node.plugins.map { name in
                (name, Result { () throws(KernelError) in try Self.manifest(of: name, node) })
            }, uniquingKeysWith: { first, _ in first })
    }

    /// The next generation, by a manifest that may have changed: every plugin is loaded and checked first.
    ///
    /// - Throws: as ``plugin(_:)``; this generation serves on.
    public func next(_ node: NodeManifest) throws(KernelError) -> PluginSet {
        let next = PluginSet(node, host: host, generation: generation + 1)
        for name in node.formats { _ = try next.typed(name, .format, FormatPlugin.init) }
        if node.router != nil { _ = try next.router() }
        _ = try next.gates()
        _ = try next.rewards()
        return next
    }

    /// An enabled plugin by name, loaded once; a failure is remembered too.
    ///
    /// - Throws: ``KernelError`` naming the plugin, what is wrong and what mends it.
    public func plugin(_ name: String) throws(KernelError) -> LoadedPlugin {
        guard let manifest = manifests[name] else {
            throw KernelError(
                .plugin, "plugin \"\(name)\" is not enabled on this node",
                hint: "list it in \(node.path)")
        }
        let result = loaded.withLock { loaded in
            if let known = loaded[name] { return known }
            let result = Result { () throws(KernelError) in
                try host.load(manifest.get(), libraryFolders: node.libraryFolders)
            }
            loaded[name] = result
            return result
        }
        return try result.get()
    }

    /// The format that reads a payload type.
    ///
    /// - Throws: as ``plugin(_:)``, or the plugin to enable and the manifest line to add.
    public func format(for payloadType: String) throws(KernelError) -> FormatPlugin {
        if let format = try format(where: { $0.payloadTypes.contains(payloadType) }) {
            return format
        }
        throw node.notEnabled(payloadType: payloadType)
    }

    /// The first format that reads foreign files with an extension (without the dot).
    ///
    /// - Throws: as ``plugin(_:)``; the enabled plugin whose manifest cannot be read, or the plugin to enable and the
    ///   manifest line to add.
    public func format(forFileExtension suffix: String) throws(KernelError) -> FormatPlugin {
        if let format = try format(where: { $0.fileExtensions.contains(suffix) }) { return format }
        throw node.notEnabled(fileExtension: suffix)
    }

    /// The first enabled format whose manifest says so; if there is none, a manifest that cannot be read is the reason.
    private func format(
        where isWanted: (PluginManifest) -> Bool
    ) throws(KernelError) -> FormatPlugin? {
        var failure: KernelError?
        for name in node.formats {
            switch manifests[name] {
            case .success(let manifest) where isWanted(manifest):
                return try typed(name, .format, FormatPlugin.init)
            case .failure(let error): failure = failure ?? error
            default: continue
            }
        }
        if let failure { throw failure }
        return nil
    }

    /// The router that requests get.
    ///
    /// - Throws: as ``plugin(_:)``, or that none is enabled.
    public func router() throws(KernelError) -> RouterPlugin {
        guard let name = node.router else {
            throw KernelError(
                .plugin, "no router is enabled on this node, and the model has experts",
                hint: "add \"router: topk\" to \(node.path)")
        }
        return try typed(name, .router, RouterPlugin.init)
    }

    /// A router that the chain asks for, whether the manifest names it or not: its manifest must be in the plugin folder, and
    /// its library trusted.
    ///
    /// The configuration is the chain's, whatever the router's manifest says.
    /// - Throws: as ``router()``, or that another version is here.
    package func router(
        named name: String, version: String, config: JSONValue
    ) throws(KernelError) -> RouterPlugin {
        var manifest = try manifest(of: name, as: .router)
        guard manifest.version == version else {
            throw KernelError(
                .plugin, "\(manifest.path) is of version \(manifest.version), expected \(version)",
                hint: "install version \(version) of \(name)")
        }
        if node.router == name, manifest.canonicalConfig == config { return try router() }
        let text = String(decoding: config.canonical(), as: UTF8.self)
        let key = "\(name) \(version) \(text)"
        if let known = routers.withLock({ $0[key] }) { return known }
        let path = manifest.path
        manifest.config = try KernelError.reading { () throws(YAMLError) in
            try YAMLReader.read(text, file: path)
        }
        let made = try RouterPlugin(host.load(manifest, libraryFolders: node.libraryFolders))
        return routers.withLock { routers in
            let kept = routers[key] ?? made
            routers[key] = kept
            return kept
        }
    }

    /// The gates that candidates pass, in the manifest's order.
    ///
    /// - Throws: as ``plugin(_:)``.
    public func gates() throws(KernelError) -> [LoadedPlugin] {
        var gates: [LoadedPlugin] = []
        for name in node.gates {
            gates.append(try typed(name, .gate) { plugin throws(KernelError) in plugin })
        }
        return gates
    }

    /// The reward policy that the manifest names, or nil if it names none.
    ///
    /// - Throws: as ``plugin(_:)``, or that it does not reproduce its test vectors.
    public func rewards() throws(KernelError) -> RewardPlugin? {
        guard let name = node.rewards else { return nil }
        return try policy(name) { () throws(KernelError) in
            try typed(name, .reward, RewardPlugin.init)
        }
    }

    /// A reward policy by name that the chain asks for, now or in an old block, whether the manifest names it or not: its
    /// manifest must be in the plugin folder, and its library trusted.
    ///
    /// - Throws: as ``rewards()``.
    public func rewards(named name: String) throws(KernelError) -> RewardPlugin {
        try policy(name) { () throws(KernelError) in
            guard manifests[name] == nil else {
                return try typed(name, .reward, RewardPlugin.init)
            }
            // One that hangs would hang each time that it is loaded: this one says so.
            if let last = unlisted.withLock({ $0[name] }), PluginCall.fault(of: last) != nil {
                return try RewardPlugin(last)
            }
            let plugin = try host.load(
                manifest(of: name, as: .reward), libraryFolders: node.libraryFolders)
            unlisted.withLock { $0[name] = plugin }
            return try RewardPlugin(plugin)
        }
    }

    /// The manifest of a reward policy, listed or not; no code of it runs.
    ///
    /// - Throws: ``KernelError`` with code `io` or `config` if it cannot be read.
    package func manifest(ofPolicy name: String) throws(KernelError) -> PluginManifest {
        if let known = policies.withLock({ $0[name] }) { return known.plugin.manifest }
        return try manifest(named: name)
    }

    private func manifest(named name: String) throws(KernelError) -> PluginManifest {
        guard let listed = manifests[name] else { return try Self.manifest(of: name, node) }
        return try listed.get()
    }

    /// The manifest of a plugin that the chain asks for.
    private func manifest(
        of name: String, as kind: PluginManifest.Kind
    ) throws(KernelError) -> PluginManifest {
        let manifest = try manifest(named: name)
        guard manifest.kind == kind else {
            throw KernelError(
                .config,
                "\(manifest.path) declares the \(manifest.kind.rawValue) \"\(name)\", expected a \(kind.rawValue)"
            )
        }
        return manifest
    }

    /// Why a plugin that was loaded is asked nothing more; nil if it can be asked, or is not loaded.
    public func fault(of name: String) -> KernelError? {
        let listed = try? loaded.withLock { $0[name] }?.get()
        let policy = policies.withLock { $0[name] }?.plugin
        let plugin = listed ?? policy ?? unlisted.withLock { $0[name] }
        return plugin.flatMap { PluginCall.fault(of: $0) }
    }

    /// Loaded, and its test vectors run, once.
    ///
    /// Nothing is held while they run: whoever else asks for the policy can be told to stop.
    private func policy(
        _ name: String, _ load: () throws(KernelError) -> RewardPlugin
    ) throws(KernelError) -> RewardPlugin {
        if let known = policies.withLock({ $0[name] }) { return known }
        // What failed may be mended without a swap where the manifest does not list it.
        let made = try load()
        return policies.withLock { policies in
            let kept = policies[name] ?? made
            policies[name] = kept
            return kept
        }
    }

    private func typed<Typed>(
        _ name: String, _ kind: PluginManifest.Kind,
        _ wrap: (LoadedPlugin) throws(KernelError) -> Typed
    ) throws(KernelError) -> Typed {
        let plugin = try plugin(name)
        guard plugin.manifest.kind == kind else {
            throw KernelError(
                .config,
                "\(plugin.manifest.path) declares the \(plugin.manifest.kind.rawValue) \"\(name)\", "
                    + "\(node.path) lists it as \(kind.rawValue)")
        }
        return try wrap(plugin)
    }

    private static func manifest(
        of name: String, _ node: NodeManifest
    ) throws(KernelError) -> PluginManifest {
        let manifest = try PluginManifest(path: node.manifestPath(of: name))
        guard manifest.name == name else {
            throw KernelError(
                .config, "\(manifest.path) declares \"\(manifest.name)\", expected \"\(name)\"")
        }
        return manifest
    }
}
