public import BlyanJSON

/// What distinguishes one chain from another; the mechanism is the same for all.
public struct ChainSpec: Sendable {
    /// How blocks follow one another.
    public enum Shape: Sendable {
        /// One after the other.
        case linear
        /// By ``BlockHeader/dependsOn``; nothing depends on the order of arrival.
        case graph
    }

    /// A further rule: throws if the block may not stand where it claims to.
    public typealias Rule =
        @Sendable (_ block: Block, _ view: any ChainView) throws(KernelError) -> Void

    /// The chain's id, as in ``BlockHeader/chainID``.
    public let id: String
    /// How blocks follow one another.
    public let shape: Shape
    /// The block types that may stand on it.
    public let blockTypes: Set<String>
    /// Rules beside those of the shape.
    public let rules: [Rule]

    /// Makes a spec.
    public init(id: String, shape: Shape, blockTypes: Set<String>, rules: [Rule] = []) {
        self.id = id
        self.shape = shape
        self.blockTypes = blockTypes
        self.rules = rules
    }

    /// Who signs is a validator of the Genesis Pact, or it is the first block.
    public static let signerIsValidator: Rule = { (block, view) throws(KernelError) in
        guard block.header.blockType != "genesis" else { return }
        guard let pact = view.pact else {
            throw KernelError(
                .integrity,
                "the Genesis Pact cannot be read, so that the signer of block \(block.hash) cannot be checked"
            )
        }
        guard pact.validators.contains(block.header.miner) else {
            throw KernelError(
                .rule,
                "block \(block.hash) on chain \(block.header.chainID) is signed by \(block.header.miner), which is no validator of the Genesis Pact"
            )
        }
    }

    /// Chain A: the pact, models, policies, versions.
    public static let a = ChainSpec(
        id: "A", shape: .linear,
        blockTypes: ["genesis", "meta", "policy", "version", "verdict", "migration"],
        rules: [Rules.genesisComesFirst, signerIsValidator, Rules.versionNamesItsParts])

    /// Chain B: parameters, one expert or shared part a block.
    public static let b = ChainSpec(
        id: "B", shape: .graph, blockTypes: ["parameters"], rules: [Rules.parametersAreComplete])
}

/// What the rules may ask of the blocks that stand already, or come before in the same record.
public protocol ChainView {
    /// The first block of chain A, or nil in an empty home.
    var genesis: Digest? { get }
    /// The Genesis Pact, which says who writes on chain A; nil before it stands.
    var pact: GenesisPact? { get }
    /// The last block of a linear chain, or nil.
    func head(of chain: String) throws(KernelError) -> Block?
    /// A block, or nil.
    func block(_ hash: Digest) throws(KernelError) -> Block?
    /// A block's payload as JSON, compared with its signed hash.
    func document(_ block: Block) throws(KernelError) -> JSONValue
}

