internal import BlyanJSON
package import BlyanKernel

/// Whose signatures make a receipt valid: `threshold` of the validators that the Genesis Pact lists.
package struct Quorum: Sendable {
    package let validators: [String]
    package let threshold: Int
    private let genesis: Digest

    /// Reads a home's pact; one that lists nobody leaves it to the signer of the genesis block alone.
    ///
    /// - Throws: ``KernelError`` with code `integrity` if it cannot be read.
    package init(_ store: ChainStore) throws(KernelError) {
        try self.init(store.genesis, store.block) { block throws(KernelError) in
            try? JSONValue(parsing: store.document(block))
        }
    }

    /// As a rule of a chain sees the pact.
    init(_ view: any ChainView) throws(KernelError) {
        try self.init(view.genesis, view.block) { block throws(KernelError) in
            try view.document(block)
        }
    }

    private init(
        _ genesis: Digest?, _ block: (Digest) throws(KernelError) -> Block?,
        _ document: (Block) throws(KernelError) -> JSONValue?
    ) throws(KernelError) {
        guard let genesis, let block = try block(genesis), let pact = try document(block) else {
            throw KernelError(.integrity, "the Genesis Pact cannot be read")
        }
        self.genesis = genesis
        validators = pact["validators"]?.strings ?? [block.header.miner]
        threshold = max(1, Int(clamping: pact["threshold"]?.int ?? 1))
    }

    /// The validators that have signed a receipt.
    package func signers(of document: VerdictDocument) throws(KernelError) -> [String] {
        try document.signers(among: validators, genesis: genesis)
    }

    /// Whether enough have.
    package func isReached(by document: VerdictDocument) throws(KernelError) -> Bool {
        try signers(of: document).count >= threshold
    }
}
