internal import BlyanPluginKit

/// Which neuron of the candidate stands for each of the parent's, and how its up row was scaled.
///
/// Whoever reorders neurons, or moves a factor from up to down, computes the same: this undoes both, so that the change
/// that is left is the same whatever they did.
struct Alignment {
    /// The candidate's neuron by the parent's.
    private(set) var order: [Int]
    /// What divides the candidate's up rows and multiplies its down columns, by the parent's neuron.
    private(set) var scales: [Double] = []
    /// Whether every neuron stands where the parent's does.
    var isIdentity: Bool { order == Array(order.indices) }

    /// Neurons whose gate rows are this alike, as a cosine, are the same one.
    private static let likeness = 0.7
    /// Numbers that stand for a gate row while its counterpart is searched.
    private static let marks = 64

    init(_ candidate: borrowing Candidate, _ own: Tensors, _ parent: Tensors) throws(PluginError) {
        guard let (gate, up, down) = parent.neurons, let twins = own.neurons else {
            order = []
            return
        }
        var moved: [Int] = []
        try parent.rows(candidate, gate, with: own, twins.gate) { neuron, old, new in
            var products = Products()
            for (a, b) in zip(old, new) { products.add(a, b) }
            if products.cosine < Self.likeness { moved.append(neuron) }
        }
        order = Array(0..<gate.rows)
        if moved.count > 1 {
            let old = try Self.marks(candidate, parent, gate, of: moved)
            let new = try Self.marks(candidate, own, twins.gate, of: moved)
            for (place, neuron) in zip(moved, Self.match(old, new, moved.count)) {
                order[place] = moved[neuron]
            }
        }
        var ups = [Products](repeating: Products(), count: gate.rows)
        var downs = ups
        try parent.rows(
            candidate, up, with: own, twins.up, order: isIdentity ? nil : order
        ) { neuron, old, new in
            for (a, b) in zip(old, new) { ups[neuron].add(a, b) }
        }
        let order = order
        try parent.rows(candidate, down, with: own, twins.down) { _, old, new in
            for neuron in order.indices {
                downs[neuron].add(
                    old[old.startIndex + neuron], new[new.startIndex + order[neuron]])
            }
        }
        scales = zip(ups, downs).map { up, down in
            // Training makes both longer alike; what one gained and the other lost was moved. Of what is another neuron,
            // neither is known.
            guard abs(up.cosine) >= Self.likeness, abs(down.cosine) >= Self.likeness,
                up.product.sign == down.product.sign
            else { return 1 }
            let scale = (up.ratio / down.ratio).squareRoot()
            return up.product < 0 ? -scale : scale
        }
    }

    /// Of two lines of numbers.
    private struct Products {
        var product = 0.0, old = 0.0, new = 0.0

        mutating func add(_ a: Float, _ b: Float) {
            let (a, b) = (Double(a), Double(b))
            product += a * b
            old += a * a
            new += b * b
        }

        var cosine: Double { old * new > 0 ? product / (old * new).squareRoot() : 0 }
        /// The factor that brings the old line nearest to the new one.
        var ratio: Double { product / old }
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
