internal import BlyanPluginKit
internal import CBlyanPlugin

/// A part's tensors: those of its neurons, and all others.
struct Tensors {
    typealias Tensor = Candidate.Tensor

    let subject: Candidate.Subject
    /// gate, up and down, of one inner width; nil for parts without neurons.
    let neurons: (gate: Tensor, up: Tensor, down: Tensor)?
    /// The rest, by name.
    let others: [Tensor]
    /// Names and shapes: only what has the same is compared.
    let shape: String

    init(_ candidate: borrowing Candidate, _ subject: Candidate.Subject) throws(PluginError) {
        self.subject = subject
        let all = try candidate.tensors(of: subject).sorted { $0.name < $1.name }
        shape = all.map { "\($0.name) \($0.rows)x\($0.columns)" }.joined(separator: ", ")
        func find(_ name: String) -> Tensor? { all.first { $0.name == name } }
        if let gate = find("gate"), let up = find("up"), let down = find("down"),
            gate.rows == up.rows, gate.columns == up.columns, down.columns == gate.rows
        {
            neurons = (gate, up, down)
            others = all.filter { !["gate", "up", "down"].contains($0.name) }
        } else {
            neurons = nil
            others = all
        }
    }

    /// Visits a tensor's rows in order, some megabytes at once.
    func rows(
        _ candidate: borrowing Candidate, _ tensor: Tensor,
        _ body: (_ row: Int, _ values: ArraySlice<Float>) -> Void
    ) throws(PluginError) {
        for rows in tensor.blocks {
            let values = try candidate.decode(tensor, of: subject, rows: rows)
            for row in rows {
                let at = (row - rows.lowerBound) * tensor.columns
                body(row, values[at..<at + tensor.columns])
            }
        }
    }

    /// Visits the rows of a tensor and those of its counterpart, which stand in another order, together.
    func rows(
        _ candidate: borrowing Candidate, _ tensor: Tensor, with other: Tensors, _ twin: Tensor,
        order: [Int]? = nil,
        _ body: (_ row: Int, _ values: ArraySlice<Float>, _ twins: ArraySlice<Float>) -> Void
    ) throws(PluginError) {
        for rows in tensor.blocks {
            let values = try candidate.decode(tensor, of: subject, rows: rows)
            var twins: [Float] = []
            if let order {
                for row in order[rows] {
                    twins += try candidate.decode(twin, of: other.subject, rows: row..<row + 1)
                }
            } else {
                twins = try candidate.decode(twin, of: other.subject, rows: rows)
            }
            for row in rows {
                let range =
                    (row - rows.lowerBound) * tensor.columns..<(row - rows.lowerBound + 1)
                    * tensor.columns
                body(row, values[range], twins[range])
            }
        }
    }

    /// The counterpart in another part of one of these tensors.
    func twin(of tensor: Tensor, in other: Tensors) throws(PluginError) -> Tensor {
        let all = other.others + (other.neurons.map { [$0.gate, $0.up, $0.down] } ?? [])
        guard
            let twin = all.first(where: { $0.name == tensor.name }), twin.rows == tensor.rows,
            twin.columns == tensor.columns
        else {
            throw PluginError(BLYAN_E_ARGUMENT, "the tensor \(tensor.name) is not the parent's")
        }
        return twin
    }
}
