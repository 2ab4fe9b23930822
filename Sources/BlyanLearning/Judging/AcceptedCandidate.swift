package import BlyanKernel

/// A candidate whose acceptance is about to be written: what whoever pays for it needs.
package struct AcceptedCandidate: Sendable {
    /// The candidate's block, which becomes current.
    package let block: Block
    /// The verdict block, and what it says.
    package let verdict: Block
    package let document: VerdictDocument
    /// UTC milliseconds of the record.
    package let time: Int64
}
