public import BlyanKernel

extension ChainSpec {
    /// Chain C: usage, rewards and transfers, signed by validators of the Genesis Pact.
    ///
    /// What its payloads say is checked by ``Ledger`` and ``LedgerAudit``, which know the balances; see LEDGER.md.
    public static let c = ledger()

    /// Chain C with further rules.
    package static func ledger(_ rules: [Rule] = []) -> ChainSpec {
        ChainSpec(
            id: "C", shape: .linear, blockTypes: ["usage", "reward", "transfer"],
            rules: [signerIsValidator] + rules)
    }
}
