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
    }

    /// Makes a home in `home`, which must be empty or absent.
    ///
    /// - Parameters:
    ///   - name: the network's name in the Genesis Pact.
    ///   - passphrase: encrypts the new key.
    ///   - program: the folder of the running program.
    /// - Throws: ``KernelError`` with code `rule` if there is a home already, `notFound` if the manifests that ship with
    ///   the program are not found, `io`.
    public static func run(
        home: URL, name: String, passphrase: [UInt8], program: URL, now: Int64
    ) throws -> Result {
        let manager = FileManager.default
        guard !manager.fileExists(atPath: home.appendingPathComponent("node.yaml").path) else {
            throw KernelError(
                .rule, "\(home.path) is a home already",
                hint: "use it, or give another folder with --home")
        }
        let manifests = try manifestFolder(from: program)
        let plugins = home.appendingPathComponent("plugins")
        do {
            try manager.createDirectory(
                at: plugins, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        } catch {
            throw KernelError(.io, "cannot make \(plugins.path): \(error.localizedDescription)")
        }
        let homeLock = try HomeLock(home: home)
        let keystore = Keystore(home: home)
        let key =
            keystore.exists
            ? try keystore.unlock(passphrase: passphrase)
            : try keystore.create(passphrase: passphrase)
        let genesis = try writeGenesis(home: home, name: name, key: key, now: now)
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
        try copy(
            manifests.appendingPathComponent("node.yaml"),
            to: home.appendingPathComponent("node.yaml")
        ) { text in
            text
                + "\n# Folders searched for plugin libraries.\nlibraries:\n  - \(quoted(program.path))\n"
        }
        let (trusted, missing) = try trust(
            nil, in: NodeManifest(path: home.appendingPathComponent("node.yaml").path))
        withExtendedLifetime(homeLock) {}
        return Result(
            genesis: genesis, publicKey: key.publicKey, trusted: trusted, missing: missing)
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
        do {
            let text = try String(contentsOf: source, encoding: .utf8)
            try edit(text).write(to: target, atomically: true, encoding: .utf8)
        } catch {
            throw KernelError(
                .io, "cannot copy \(source.path) to \(target.path): \(error.localizedDescription)")
        }
    }

    private static func writeGenesis(home: URL, name: String, key: SigningKey, now: Int64)
        throws(KernelError) -> Digest
    {
        let store = try ChainStore(home: home)
        defer { store.close() }
        if let genesis = store.genesis { return genesis }
        let pact = GenesisPact(
            name: name,
            rules: [
                "weights are served from the bytes that were signed",
                "a part changes only by a version block that rests on a verdict",
                "a fault is never a reject",
            ], validators: [key.publicKey])
        let writer = try store.payloads.makeWriter()
        try writer.write(pact.document.canonical())
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
        let all = ((try? FileManager.default.contentsOfDirectory(atPath: node.pluginFolder)) ?? [])
            .filter { $0.hasSuffix(".yaml") }.map { String($0.dropLast(5)) }.sorted()
        var trusted: [String] = []
        var missing: [String] = []
        for name in names ?? all {
            let path = node.manifestPath(of: name)
            let manifest = try PluginManifest(path: path)
            let hash: Digest
            do throws(KernelError) {
                hash = try PluginHost.libraryHash(of: manifest, libraryFolders: node.libraryFolders)
            } catch {
                guard names == nil else { throw error }
                missing.append(name)
                continue
            }
            do {
                let text = try String(contentsOfFile: path, encoding: .utf8)
                let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map {
                    line in
                    line.hasPrefix("sha256:") ? "sha256: \(hash)" : String(line)
                }
                try lines.joined(separator: "\n").write(
                    toFile: path, atomically: true, encoding: .utf8)
            } catch {
                throw KernelError(.io, "cannot write \(path): \(error.localizedDescription)")
            }
            trusted.append(name)
        }
        return (trusted, missing)
    }
}
