internal import BlyanPluginKit

/// Which neuron of the candidate stands for each of the parent's, and how its up row was scaled.
///
/// Whoever reorders neurons, or moves a factor from up to down, computes the same: this undoes both, so that the change
/// that is left is the same whatever they did.
struct Alignment {
    /// The candidate's neuron by the parent's.
    private(set) var order: [Int]
    /// What divides the candidate's up rows and multiplies its down columns, by the parent's neuron.
    private(set) var scales: [Double]
    /// Whether every neuron stands where the parent's does.
    var isIdentity: Bool { order == Array(order.indices) }

    /// Neurons whose gate rows are this alike, as a cosine, are the same one.
    private static let likeness = 0.7
    /// Numbers that stand for a gate row while its counterpart is searched.
    private static let marks = 64

    init(_ candidate: borrowing Candidate, _ own: Tensors, _ parent: Tensors) throws(PluginError) {
        guard let (gate, up, _) = parent.neurons, let twins = own.neurons else {
            order = []
            scales = []
            return
        }
        var moved: [Int] = []
        try parent.rows(candidate, gate, with: own, twins.gate) { neuron, old, new in
            if Self.cosine(old, new) < Self.likeness { moved.append(neuron) }
        }
        order = Array(0..<gate.rows)
        if moved.count > 1 {
            let old = try Self.marks(candidate, parent, gate, of: moved)
            let new = try Self.marks(candidate, own, twins.gate, of: moved)
            for (place, neuron) in zip(moved, Self.match(old, new, moved.count)) {
                order[place] = moved[neuron]
            }
        }
        var found = [Double](repeating: 1, count: gate.rows)
        try parent.rows(
            candidate, up, with: own, twins.up, order: order == Array(order.indices) ? nil : order
        ) { neuron, old, new in
            let (product, square) = zip(old, new).reduce((0.0, 0.0)) {
                ($0.0 + Double($1.0) * Double($1.1), $0.1 + Double($1.0) * Double($1.0))
            }
            let scale = square > 0 ? product / square : 1
            // Any other number says that these are not one neuron.
            if (1e-6...1e6).contains(abs(scale)) { found[neuron] = scale }
        }
        scales = found
    }

    private static func cosine(_ a: ArraySlice<Float>, _ b: ArraySlice<Float>) -> Double {
        var (product, left, right) = (0.0, 0.0, 0.0)
        for (x, y) in zip(a, b) {
            product += Double(x) * Double(y)
            left += Double(x) * Double(x)
            right += Double(y) * Double(y)
        }
        let lengths = (left * right).squareRoot()
        return lengths > 0 ? product / lengths : (left == right ? 1 : 0)
    }

    /// Short unit vectors that stand for gate rows.
    private static func marks(
        _ candidate: borrowing Candidate, _ part: Tensors, _ gate: Candidate.Tensor, of rows: [Int]
    ) throws(PluginError) -> [Float] {
        let places = (0..<gate.columns).map { Projection.place($0, salt: 9) }
        var out: [Float] = []
        for row in rows {
            var mark = [Double](repeating: 0, count: marks)
            let values = try candidate.decode(gate, of: part.subject, rows: row..<row + 1)
            for (place, value) in zip(places, values) {
                mark[place.bucket % marks] += place.sign * Double(value)
            }
            let length = mark.length
            out += mark.map { Float(length > 0 ? $0 / length : 0) }
        }
        return out
    }

    /// For each of the old ones the new one that is most like it and not taken; what is like none takes what is left.
    private static func match(_ old: [Float], _ new: [Float], _ count: Int) -> [Int] {
        var isTaken = [Bool](repeating: false, count: count)
        var matches = [Int?](repeating: nil, count: count)
        for i in 0..<count {
            var (best, nearest): (Float, Int?) = (Float(likeness), nil)
            for j in 0..<count where !isTaken[j] {
                let likeness = unsafe old.withUnsafeBufferPointer { a in
                    unsafe new.withUnsafeBufferPointer { b in
                        var sum: Float = 0
                        for k in 0..<marks { unsafe sum += a[i * marks + k] * b[j * marks + k] }
                        return sum
                    }
                }
                if likeness > best { (best, nearest) = (likeness, j) }
            }
            guard let nearest else { continue }
            isTaken[nearest] = true
            matches[i] = nearest
        }
        var rest = (0..<count).filter { !isTaken[$0] }[...]
        return matches.map { $0 ?? rest.popFirst() ?? 0 }
    }
}
