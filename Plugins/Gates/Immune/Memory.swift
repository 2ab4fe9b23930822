/// What was learnt from the verdicts so far: a logistic classifier in integers, one step a verdict.
///
/// It follows from the verdicts in their order and nothing else, so that an audit has the same at every point.
struct Memory {
    /// A judged candidate that the gate had looked at.
    struct Example {
        let features: [Int64]
        let isAccepted: Bool
    }

    /// Weights in 65,536ths.
    private(set) var weights = [Int64](repeating: 0, count: Features.names.count)
    private(set) var examples: [Example] = []
    private(set) var authors: [String: Author] = [:]
    /// Verdicts that were taken in, those without features among them.
    private(set) var verdicts = 0
    private var accepted: [Int] = []
    private var rejected: [Int] = []

    private static let one: Int64 = 65_536
    /// A step goes a 32nd of the way that the slope says.
    private static let rateShift = 5

    /// How sure it is that a candidate will be accepted: above 0 likely, below 0 unlikely; in 65,536ths.
    func score(_ features: [Int64]) -> Int64 {
        zip(weights, features).reduce(0) { $0 + $1.0 * $1.1 / Features.one }
    }

    /// Takes in a verdict.
    mutating func learn(_ verdict: Record) {
        verdicts += 1
        var author = authors[verdict.author] ?? Author()
        if verdict.isAccepted {
            author.accepted += 1
            author.failures = 0
        } else {
            author.rejected += 1
            author.failures += 1
        }
        author.last = max(author.last, verdict.received)
        authors[verdict.author] = author
        guard verdict.features.count == weights.count else { return }
        let example = Example(features: verdict.features, isAccepted: verdict.isAccepted)
        step(example)
        // And one of the other kind again, so that the rarer kind counts as much.
        let others = verdict.isAccepted ? rejected : accepted
        if !others.isEmpty { step(examples[others[examples.count &* 40_503 % others.count]]) }
        if verdict.isAccepted {
            accepted.append(examples.count)
        } else {
            rejected.append(examples.count)
        }
        examples.append(example)
    }

    private mutating func step(_ example: Example) {
        let score = score(example.features)
        // A logistic curve of quotients: 1/2 (1 + s / (1 + |s|)).
        let likely = Self.one / 2 + score * (Self.one / 2) / (Self.one + abs(score))
        let error = (example.isAccepted ? Self.one : 0) - likely
        for (i, feature) in example.features.enumerated() {
            let moved = weights[i] + error * feature / Features.one / (1 << Self.rateShift)
            weights[i] = max(-64 * Self.one, min(64 * Self.one, moved))
        }
    }

    /// The score below which at most a share of what was accepted lies; nil while that share is less than one of them.
    ///
    /// - Parameter budget: in millionths.
    func threshold(budget: Int64) -> Int64? {
        // Conformal: of n + 1 that could have come in any order, the next one is below it with this probability at most.
        let count = Int(budget) * (accepted.count + 1) / 1_000_000
        guard count > 0 else { return nil }
        return accepted.map { score(examples[$0].features) }.sorted()[count - 1]
    }

    /// A verdict as it is learnt from.
    struct Record {
        let author: String
        let received: Int64
        let isAccepted: Bool
        /// Empty if a cheaper gate refused it first.
        let features: [Int64]
    }
}
