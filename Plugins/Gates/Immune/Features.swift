internal import BlyanPluginKit

/// What a classifier is told of a candidate: of its weights, of who made it, and of the time.
///
/// Each is a number about 1 large, in 1,024ths. Only additions, products, quotients and square roots, in one order: the
/// same on every machine.
struct Features {
    /// Their names in the order of ``values``; the first is always 1.
    static let names = [
        "one", "size", "size_squared", "rank", "neurons", "inputs", "peaks", "kept", "rescaling",
        "balance", "accepted", "rejected", "failures", "pause", "delay",
    ]
    /// 1 is 1,024.
    static let one: Int64 = 1024
    /// What no value is beyond.
    static let largest = 8 * one
    private(set) var values: [Int64] = []

    init(_ candidate: borrowing Candidate, _ author: Author?) throws(PluginError) {
        let weights = try WeightFeatures(candidate)
        let size = (Self.log2(weights.size) + 7) / 3
        let received = candidate.context["received"]?.int ?? 0
        let made = candidate.header["timestamp"]?.int ?? received
        let pause = author.map { Double(max(0, received - $0.last)) / 1000 } ?? 1e6
        add(1)
        add(size)
        add(size * size / 2)
        add((Self.log2(weights.topShare) + 4) / 2)
        add((Self.log2(weights.neuronSpread) + 2) / 3)
        add((Self.log2(weights.inputSpread) + 6) / 2)
        add(weights.peaks - 3)
        add(weights.kept * 2)
        add(weights.rescaling * 2)
        add(Self.log2(weights.balance))
        add(Self.log2(1 + Double(author?.accepted ?? 0)) / 3)
        add(Self.log2(1 + Double(author?.rejected ?? 0)) / 3)
        add(Double(min(author?.failures ?? 0, 10)) / 4)
        add((Self.log2(1 + pause) - 8) / 4)
        add((Self.log2(1 + Double(max(0, received - made)) / 1000) - 4) / 4)
    }

    private mutating func add(_ value: Double) {
        let limited = value.isFinite ? max(-8, min(8, value)) : 8
        values.append(Int64((limited * Double(Self.one)).rounded()))
    }

    /// The logarithm to base 2, by straight lines between powers of two.
    static func log2(_ value: Double) -> Double {
        guard value >= Double.leastNormalMagnitude, value.isFinite else { return -30 }
        return Double(value.exponent) + value.significand - 1
    }
}

/// Who submits, by the verdicts on what they submitted.
struct Author {
    var accepted = 0
    var rejected = 0
    /// Rejected ones since the last that was accepted.
    var failures = 0
    /// When the last one came, in UTC milliseconds.
    var last: Int64 = 0
}

/// What the bytes say of how they came about: training moves few directions and some neurons much, noise moves all alike.
private struct WeightFeatures {
    /// The change's length by the parent's.
    var size = 0.0
    /// The share of the change that lies in its largest direction (a tensor's first singular value).
    var topShare = 0.0
    /// How unlike the changes of neurons are: variance over square of the mean of their energies.
    var neuronSpread = 0.0
    /// The same of input features.
    var inputSpread = 0.0
    /// The fourth moment of the change over the square of the second: 3 for normal noise.
    var peaks = 0.0
    /// The share of numbers that did not change.
    var kept = 0.0
    /// The share of the change that only makes rows longer or shorter.
    var rescaling = 0.0
    /// The change of up by that of gate, each by its parent.
    var balance = 1.0

    private static let rounds = 3

    init(_ candidate: borrowing Candidate) throws(PluginError) {
        let tensors = try candidate.tensors(of: .candidate)
        let parents = try candidate.tensors(of: .parent)
        guard
            let main = tensors.first(where: { $0.name == "gate" })
                ?? tensors.max(by: { $0.rows * $0.columns < $1.rows * $1.columns })
        else { return }
        var (moved, before, fourth, same, count, along) = (0.0, 0.0, 0.0, 0, 0, 0.0)
        var relative: [String: Double] = [:]
        for tensor in tensors {
            guard let parent = parents.first(where: { $0.name == tensor.name }) else { continue }
            var (ownMoved, ownBefore) = (0.0, 0.0)
            try Self.rows(candidate, tensor, parent) { _, change, old in
                var (product, square) = (0.0, 0.0)
                for (d, p) in zip(change, old) {
                    ownMoved += d * d
                    fourth += d * d * d * d
                    square += p * p
                    product += d * p
                    if d == 0 { same += 1 }
                }
                ownBefore += square
                if square > 0 { along += product * product / square }
                count += change.count
            }
            relative[tensor.name] = ownBefore > 0 ? ownMoved / ownBefore : 0
            moved += ownMoved
            before += ownBefore
        }
        guard moved > 0, before > 0 else {
            kept = 1
            return
        }
        size = (moved / before).squareRoot()
        peaks = fourth * Double(count) / (moved * moved)
        kept = Double(same) / Double(count)
        rescaling = (along / moved).squareRoot()
        if let gate = relative["gate"], let up = relative["up"], gate > 0 { balance = up / gate }
        guard let parent = parents.first(where: { $0.name == main.name }) else { return }
        try measure(candidate, main, parent)
    }

    /// The largest direction by power iteration, and how evenly rows and columns move.
    private mutating func measure(
        _ candidate: borrowing Candidate, _ tensor: Candidate.Tensor, _ parent: Candidate.Tensor
    ) throws(PluginError) {
        var direction = (0..<tensor.columns).map { $0 % 3 == 0 ? 1.0 : -1.0 }
        var inputs = [Double](repeating: 0, count: tensor.columns)
        var neurons: [Double] = []
        for round in 0..<Self.rounds {
            var next = [Double](repeating: 0, count: tensor.columns)
            var (energy, total) = (0.0, 0.0)
            try Self.rows(candidate, tensor, parent) { _, change, _ in
                var (product, square) = (0.0, 0.0)
                for (d, v) in zip(change, direction) {
                    product += d * v
                    square += d * d
                }
                for (i, d) in change.enumerated() { next[i] += product * d }
                energy += product * product
                total += square
                guard round == 0 else { return }
                neurons.append(square)
                for (i, d) in change.enumerated() { inputs[i] += d * d }
            }
            let length = direction.reduce(0) { $0 + $1 * $1 }
            topShare = length > 0 && total > 0 ? energy / length / total : 0
            let largest = next.reduce(0) { max($0, abs($1)) }
            if largest > 0 { direction = next.map { $0 / largest } }
        }
        neuronSpread = Self.spread(neurons)
        inputSpread = Self.spread(inputs)
    }

    private static func spread(_ values: [Double]) -> Double {
        let mean = values.reduce(0, +) / Double(max(1, values.count))
        guard mean > 0 else { return 0 }
        return values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            / Double(values.count) / (mean * mean)
    }

    /// Visits rows of the change and of the parent, some megabytes at once.
    private static func rows(
        _ candidate: borrowing Candidate, _ tensor: Candidate.Tensor, _ parent: Candidate.Tensor,
        _ body: (_ row: Int, _ change: [Double], _ old: [Double]) -> Void
    ) throws(PluginError) {
        for rows in tensor.blocks {
            let new = try candidate.decode(tensor, of: .candidate, rows: rows)
            let old = try candidate.decode(parent, of: .parent, rows: rows)
            for row in rows {
                let at =
                    (row - rows.lowerBound) * tensor.columns..<(row - rows.lowerBound + 1)
                    * tensor.columns
                let before = old[at].map(Double.init)
                body(row, zip(new[at], before).map { Double($0) - $1 }, before)
            }
        }
    }
}
