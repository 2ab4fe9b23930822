public import BlyanJSON

/// What never changes on a network: the payload of the first block of chain A, whose hash is the network's identity.
public struct GenesisPact: Sendable, Equatable {
    /// The network's name.
    public let name: String
    /// What its members agreed to, one sentence each.
    public let rules: [String]
    /// Compressed public keys in hex that may write on chain A.
    public let validators: [String]

    /// Makes a pact.
    public init(name: String, rules: [String], validators: [String]) {
        self.name = name
        self.rules = rules
        self.validators = validators
    }

    /// The payload; its canonical form is what is stored.
    public var document: JSONValue {
        .object([
            "format": .string("blyan-pact/1"), "name": .string(name),
            "rules": .array(rules.map { .string($0) }), "threshold": .int(1),
            "validators": .array(validators.map { .string($0) }),
        ])
    }

    /// The pact of a genesis block; one that is no JSON, or lists no validators, leaves chain A to its signer alone.
    ///
    /// - Throws: ``KernelError`` with code `rule` for a list that holds anything but public keys; what reading the
    ///   payload throws.
    init(of genesis: Block, in view: any ChainView) throws(KernelError) {
        let document = genesis.header.payloadType == "json" ? try view.document(genesis) : .null
        name = document["name"]?.string ?? ""
        rules = document["rules"]?.strings ?? []
        guard let listed = document["validators"] else {
            validators = [genesis.header.miner]
            return
        }
        guard let keys = listed.strings, !keys.isEmpty,
            keys.allSatisfy({ Hex.decode($0, count: 33) != nil })
        else {
            throw KernelError(
                .rule,
                "the Genesis Pact of \(genesis.hash) lists validators that are no public keys")
        }
        validators = keys
    }
}
