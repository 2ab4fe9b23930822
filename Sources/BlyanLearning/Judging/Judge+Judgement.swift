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
    /// What is said of a candidate that cannot stand in the model as it is by its turn, in the place of all gates.
    static func replaced(_ error: KernelError) -> VerdictDocument.Gate {
        VerdictDocument.Gate(
            name: "intake", version: "1", outcome: "reject", reason: "parent-replaced",
            evidence: .object(["error": .string(error.message)]))
    }
}
