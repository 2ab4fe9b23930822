internal import BlyanJSON
public import BlyanKernel
public import BlyanModel
public import Foundation

/// Makes a home: key, manifests with the hashes of the libraries that lie beside the program, genesis block.
public enum HomeSetup {
    /// What was made.
    public struct Result: Sendable {
        /// The genesis block: the network's identity.
        public let genesis: Digest
        /// The node's public key.
        public let publicKey: String
        /// Plugins whose library was found and is trusted now.
        public let trusted: [String]
        /// Plugins without a library here.
        public let missing: [String]
        /// The file that holds the key's random passphrase, if one was made.
        public let keyFile: String?
    }

    /// What lies in a home; a folder that holds anything else is none.
    private static let contents: Set<String> = [
        "candidates", "control.sock", "index", "key.json", "key.passphrase", "key.passphrase.new",
        "ledger",
        "lock", "log", "lost+found", "node.schema.json", "node.schema.json.new", "node.yaml.new",
        "payloads",
        "plugin.schema.json", "plugin.schema.json.new", "plugins", "scrub", "training", "usage",
        "verified",
        "wallets",
    ]

    /// Whether a home can be made in `home`: it is absent, empty, or holds what an interrupted ``run`` left.
    ///
    /// - Throws: ``KernelError`` with code `rule` naming what is there.
    public static func check(_ home: URL) throws(KernelError) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: home.path)) ?? []
        guard !names.contains("node.yaml") else {
            throw KernelError(
                .rule, "\(home.path) is a home already",
                hint: "use it, or give another folder with --home")
        }
        if let other = names.filter({ !contents.contains($0) }).min() {
            throw KernelError(
                .rule, "\(home.path) is no home and not empty: it holds \(other)",
                hint: "give an empty folder or a new one with --home")
        }
    }

    /// Makes a home in `home`, or goes on where an interrupted run of this stopped.
    ///
    /// - Parameters:
    ///   - name: the network's name in the Genesis Pact.
    ///   - validators: public keys that sign verdicts beside this node's.
    ///   - threshold: how many of all of them have to sign each verdict.
    ///   - passphrase: encrypts the new key, or opens the one that is there; nil = a random one in a ``KeyFile``.
    ///   - program: the folder of the running program.
    ///   - manifest: becomes the home's node manifest instead of the one that ships with the program.
    /// - Throws: ``KernelError`` as ``check(_:)``; `notFound` if the manifests that ship with the program are not found;
    ///   `config` for a `manifest` that is not valid; `io`.
    public static func run(
        home: URL, name: String, validators: [String] = [], threshold: Int = 1,
        passphrase: [UInt8]?, program: URL, manifest: URL? = nil, now: Int64
    ) throws -> Result {
        try check(home)
        try check(validators, threshold: threshold)
        let manager = FileManager.default
        let manifests = try manifestFolder(from: program)
        let source = manifest ?? manifests.appendingPathComponent("node.yaml")
        let namesLibraries = try !NodeManifest(path: source.path).libraryFolders.isEmpty
        let plugins = home.appendingPathComponent("plugins")
        do {
            try manager.createDirectory(
                at: plugins, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        } catch {
            throw KernelError(.io, "cannot make \(plugins.path): \(error.reason)")
        }
        let homeLock = try HomeLock(home: home)
        // Another run may have ended just before this one got the lock.
        try check(home)
        let keystore = Keystore(home: home)
        let keyFile = KeyFile(home: home)
        var madeFile: String?
        let key: SigningKey
        if keystore.exists {
            key = try keystore.unlock(passphrase: passphrase ?? keyFile.passphrase ?? [])
        } else if let passphrase {
            key = try keystore.create(passphrase: passphrase)
        } else {
            // Durable before the key that it opens.
            key = try keystore.create(passphrase: keyFile.passphrase ?? keyFile.make())
            madeFile = keyFile.path
        }
        let genesis = try writeGenesis(
            home: home, name: name, validators: validators, threshold: threshold, key: key,
            now: now)
        for file in try manager.contentsOfDirectory(
            atPath: manifests.appendingPathComponent("plugins").path
        ).sorted() {
            try copy(
                manifests.appendingPathComponent("plugins/\(file)"),
                to: plugins.appendingPathComponent(file)
            ) { $0 }
        }
        for schema in ["node.schema.json", "plugin.schema.json"] {
            try copy(
                manifests.appendingPathComponent(schema), to: home.appendingPathComponent(schema)
            ) { $0 }
        }
        // The node manifest comes last: a home has one, and what has none is no home yet.
        try copy(source, to: home.appendingPathComponent("node.yaml")) { text in
            guard !namesLibraries else { return text }
            return text
                + "\n# Folders searched for plugin libraries.\nlibraries:\n  - \(quoted(program.path))\n"
        }
        let (trusted, missing): ([String], [String])
        do {
            (trusted, missing) = try trust(
                nil, in: NodeManifest(path: home.appendingPathComponent("node.yaml").path))
        } catch {
            // Not a home yet: the next run goes on here.
            unsafe unlink(home.appendingPathComponent("node.yaml").path)
            throw error
        }
        withExtendedLifetime(homeLock) {}
        return Result(
            genesis: genesis, publicKey: key.publicKey, trusted: trusted, missing: missing,
            keyFile: madeFile)
    }

    private static func quoted(_ path: String) -> String {
        "\"\(path.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\""
    }

    /// The manifests that ship with the program: beside it, or in a folder above it, as in a source tree.
    private static func manifestFolder(from program: URL) throws(KernelError) -> URL {
        var folder = program
        for _ in 0..<6 {
            for name in ["blyan_blyan.resources/Manifests", "Manifests"] {
                let candidate = folder.appendingPathComponent(name)
                let node = candidate.appendingPathComponent("node.yaml").path
                if FileManager.default.fileExists(atPath: node) { return candidate }
            }
            folder.deleteLastPathComponent()
        }
        throw KernelError(
            .notFound, "the folder Manifests is neither beside \(program.path) nor above it",
            hint: "keep the program in its source tree, or copy Manifests beside it")
    }

    private static func copy(_ source: URL, to target: URL, _ edit: (String) -> String)
        throws(KernelError)
    {
        try DurableFile.write(Array(edit(read(source)).utf8), to: target, mode: 0o644)
    }

    private static func read(_ file: URL) throws(KernelError) -> String {
        do { return try String(contentsOf: file, encoding: .utf8) } catch {
            throw KernelError(.io, "cannot read \(file.path): \(error.reason)")
        }
    }

    private static func check(_ validators: [String], threshold: Int) throws(KernelError) {
        for key in validators where !Signature.isKey(key) {
            throw KernelError(
                .rule, "\(key) is no public key",
                hint: "give the 66 hex digits that making that validator's home printed as its key")
        }
        guard Set(validators).count == validators.count else {
            throw KernelError(.rule, "a validator is listed twice")
        }
        guard (1...validators.count + 1).contains(threshold) else {
            throw KernelError(
                .rule,
                "a threshold of \(threshold) of \(validators.count + 1) validators: expected 1 to \(validators.count + 1)"
            )
        }
    }

    private static func writeGenesis(
        home: URL, name: String, validators: [String], threshold: Int, key: SigningKey, now: Int64
    ) throws -> Digest {
        let store = try ChainStore(home: home, specs: ChainSpec.all)
        defer { store.close() }
        if let genesis = store.genesis { return genesis }
        let pact = GenesisPact(
            name: name,
            rules: [
                "weights are served from the bytes that were signed",
                "a part changes only by a version block that rests on a verdict",
                "a fault is never a reject",
            ], validators: [key.publicKey] + validators.filter { $0 != key.publicKey })
        guard case .object(var document) = pact.document, threshold <= pact.validators.count else {
            throw KernelError(
                .rule, "a threshold of \(threshold) of \(pact.validators.count) validators",
                hint: "this node's own key is one of those that --validator lists")
        }
        document["threshold"] = .int(Int64(threshold))
        let writer = try store.payloads.makeWriter()
        try writer.write(JSONValue.object(document).canonical())
        var header = BlockHeader(
            chainID: "A", blockType: "genesis", index: 0, previous: nil, timestamp: now)
        header.metadata = ["network": .string(name)]
        try writer.finish().describe(in: &header, type: "json")
        let block = try Block(signing: header, with: key)
        try store.append([block])
        return block.hash
    }

    /// Writes the sha256 of plugin libraries into their manifests: from then on they are trusted.
    ///
    /// - Parameter names: the plugins; nil = all manifests of the home.
    /// - Returns: The plugins whose library was found, and those without.
    /// - Throws: ``KernelError`` with code `plugin` if a named one has no library.
    public static func trust(_ names: [String]?, in node: NodeManifest) throws(KernelError) -> (
        trusted: [String], missing: [String]
    ) {
        var trusted: [String] = []
        var missing: [String] = []
        for name in names ?? node.installed {
            let path = node.manifestPath(of: name)
            let file = URL(fileURLWithPath: path)
            let manifest = try PluginManifest(path: path)
            let hash: Digest
            do throws(KernelError) {
                hash = try PluginHost.libraryHash(of: manifest, libraryFolders: node.libraryFolders)
            } catch {
                guard names == nil else { throw error }
                missing.append(name)
                continue
            }
            let lines = try read(file).split(separator: "\n", omittingEmptySubsequences: false).map
            {
                line in
                line.hasPrefix("sha256:") ? "sha256: \(hash)" : String(line)
            }
            try DurableFile.write(
                Array(lines.joined(separator: "\n").utf8), to: file, mode: 0o644)
            trusted.append(name)
        }
        return (trusted, missing)
    }
}

extension Error {
    /// What the system said, in its own words where Foundation kept them.
    fileprivate var reason: String {
        let cause = (self as NSError).userInfo[NSUnderlyingErrorKey] as? NSError ?? self as NSError
        guard cause.domain == NSPOSIXErrorDomain else { return localizedDescription }
        return unsafe String(cString: strerror(Int32(cause.code)))
    }
}
