/// Token sequences that are computed together; each sees nothing of the others.
package struct TokenBatch: Sendable, Equatable {
    /// All sequences' tokens, one after the other.
    package private(set) var tokens: [Int] = []
    /// What follows each token; -1 = nothing that counts.
    package private(set) var targets: [Int] = []
    /// Each sequence's rows.
    package private(set) var sequences: [Range<Int>] = []

    package init() {}

    /// Adds a sequence: each token but the last is to be followed by the next.
    package mutating func append(_ sequence: some Collection<Int>) {
        guard sequence.count > 1 else { return }
        let start = tokens.count
        tokens += sequence.dropLast()
        targets += sequence.dropFirst()
        sequences.append(start..<tokens.count)
    }

    /// Sequences of known tokens and targets.
    package init(_ sequences: [[Int]]) {
        for sequence in sequences { append(sequence) }
    }

    /// Targets that count.
    package var targetCount: Int { targets.count { $0 >= 0 } }
}
