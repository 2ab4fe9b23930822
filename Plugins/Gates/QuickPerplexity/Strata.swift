/// A stratified sample of a draw: as many documents of a rare slice as of a common one, each counted by its slice's share.
///
/// A gain in a rare domain alone would be missed by most samples of so few documents.
struct Strata {
    /// The sample in ascending order, as ranges of the draw.
    let runs: [Range<Int>]
    /// How many documents of the draw each one of the sample stands for, in the same order.
    private let weights: [Double]

    /// - Parameters:
    ///   - slices: of the drawn documents, in their order.
    ///   - wanted: documents in all, more only where `leastBySlice` asks for them.
    init(_ slices: [String], wanted: Int, leastBySlice: Int) {
        var members: [String: [Int]] = [:]
        for (i, slice) in slices.enumerated() { members[slice, default: []].append(i) }
        let share = max(leastBySlice, wanted / max(1, members.count))
        var chosen: [(place: Int, weight: Double)] = []
        for places in members.values {
            let own = places.prefix(share)
            let weight = Double(places.count) / Double(own.count)
            chosen += own.map { ($0, weight) }
        }
        chosen.sort { $0.place < $1.place }
        weights = chosen.map(\.weight)
        var runs: [Range<Int>] = []
        for (place, _) in chosen {
            if let last = runs.last, last.upperBound == place {
                runs[runs.count - 1] = last.lowerBound..<place + 1
            } else {
                runs.append(place..<place + 1)
            }
        }
        self.runs = runs
    }

    /// 1 - after / before of the whole draw as the sample has it, in millionths, and that plus some standard errors; nil if the sample
    /// says nothing.
    ///
    /// The error is that of a ratio of weighted sums (Cochran, Sampling Techniques, 1977, 6.4), with no credit for strata:
    /// rather too large than too small. Only additions, products, quotients and one square root, in one order: the same everywhere.
    func improvement(_ before: [Int64], _ after: [Int64], errors: Int64) -> (
        mean: Int64, upper: Int64
    )? {
        var (sum, gain) = (0.0, 0.0)
        for (i, weight) in weights.enumerated() {
            sum += weight * Double(before[i])
            gain += weight * (Double(before[i]) - Double(after[i]))
        }
        guard sum > 0, weights.count > 1 else { return nil }
        let ratio = gain / sum
        var square = 0.0
        for (i, weight) in weights.enumerated() {
            let rest = weight * (Double(before[i]) - Double(after[i]) - ratio * Double(before[i]))
            square += rest * rest
        }
        let count = Double(weights.count)
        let error = (square * count / (count - 1)).squareRoot() / sum
        func millionths(_ value: Double) -> Int64 {
            Int64(max(-1e12, min(1e12, (value * 1e6).rounded())))
        }
        return (millionths(ratio), millionths(ratio + Double(errors) * error))
    }
}
