internal import BlyanJSON
package import BlyanKernel

extension Judge {
    /// What a judgement came to.
    package struct Judgement: Sendable {
        package enum Outcome: String, Sendable { case accept, reject, `defer` }
        package let candidate: Block
        package let outcome: Outcome
        /// "gate/code", or "" with accept.
        package let reason: String
        package let gates: [VerdictDocument.Gate]
        /// The verdict block; nil with defer.
        package let verdict: Block?
        /// The version block that made the candidate current; nil unless it was accepted.
        package let version: Block?

        /// What is told of a candidate that another one overtook while it waited, and how its author goes on; nil for others.
        package var overtaken: (message: String, hint: String)? {
            guard outcome == .reject, let gate = gates.last, gate.isReplaced,
                let message = gate.evidence["error"]?.string
            else { return nil }
            return (message, Judge.rebasing(candidate.header.expertName))
        }

        /// Whether a verdict, this one or another, is to be signed by more validators first.
        package var awaitsSignatures: Bool { outcome == .defer && reason.hasPrefix("signatures/") }

        /// What the gates' answers come to, and "gate/code" of the one that did not accept.
        static func outcome(of gates: [VerdictDocument.Gate]) -> (Outcome, reason: String) {
            guard let last = gates.last, let outcome = Outcome(rawValue: last.outcome),
                outcome != .accept
            else { return (.accept, "") }
            return (outcome, "\(last.name)/\(last.reason)")
        }
    }
}

extension VerdictDocument.Gate {
    /// Whether this is ``replaced(_:)``.
    fileprivate var isReplaced: Bool { name == "intake" && reason == "parent-replaced" }

    /// What is said of a candidate that cannot stand in the model as it is by its turn, in the place of all gates.
    static func replaced(_ error: KernelError) -> VerdictDocument.Gate {
        VerdictDocument.Gate(
            name: "intake", version: "1", outcome: "reject", reason: "parent-replaced",
            evidence: .object(["error": .string(error.message)]))
    }
}
