package import BlyanJSON
package import BlyanKernel
internal import BlyanYAML

/// By what candidates are judged: the document of a `policy` block on chain A.
package struct JudgingPolicy: Sendable, Equatable {
    /// One gate: what identifies it, and the library that was seen.
    package struct Gate: Sendable, Equatable {
        package let name: String
        package let version: String
        /// Its configuration.
        package let config: JSONValue
        /// SHA-256 of the library, as evidence: any build that does the same may serve.
        package let library: String

        /// Whether another gate judges the same, whatever library does it.
        package func isSame(as other: Gate) -> Bool {
            name == other.name && version == other.version && config == other.config
        }
    }

    /// The gates in their order.
    package var gates: [Gate]
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
    package init(gates: [Gate], commitments: [String: Digest], secretNumber: Int64) {
        self.gates = gates
        self.commitments = commitments
        self.secretNumber = secretNumber
        judgementsPerShard = Self.usualJudgementsPerShard
        stampBits = Self.usualStampBits
    }

    /// What identifies a gate that is loaded.
    package static func gate(_ plugin: LoadedPlugin) throws(KernelError) -> Gate {
        let text = plugin.manifest.config.json
        guard let config = try? JSONValue(parsing: Array(text.utf8)) else {
            throw KernelError(
                .config,
                "\(plugin.manifest.path): the configuration of a gate goes on chain, and holds a number with a fraction",
                hint: "state it in integers")
        }
        return Gate(
            name: plugin.manifest.name, version: plugin.manifest.version, config: config,
            library: plugin.sha256.description)
    }

    /// The document.
    package var document: JSONValue {
        .object([
            "format": .string(Self.format),
            "gates": .array(
                gates.map {
                    .object([
                        "name": .string($0.name), "version": .string($0.version),
                        "config": $0.config, "library": .string($0.library),
                    ])
                }),
            "commitments": .object(commitments.mapValues { .string($0.description) }),
            "secret_number": .int(secretNumber),
            "judgements_per_shard": .int(judgementsPerShard),
            "stamp_bits": .int(stampBits),
        ])
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
            guard let name = gate["name"]?.string, let version = gate["version"]?.string,
                let config = gate["config"], let library = gate["library"]?.string
            else { throw bad }
            gates.append(Gate(name: name, version: version, config: config, library: library))
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

    /// Whether other gates judge the same: what identifies them is equal, whatever library does it.
    package func hasSameGates(as other: [Gate]) -> Bool {
        gates.count == other.count
            && zip(gates, other).allSatisfy { $0.isSame(as: $1) }
    }
}
