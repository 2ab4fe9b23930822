package import BlyanJSON
package import BlyanKernel
package import BlyanModel

/// By what candidates are judged: the document of a `policy` block on chain A.
package struct JudgingPolicy: Sendable, Equatable {
    /// A gate, or the router: what identifies it, and the library that was seen.
    package struct Plugin: Sendable, Equatable {
        package let name: String
        package let version: String
        /// Its configuration.
        package let config: JSONValue
        /// SHA-256 of the library, as evidence: any build that does the same may serve.
        package let library: String

        /// Whether another one does the same, whatever library does it.
        package func isSame(as other: Plugin) -> Bool {
            name == other.name && version == other.version && config == other.config
        }
    }

    /// The gates in their order.
    package var gates: [Plugin]
    /// The router by which models compute the losses that gates ask for; nil where the node that wrote the policy had none, and
    /// in policies from before they named one: then the node's own.
    package var router: Plugin?
    /// Each validator's commitment to its secrets, by public key.
    package var commitments: [String: Digest]
    /// Which of a validator's secret chains these are.
    package var secretNumber: Int64
    /// Judgements that a shard of held-out text serves before it is used up.
    package var judgementsPerShard: Int64
    /// Zero bits that a candidate's hash begins with.
    package var stampBits: Int64

    package static let format = "blyan-policy/1"
    /// Zero bits that are asked for before the first policy: some milliseconds of work.
    package static let usualStampBits: Int64 = 12
    /// Judgements that a shard serves before a policy says otherwise.
    package static let usualJudgementsPerShard: Int64 = 32

    /// A policy with what is usual for the rest.
    package init(
        gates: [Plugin], router: Plugin?, commitments: [String: Digest], secretNumber: Int64
    ) {
        self.gates = gates
        self.router = router
        self.commitments = commitments
        self.secretNumber = secretNumber
        judgementsPerShard = Self.usualJudgementsPerShard
        stampBits = Self.usualStampBits
    }

    /// What identifies a plugin that is loaded.
    package static func plugin(_ plugin: LoadedPlugin) throws(KernelError) -> Plugin {
        guard let config = plugin.manifest.canonicalConfig else {
            throw KernelError(
                .config,
                "\(plugin.manifest.path): the configuration of a \(plugin.manifest.kind.noun) goes on chain, and holds a number with a fraction",
                hint: "state it in integers")
        }
        return Plugin(
            name: plugin.manifest.name, version: plugin.manifest.version, config: config,
            library: plugin.sha256.description)
    }

    /// The gates that a node's manifest enables.
    package static func gates(of plugins: PluginSet) throws(KernelError) -> [Plugin] {
        var gates: [Plugin] = []
        for gate in try plugins.gates() { gates.append(try plugin(gate)) }
        return gates
    }

    /// The router that a node's manifest enables, or nil.
    package static func router(of plugins: PluginSet) throws(KernelError) -> Plugin? {
        plugins.node.router == nil ? nil : try plugin(plugins.router().plugin)
    }

    /// The document.
    package var document: JSONValue {
        var members: [String: JSONValue] = [
            "format": .string(Self.format),
            "gates": .array(gates.map(\.document)),
            "commitments": .object(commitments.mapValues { .string($0.description) }),
            "secret_number": .int(secretNumber),
            "judgements_per_shard": .int(judgementsPerShard),
            "stamp_bits": .int(stampBits),
        ]
        members["router"] = router?.document
        return .object(members)
    }

    /// Reads a document.
    ///
    /// - Throws: ``KernelError`` with code `malformed`.
    package init(_ document: JSONValue) throws(KernelError) {
        let bad = KernelError(.malformed, "a policy block holds no \(Self.format)")
        guard document["format"]?.string == Self.format, case .array(let list)? = document["gates"],
            case .object(let keys)? = document["commitments"],
            let number = document["secret_number"]?.int,
            let judgements = document["judgements_per_shard"]?.int, judgements > 0,
            let bits = document["stamp_bits"]?.int, (0...Stamp.limit).contains(bits)
        else { throw bad }
        gates = []
        for gate in list {
            guard let gate = Plugin(gate) else { throw bad }
            gates.append(gate)
        }
        if let value = document["router"] {
            guard let named = Plugin(value) else { throw bad }
            router = named
        }
        commitments = [:]
        for (key, value) in keys {
            guard let hash = value.string.flatMap({ Digest(hex: $0) }) else { throw bad }
            commitments[key] = hash
        }
        secretNumber = number
        judgementsPerShard = judgements
        stampBits = bits
    }

    /// Whether a node's manifest enables the same gates and router: what identifies them is equal, whatever library does it.
    package func isOf(_ plugins: PluginSet) throws(KernelError) -> Bool {
        let (others, other) = (try Self.gates(of: plugins), try Self.router(of: plugins))
        return gates.count == others.count
            && zip(gates, others).allSatisfy { $0.isSame(as: $1) }
            && (other.map { router?.isSame(as: $0) == true } ?? (router == nil))
    }
}

extension JudgingPolicy.Plugin {
    fileprivate var document: JSONValue {
        .object([
            "name": .string(name), "version": .string(version), "config": config,
            "library": .string(library),
        ])
    }

    fileprivate init?(_ document: JSONValue) {
        guard let name = document["name"]?.string, let version = document["version"]?.string,
            let config = document["config"], let library = document["library"]?.string
        else { return nil }
        self.init(name: name, version: version, config: config, library: library)
    }
}
