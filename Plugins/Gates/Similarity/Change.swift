internal import BlyanPluginKit
internal import CBlyanPlugin

/// How a candidate differs from its parent, whatever the order and the scale of its neurons.
struct Change {
    /// The difference's length by the parent's, as the bytes stand.
    private(set) var size = 0.0
    /// The share of that length which only makes the parent's rows (of down: columns) longer or shorter: from 0 to 1.
    private(set) var rescaling = 0.0
    /// The difference's length by the parent's, with neurons in the parent's order and scale.
    private(set) var alignedSize = 0.0
    /// What stands for the difference: alike for equal work, whatever its strength.
    ///
    /// Every number of the difference, drawn to its fourth root, in one count-sketch. Two trainings on one text agree in
    /// the few numbers that change most, and differ in the many that change little; a copy agrees in all of them. The root
    /// makes the many count.
    private(set) var sketch = [Double](repeating: 0, count: Projection.width)

    /// - Parameter names: what each of the parent's neurons is called in the first version of its line.
    init(
        _ candidate: borrowing Candidate, _ own: Tensors, _ parent: Tensors,
        _ alignment: Alignment, names: [Int]?
    ) throws(PluginError) {
        try measure(candidate, own, parent)
        var (moved, before) = (0.0, 0.0)
        /// Adds a number's change.
        func add(_ old: Float, _ new: Double, at coordinate: Int, _ salt: UInt64) {
            let difference = new - Double(old)
            moved += difference * difference
            before += Double(old) * Double(old)
            let (bucket, sign) = Projection.place(coordinate, salt: salt)
            let root = abs(difference).squareRoot().squareRoot()
            sketch[bucket] += difference < 0 ? -sign * root : sign * root
        }
        if let (gate, up, down) = parent.neurons, let twins = own.neurons {
            let names = names ?? Array(0..<gate.rows)
            let order = alignment.isIdentity ? nil : alignment.order
            for (salt, pair) in [(gate, twins.gate), (up, twins.up)].enumerated() {
                try parent.rows(candidate, pair.0, with: own, pair.1, order: order) {
                    neuron, old, new in
                    let scale = salt == 0 ? 1 : 1 / alignment.scales[neuron]
                    let first = names[neuron] * gate.columns
                    for (column, (a, b)) in zip(old, new).enumerated() {
                        add(a, Double(b) * scale, at: first + column, UInt64(20 + salt))
                    }
                }
            }
            try parent.rows(candidate, down, with: own, twins.down) { row, old, new in
                for neuron in 0..<gate.rows {
                    let b = Double(new[new.startIndex + alignment.order[neuron]])
                    add(
                        old[old.startIndex + neuron], b * alignment.scales[neuron],
                        at: row * gate.rows + names[neuron], 22)
                }
            }
        }
        for (number, tensor) in parent.others.enumerated() {
            let twin = try parent.twin(of: tensor, in: own)
            try parent.rows(candidate, tensor, with: own, twin) { row, old, new in
                for (column, (a, b)) in zip(old, new).enumerated() {
                    add(a, Double(b), at: row * tensor.columns + column, UInt64(23 + number))
                }
            }
        }
        alignedSize = before > 0 ? (moved / before).squareRoot() : moved.squareRoot()
    }

    /// Sizes as the bytes stand.
    private mutating func measure(
        _ candidate: borrowing Candidate, _ own: Tensors, _ parent: Tensors
    ) throws(PluginError) {
        var (moved, along, before) = (0.0, 0.0, 0.0)
        let all = parent.others + (parent.neurons.map { [$0.gate, $0.up, $0.down] } ?? [])
        for tensor in all {
            let isByColumn = tensor.name == "down"
            // Of each line: change·parent, parent·parent.
            var products = [Double](repeating: 0, count: isByColumn ? tensor.columns : tensor.rows)
            var squares = products
            let twin = try parent.twin(of: tensor, in: own)
            try parent.rows(candidate, tensor, with: own, twin) { row, old, new in
                for (column, (a, b)) in zip(old, new).enumerated() {
                    let line = isByColumn ? column : row
                    let (p, change) = (Double(a), Double(b) - Double(a))
                    products[line] += change * p
                    squares[line] += p * p
                    moved += change * change
                }
            }
            for (product, square) in zip(products, squares) where square > 0 {
                along += product * product / square
                before += square
            }
        }
        size = before > 0 ? (moved / before).squareRoot() : moved.squareRoot()
        rescaling = moved > 0 ? (along / moved).squareRoot() : 0
    }

    /// What rounding to a stored dtype changes at most, relative to a number.
    static func rounding(_ dtype: UInt32) -> Double {
        switch Int(dtype) {
        case BLYAN_DTYPE_F32: 0x1p-24
        case BLYAN_DTYPE_F16: 0x1p-11
        case BLYAN_DTYPE_BF16: 0x1p-8
        default: 0x1p-7
        }
    }
}
