public import BlyanJSON
public import BlyanKernel

/// Which reward policy governs: the document of a `policy` block on chain A whose metadata has the kind "rewards".
public struct RewardTerms: Sendable, Equatable {
    /// The policy's name; "" = nobody is paid.
    public let name: String
    /// Its version, SemVer.
    public let version: String
    /// Its configuration.
    public let config: JSONValue
    /// The hash of its published test vectors.
    public let vectors: Digest
    /// The hash of the library that served when this was written, as evidence.
    public let library: Digest
    /// The index of the first block of chain C that it governs.
    public var first: Int64

    /// The kind in the block's metadata.
    public static let kind = "rewards"
    private static let format = "blyan-rewards/1"

    /// Makes terms.
    public init(
        name: String, version: String, config: JSONValue, vectors: Digest, library: Digest,
        first: Int64
    ) {
        (self.name, self.version, self.config) = (name, version, config)
        (self.vectors, self.library, self.first) = (vectors, library, first)
    }

    /// Nobody is paid.
    public static func none(first: Int64) -> RewardTerms {
        RewardTerms(
            name: "", version: "", config: .object([:]), vectors: .zero, library: .zero,
            first: first)
    }

    /// Whether other terms pay the same: what identifies the policy is equal, whatever library computes.
    public func isSame(as other: RewardTerms) -> Bool {
        name == other.name && version == other.version && config == other.config
            && vectors == other.vectors
    }

    /// As a person reads it.
    public var summary: String {
        name.isEmpty
            ? "none" : "\(name) \(version) (vectors \(vectors.description.prefix(12)))"
    }

    /// The document.
    public var document: JSONValue {
        .object([
            "format": .string(Self.format), "name": .string(name), "version": .string(version),
            "config": config, "vectors": .string(vectors.description),
            "library": .string(library.description), "first": .int(first),
        ])
    }

    /// Reads a document.
    ///
    /// - Throws: ``KernelError`` with code `malformed`.
    public init(_ document: JSONValue) throws(KernelError) {
        guard document["format"]?.string == Self.format, let name = document["name"]?.string,
            let version = document["version"]?.string, let config = document["config"],
            case .object = config,
            let vectors = document["vectors"]?.string.flatMap({ Digest(hex: $0) }),
            let library = document["library"]?.string.flatMap({ Digest(hex: $0) }),
            let first = document["first"]?.int, first >= 0
        else { throw KernelError(.malformed, "a rewards policy block holds no \(Self.format)") }
        self.init(
            name: name, version: version, config: config, vectors: vectors, library: library,
            first: first)
    }
}

extension RewardTerms {
    /// The newest on chain A, or nil before the first.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged, `malformed` if the block is.
    public static func governing(_ store: ChainStore) throws(KernelError) -> (
        block: Block, terms: RewardTerms
    )? {
        var found: Block?
        try store.scan(.type(chain: "A", "policy"), reverse: true) { block throws(KernelError) in
            guard block.header.metadata["kind"]?.string == kind else { return true }
            found = block
            return false
        }
        return try found.map { block throws(KernelError) in (block, try terms(of: block, store)) }
    }

    /// What a policy block says.
    ///
    /// - Throws: As ``governing(_:)``.
    public static func terms(of block: Block, _ store: ChainStore) throws(KernelError)
        -> RewardTerms
    {
        let bytes = try store.document(block)
        return try RewardTerms(
            KernelError.parsing { () throws(JSONError) in try JSONValue(canonical: bytes) })
    }
}

extension RewardTerms {
    /// A rule of chain A: terms govern from the block of chain C on that is the next one when they are written, so that nobody
    /// is paid by other terms than those which governed.
    public static let governsFromTheNextBlockOn: ChainSpec.Rule = {
        (block, view) throws(KernelError) in
        guard block.header.blockType == "policy", block.header.metadata["kind"]?.string == kind
        else { return }
        let next = try view.head(of: "C").map { $0.header.index + 1 } ?? 0
        let first = try RewardTerms(view.document(block)).first
        guard first == next else {
            throw KernelError(
                .rule,
                "the reward policy of block \(block.hash) governs from block \(first) of chain C on, expected the next one, \(next)"
            )
        }
    }
}
