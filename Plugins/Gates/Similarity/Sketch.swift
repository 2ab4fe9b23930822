internal import BlyanPluginKit

/// A short vector that stands for what a part computes, whatever the order and the scale of its neurons.
///
/// An expert is y = Σ down_j · act(gate_j·x) · (up_j·x) over its neurons j. To leading order that is the tensor
/// Σ gate_j ⊗ up_j ⊗ down_j, which neither reordering neurons nor moving a factor from up to down changes: its projection
/// is the sketch. Tensors without neurons (a router, biases) are projected entry by entry.
struct Sketch {
    /// What is made of gate, up and down; zero for parts without them.
    private(set) var neurons = [Double](repeating: 0, count: Projection.width)
    /// What is made of all other tensors.
    private(set) var others = [Double](repeating: 0, count: Projection.width)

    /// A part's sketch.
    init(_ candidate: borrowing Candidate, _ part: Tensors) throws(PluginError) {
        if let (gate, up, down) = part.neurons {
            var lines = (0..<3).map { _ in Projection.Lines(gate.rows) }
            for (salt, tensor) in [gate, up].enumerated() {
                let places = (0..<tensor.columns).map { Projection.place($0, salt: UInt64(salt)) }
                try part.rows(candidate, tensor) { neuron, values in
                    for (place, value) in zip(places, values) {
                        lines[salt].add(Double(value), to: neuron, at: place)
                    }
                }
            }
            try part.rows(candidate, down) { row, values in
                let place = Projection.place(row, salt: 2)
                for (neuron, value) in values.enumerated() {
                    lines[2].add(Double(value), to: neuron, at: place)
                }
            }
            for i in lines.indices { lines[i].transform() }
            neurons = Projection.contract(lines)
        }
        for (number, tensor) in part.others.enumerated() {
            try part.rows(candidate, tensor) { row, values in
                for (column, value) in values.enumerated() {
                    let (bucket, sign) = Projection.place(
                        row * tensor.columns + column, salt: UInt64(3 + number))
                    others[bucket] += sign * Double(value)
                }
            }
        }
    }

    /// Both halves in one vector, each by its length in `base`, so that neither hides the other.
    func relative(to base: Sketch) -> [Double] {
        zip(Self.scaled(neurons, base.neurons), Self.scaled(others, base.others)).map(+)
    }

    private static func scaled(_ values: [Double], _ base: [Double]) -> [Double] {
        let length = base.length
        return length > 0 ? values.map { $0 / length } : values
    }
}