extension ChainSpec {
    /// Checks everything about a block that its header and the blocks before it decide.
    ///
    /// - Throws: ``KernelError`` with code `integrity` for a bad signature or stamp, `rule` for a bad place.
    public func check(_ block: Block, in view: any ChainView, signature: Bool = true)
        throws(KernelError)
    {
        let header = block.header
        func broken(_ what: String) -> KernelError {
            KernelError(.rule, "block \(block.hash) on chain \(id) \(what)")
        }
        guard header.chainID == id else {
            throw broken("says that it is on chain \(header.chainID)")
        }
        guard blockTypes.contains(header.blockType) else {
            throw broken(
                "has type \(header.blockType), expected \(blockTypes.sorted().joined(separator: ", "))"
            )
        }
        if signature, !block.isSignatureValid {
            throw block.signatureError
        }
        guard Stamp.isValid(block.hash, difficulty: header.difficulty) else {
            throw KernelError(
                .integrity,
                "block \(block.hash) lacks the stamp of \(header.difficulty) bits that it claims")
        }
        try checkPayload(of: block, broken)
        var highest: Int64 = -1
        for hash in header.dependsOn {
            guard let dependency = try view.block(hash) else {
                throw broken("depends on \(hash), which is not here")
            }
            if dependency.header.chainID == id { highest = max(highest, dependency.header.index) }
        }
        switch shape {
        case .linear:
            let head = try view.head(of: id)
            let index = head.map { $0.header.index + 1 } ?? 0
            guard header.index == index else {
                throw broken("has index \(header.index), expected \(index)")
            }
            let previous = head?.hash ?? (id == "A" ? nil : view.genesis)
            guard header.previous == previous, id == "A" || previous != nil else {
                throw broken(
                    "follows \(header.previous?.description ?? "nothing"), expected \(previous?.description ?? (id == "A" ? "nothing" : "a genesis block"))"
                )
            }
        case .graph:
            guard header.index == highest + 1 else {
                throw broken("has index \(header.index), its dependencies give \(highest + 1)")
            }
            guard let previous = header.previous, let genesis = view.genesis else {
                throw broken(
                    "names no previous block, expected the version it replaces or the genesis block"
                )
            }
            if previous != genesis {
                guard let old = try view.block(previous)?.header, old.chainID == id,
                    old.expertName == header.expertName,
                    try Rules.models(of: old, in: view) == Rules.models(of: header, in: view)
                else {
                    throw broken(
                        "replaces \(previous), which is no version of \(header.expertName) of this model"
                    )
                }
            }
        }
        for rule in rules { try rule(block, view) }
    }

    private func checkPayload(of block: Block, _ broken: (String) -> KernelError)
        throws(KernelError)
    {
        let header = block.header
        if header.payloadHash == nil {
            guard header.merkleRoot == nil, header.payloadSize == 0, header.payloadType.isEmpty
            else {
                throw broken("describes a payload without naming its hash")
            }
            return
        }
        guard header.merkleRoot != nil, !header.payloadType.isEmpty else {
            throw broken("has a payload without merkle_root or payload_type")
        }
        _ = try LeafLayout(header)
    }
}

/// Rules of single chains.
private enum Rules {
    static let genesisComesFirst: ChainSpec.Rule = { (block, view) throws(KernelError) in
        let isGenesis = block.header.blockType == "genesis"
        guard isGenesis == (view.genesis == nil) else {
            throw KernelError(
                .rule,
                isGenesis
                    ? "block \(block.hash) is a second genesis block"
                    : "block \(block.hash) comes before the genesis block")
        }
    }

    static let parametersAreComplete: ChainSpec.Rule = { (block, view) throws(KernelError) in
        let header = block.header
        guard !header.expertName.isEmpty, header.payloadHash != nil else {
            throw KernelError(.rule, "parameters block \(block.hash) lacks expert_name or payload")
        }
        let models = try models(of: header, in: view)
        guard models.count == 1 else {
            throw KernelError(
                .rule,
                "parameters block \(block.hash) depends on \(models.count) meta blocks, expected 1")
        }
    }

    /// The meta blocks that a header depends on.
    static func models(of header: BlockHeader, in view: any ChainView) throws(KernelError)
        -> [Digest]
    {
        var found: [Digest] = []
        for hash in header.dependsOn where try view.block(hash)?.header.blockType == "meta" {
            found.append(hash)
        }
        return found
    }

    static let versionNamesItsParts: ChainSpec.Rule = { (block, view) throws(KernelError) in
        guard block.header.blockType == "version" else { return }
        func broken(_ what: String) -> KernelError {
            KernelError(.rule, "version block \(block.hash) \(what)")
        }
        let document = try view.document(block)
        guard document["format"]?.string == "blyan-version/1", let model = document.digest("model"),
            try models(of: block.header, in: view) == [model],
            case .object(let parts)? = document["parts"], !parts.isEmpty
        else {
            throw broken("lists no parts of the one model that it depends on, as blyan-version/1")
        }
        for name in parts.keys.sorted() {
            let hash = document["parts"]?.digest(name)
            guard let hash, let part = try view.block(hash)?.header, part.chainID == "B",
                part.expertName == name, part.dependsOn.contains(model)
            else {
                throw broken(
                    "names \(hash?.description ?? "no hash") for \(name), which is no such part of its model"
                )
            }
        }
        for (member, type) in [("parent", "version"), ("verdict", "verdict")] {
            guard document[member]?.string != "" else { continue }
            guard let hash = document.digest(member), let other = try view.block(hash)?.header,
                other.chainID == "A", other.blockType == type,
                type != "version" || other.dependsOn.contains(model)
            else {
                throw broken("names no \(type) block of its model as its \(member)")
            }
        }
    }
}

