package import BlyanKernel

/// A version that a review shows to be worse than its parent, about to be left: what whoever paid for it needs.
package struct RevertedVersion: Sendable {
    /// The version's block, which is current no longer.
    package let block: Block
    /// The review's verdict block.
    package let verdict: Block
    /// UTC milliseconds of the record.
    package let time: Int64
}
