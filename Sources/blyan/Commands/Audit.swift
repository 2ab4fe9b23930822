internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanLedger
internal import BlyanServer

struct AuditCommand: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Judge again what was judged, compute again what was paid, and compare.",
        discussion: """
            BLOCK is a verdict (of a review too), a candidate that was judged, a version block that rests on one, or a reward or usage block \
            of chain C: the beginning of its hash is enough. The verdict is judged again, and the rewards that rest on it are computed \
            again by the policy that governed; of what was taken back it is checked that a review shows the version worse, and the \
            amounts, which are what had not vested, are computed by `blyan chain verify`. Everything comes from blocks and payloads alone. Exit status 1: the blocks \
            and this node differ.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The block.", valueName: "block"))
    var block: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let found = try rejection(of: block, in: node) ?? findBlock(block, in: node.store)
        let isLedger = found.header.chainID == "C"
        let audit = try (isLedger ? node.verdict(behind: found) : found)
            .map { try node.judge().audit($0) }
        let rewards = try node.rewardBlocks(of: isLedger ? found : audit?.verdict ?? found)
            .map { try node.auditRewards(of: $0) }
        let missing = try node.missingRewards(of: audit?.verdict ?? found)
        let differences =
            (audit?.differences ?? []) + rewards.flatMap(\.differences) + missing
        if json {
            try console.printJSON(
                .object([
                    "verdict_block": .string(audit?.verdict.hash.description ?? ""),
                    "candidate": .string(audit?.document.block.hash.description ?? ""),
                    "verdict": .string(audit?.document.outcome ?? ""),
                    "review": .bool(audit?.document.isReview ?? false),
                    "agrees": .bool(differences.isEmpty),
                    "differences": .array(
                        ((audit?.differences ?? []) + missing).map { .string($0) }),
                    "rewards": .array(rewards.map(json)),
                ]))
        } else {
            if let audit { try print(audit, console) }
            for reward in rewards { try print(reward, console) }
            for difference in missing { try console.print("differs   \(difference)") }
            try console.print(
                differences.isEmpty
                    ? "audit     agrees"
                    : "audit     does not agree: \(differences.count.of("difference"))")
        }
        if !differences.isEmpty { throw ExitCode(1) }
    }

    /// The verdict on a candidate that was rejected, whose own block stands nowhere.
    private func rejection(of digits: String, in node: Node) throws -> Block? {
        let text = digits.lowercased()
        guard text.count >= 6 else { return nil }
        return try node.store.blocks(.type(chain: "A", "verdict")).first {
            $0.header.metadata["outcome"] == .string("reject")
                && $0.header.metadata["review"] == nil
                && $0.header.metadata["candidate"]?.string?.hasPrefix(text) == true
        }
    }

    private func print(_ audit: Judge.Audit, _ console: Console) throws {
        let isReview = audit.document.isReview
        try console.print(
            "\(isReview ? "review " : "verdict")   \(audit.verdict.hash): \(audit.document.outcome)\(audit.document.reason.isEmpty ? "" : " " + audit.document.reason)"
        )
        for gate in audit.gates { try console.print(gate, isReview: isReview) }
        for difference in audit.differences { try console.print("differs   \(difference)") }
    }

    private func print(_ audit: Node.RewardAudit, _ console: Console) throws {
        let policy = audit.terms.map { " by \($0.name) \($0.version)" } ?? ""
        let rewards = audit.transactions - audit.clawbacks
        if rewards > 0 || audit.clawbacks == 0 {
            try console.print(
                "rewards   \(audit.block.hash): \(rewards.of("transaction"))\(policy)")
        }
        if audit.clawbacks > 0 {
            try console.print(
                "clawback  \(audit.block.hash): \(audit.clawbacks.of("transaction")), compared with the review that it rests on; its amounts are computed by `blyan chain verify`"
            )
        }
        for difference in audit.differences { try console.print("differs   \(difference)") }
    }

    private func json(_ audit: Node.RewardAudit) -> JSONValue {
        .object([
            "block": .string(audit.block.hash.description),
            "policy": .string(audit.terms?.name ?? ""),
            "policy_version": .string(audit.terms?.version ?? ""),
            "transactions": .int(Int64(audit.transactions)),
            "clawbacks": .int(Int64(audit.clawbacks)),
            "library": .string(audit.library?.description ?? ""),
            "library_here": .string(audit.libraryHere?.description ?? ""),
            "agrees": .bool(audit.differences.isEmpty),
            "differences": .array(audit.differences.map { .string($0) }),
        ])
    }
}