extension JSONValue {
    /// A member that is a digest in hex, or nil.
    fileprivate func digest(_ key: String) -> Digest? {
        self[key]?.string.flatMap { Digest(hex: $0) }
    }
}

/// How a payload's Merkle leaves lie, from the signed metadata.
public struct LeafLayout: Sendable, Hashable {
    /// Bytes beside leaf hashes that no leaf need cover: they are compared with ``BlockHeader/payloadHash`` alone,
    /// when a whole payload is read, and a format believes nothing of them that covered bytes do not confirm.
    public static let uncoveredLimit: UInt64 = 4096

    /// Leaves partition bytes [0, covered).
    public let covered: UInt64
    /// Bytes a leaf; the last may be shorter.
    public let leafSize: UInt64
    /// Where the payload itself stores the hashes of ``Merkle/stored(_:)``, 32 bytes each, at or after ``covered``; nil: it does not.
    public let hashesAt: UInt64?

    /// Leaves that cover `covered` bytes.
    public var count: Int { covered == 0 ? 0 : Int((covered - 1) / leafSize + 1) }

    /// A layout; nil if the numbers cannot be.
    public init?(covered: UInt64, leafSize: UInt64, hashesAt: UInt64?, payloadSize: UInt64) {
        guard leafSize >= 4096, leafSize <= 1 << 30, covered <= payloadSize,
            payloadSize <= 1 << 52, covered > 0 || payloadSize == 0
        else {
            return nil
        }
        self.covered = covered
        self.leafSize = leafSize
        self.hashesAt = hashesAt
        var rest = payloadSize - covered
        if let at = hashesAt {
            let length = 32 * UInt64(Merkle.storedCount(count))
            let (end, overflow) = at.addingReportingOverflow(length)
            guard at >= covered, !overflow, end <= payloadSize else { return nil }
            rest -= length
        }
        guard rest <= Self.uncoveredLimit else { return nil }
    }

    /// The layout that a header's metadata states.
    ///
    /// - Throws: ``KernelError`` with code `rule` if `covered` or `leaf_size` is absent, or one of the three impossible.
    public init(_ header: BlockHeader) throws(KernelError) {
        // -1 for what is there and no integer.
        let at = header.metadata["leaf_hashes_at"].map { $0.int ?? -1 }
        guard let covered = header.metadata["covered"]?.int,
            let leafSize = header.metadata["leaf_size"]?.int,
            covered >= 0, leafSize > 0, at ?? 0 >= 0,
            let layout = LeafLayout(
                covered: UInt64(covered), leafSize: UInt64(leafSize),
                hashesAt: at.map { UInt64($0) },
                payloadSize: UInt64(header.payloadSize))
        else {
            throw KernelError(
                .rule,
                "a header's metadata lacks a possible \"covered\", \"leaf_size\" and \"leaf_hashes_at\": of \(header.payloadSize) bytes all but \(Self.uncoveredLimit) must be covered or leaf hashes"
            )
        }
        self = layout
    }

    /// What goes into the signed metadata.
    public var metadata: [String: JSONValue] {
        var members: [String: JSONValue] = [
            "covered": .int(Int64(covered)), "leaf_size": .int(Int64(leafSize)),
        ]
        if let hashesAt { members["leaf_hashes_at"] = .int(Int64(hashesAt)) }
        return members
    }
}
