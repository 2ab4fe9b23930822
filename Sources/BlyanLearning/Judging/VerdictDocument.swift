package import BlyanJSON
package import BlyanKernel

/// A receipt: what a candidate was judged by, on what text, and what each gate found; the payload of a `verdict` block.
///
/// It holds all that is needed to judge again, and the validators' signatures over all of that.
package struct VerdictDocument: Sendable, Equatable {
    /// Which text was drawn, and why no other.
    package struct Draw: Sendable, Equatable {
        /// The shard of held-out text.
        package let shard: Digest
        /// Each validator's secret, by public key.
        package let secrets: [String: Digest]
        /// The number of this judgement since the commitments, from 1.
        package let count: Int
        package let seed: Digest

        package init(shard: Digest, secrets: [String: Digest], count: Int, seed: Digest) {
            self.shard = shard
            self.secrets = secrets
            self.count = count
            self.seed = seed
        }
    }

    /// What a gate said.
    package struct Gate: Sendable, Equatable {
        /// The part that it looked at, where that is the router that goes with a candidate; "" for the candidate.
        package let part: String
        package let name: String
        package let version: String
        package let outcome: String
        package let reason: String
        package let evidence: JSONValue

        package init(
            part: String = "", name: String, version: String, outcome: String, reason: String,
            evidence: JSONValue
        ) {
            self.part = part
            self.name = name
            self.version = version
            self.outcome = outcome
            self.reason = reason
            self.evidence = evidence
        }

        fileprivate var json: JSONValue {
            var members: [String: JSONValue] = [
                "name": .string(name), "version": .string(version), "outcome": .string(outcome),
                "reason": .string(reason), "evidence": evidence,
            ]
            if !part.isEmpty { members["part"] = .string(part) }
            return .object(members)
        }
    }

    package var model: Digest
    /// The version block that the candidate was compared with.
    package var version: Digest
    package var policy: Digest
    /// The candidate's block as it was submitted.
    package var block: Block
    /// The router that was submitted with it; nil if it changes one part alone.
    package var router: Block?
    /// UTC milliseconds.
    package var received: Int64
    package var draw: Draw?
    /// Whether the block was a version already, and was judged against the one that it had replaced.
    package var isReview = false
    package var gates: [Gate]
    /// "accept" or "reject".
    package var outcome: String
    /// "gate/code" of the gate that rejected, or "".
    package var reason: String
    /// Signatures over all of the above, r‖s in hex, by public key.
    package var signatures: [String: String] = [:]

    package static let format = "blyan-verdict/1"
    /// Arrays and objects that a gate's evidence lies in.
    static let evidenceDepth = 3
    /// The kind of statement that validators sign.
    package static let kind = "verdict"

    /// Everything but the signatures: what is signed.
    package var body: JSONValue {
        var members: [String: JSONValue] = [
            "format": .string(Self.format), "model": .string(model.description),
            "version": .string(version.description), "policy": .string(policy.description),
            "block": .string(String(decoding: block.line, as: UTF8.self)),
            "received": .int(received),
            "draw": draw.map { draw in
                .object([
                    "shard": .string(draw.shard.description), "count": .int(Int64(draw.count)),
                    "seed": .string(draw.seed.description),
                    "secrets": .object(draw.secrets.mapValues { .string($0.description) }),
                ])
            } ?? .null,
            "gates": .array(gates.map(\.json)),
            "outcome": .string(outcome), "reason": .string(reason),
        ]
        if isReview { members["review"] = .bool(true) }
        if let router { members["router"] = .string(String(decoding: router.line, as: UTF8.self)) }
        return .object(members)
    }

    /// The whole document in canonical form.
    package var encoded: [UInt8] {
        guard case .object(var members) = body else { return [] }
        members["signatures"] = .object(signatures.mapValues(JSONValue.string))
        return JSONValue.object(members).canonical()
    }

    /// A document without signatures.
    package init(
        model: Digest, version: Digest, policy: Digest, block: Block, router: Block?,
        received: Int64, draw: Draw?, gates: [Gate], outcome: String, reason: String
    ) {
        self.router = router
        self.model = model
        self.version = version
        self.policy = policy
        self.block = block
        self.received = received
        self.draw = draw
        self.gates = gates
        self.outcome = outcome
        self.reason = reason
    }

    /// Reads a document.
    ///
    /// - Throws: ``KernelError`` with code `malformed`.
    package init(parsing bytes: [UInt8]) throws(KernelError) {
        func bad(_ what: String) -> KernelError {
            KernelError(.malformed, "a verdict block holds no \(Self.format): \(what)")
        }
        guard let value = try? JSONValue(canonical: bytes),
            value["format"]?.string == Self.format
        else { throw bad("it is not canonical JSON of that format") }
        func hash(_ value: JSONValue?, _ what: String) throws(KernelError) -> Digest {
            guard let hash = value?.string.flatMap({ Digest(hex: $0) }) else { throw bad(what) }
            return hash
        }
        model = try hash(value["model"], "model")
        version = try hash(value["version"], "version")
        policy = try hash(value["policy"], "policy")
        guard let line = value["block"]?.string, let received = value["received"]?.int,
            let outcome = value["outcome"]?.string, ["accept", "reject"].contains(outcome),
            let reason = value["reason"]?.string, case .array(let list)? = value["gates"],
            case .object(let signed)? = value["signatures"]
        else { throw bad("a member is missing") }
        block = try Block(parsing: Array(line.utf8))
        if let line = value["router"]?.string { router = try Block(parsing: Array(line.utf8)) }
        if let review = value["review"] {
            guard review == .bool(true) else { throw bad("review") }
            isReview = true
        }
        self.received = received
        self.outcome = outcome
        self.reason = reason
        gates = []
        for gate in list {
            guard let name = gate["name"]?.string, let version = gate["version"]?.string,
                let outcome = gate["outcome"]?.string, let reason = gate["reason"]?.string,
                let evidence = gate["evidence"]
            else { throw bad("a gate") }
            gates.append(
                Gate(
                    part: gate["part"]?.string ?? "", name: name, version: version,
                    outcome: outcome, reason: reason,
                    evidence: evidence))
        }
        for (key, signature) in signed {
            guard let text = signature.string else { throw bad("a signature") }
            signatures[key] = text
        }
        guard let drawn = value["draw"], drawn != .null else { return }
        guard let count = drawn["count"]?.int.flatMap({ Int(exactly: $0) }),
            case .object(let secrets)? = drawn["secrets"]
        else { throw bad("draw") }
        var known: [String: Digest] = [:]
        for (key, secret) in secrets { known[key] = try hash(secret, "secret") }
        draw = Draw(
            shard: try hash(drawn["shard"], "shard"), secrets: known, count: count,
            seed: try hash(drawn["seed"], "seed"))
    }

    /// The upper bound of the improvement, in billionths, by the last gate that gives one; nil if none does.
    package var upperBound: Int64? {
        gates.reversed().lazy.compactMap { $0.evidence["upper_ppb"]?.int }.first
    }

    /// Whether the block is worse than the version that it replaced, by all that the gates measured.
    package var showsRegression: Bool {
        isReview && outcome == "reject" && upperBound.map { $0 < 0 } ?? false
    }

    /// Adds a validator's signature.
    package mutating func sign(_ key: SigningKey, genesis: Digest) throws(KernelError) {
        let statement = try Statement(Self.kind, genesis: genesis, body: body)
        signatures[key.publicKey] = Hex.encode(try key.sign(statement.digest))
    }

    /// Those of `validators` whose signatures are valid.
    package func signers(among validators: [String], genesis: Digest) throws(KernelError)
        -> [String]
    {
        let statement = try Statement(Self.kind, genesis: genesis, body: body)
        return validators.filter { key in
            guard let bytes = signatures[key].flatMap({ Hex.decode($0, count: 64) }) else {
                return false
            }
            return Signature.isValid(bytes, over: statement.digest, publicKey: key)
        }
    }
}
