internal import BlyanModel

/// What one layer's forward pass leaves for its backward pass.
///
/// Rows are tokens.
final class Tape {
    /// The residual stream as it came in, and after the attention.
    let input, middle: Matrix
    /// Normalised input of attention and feed-forward.
    let attentionInput, feedInput: Matrix
    /// Projections as they came out with their biases; nil where nothing but the rotation follows.
    let rawQuery, rawKey: Matrix?
    /// What attention reads.
    let query, key, value: Matrix
    /// What attention made, before its output projection.
    let attended: Matrix
    /// The router's logits: tokens × experts.
    private(set) var logits = Matrix(rows: 0, columns: 0)
    /// Groups of tokens that one expert serves, in the order in which they are added.
    var groups: [Group] = []
    /// Rows of all groups one after the other: inputs, gate and up products, outputs.
    private var gathered = Matrix(rows: 0, columns: 0)
    private var gate = Matrix(rows: 0, columns: 0)
    private var up = Matrix(rows: 0, columns: 0)
    private var output = Matrix(rows: 0, columns: 0)

    /// The rows that one expert serves.
    ///
    /// A class: threads pass it on for each row, which costs five counters of references otherwise.
    final class Group: Sendable {
        /// Its part.
        let part: String
        /// Its number behind the router; nil = dense or shared.
        let expert: Int?
        let rows: [Int]
        /// Its weight for each row.
        let shares: [Float]
        let input, gate, up, output: Matrix

        init(
            part: String, expert: Int?, rows: [Int], shares: [Float], input: Matrix, gate: Matrix,
            up: Matrix, output: Matrix
        ) {
            self.part = part
            self.expert = expert
            self.rows = rows
            self.shares = shares
            self.input = input
            self.gate = gate
            self.up = up
            self.output = output
        }
    }

    init(_ config: ModelConfig, rows n: Int) {
        let hidden = config.hiddenSize
        let queryWidth = config.headCount * config.headSize
        let width = config.keyValueHeadCount * config.headSize
        input = Matrix(rows: n, columns: hidden)
        middle = Matrix(rows: n, columns: hidden)
        attentionInput = Matrix(rows: n, columns: hidden)
        feedInput = Matrix(rows: n, columns: hidden)
        let keepsRaw = config.queryKeyNorm != .none || config.queryKeyValueClip != nil
        rawQuery = keepsRaw ? Matrix(rows: n, columns: queryWidth) : nil
        rawKey = keepsRaw ? Matrix(rows: n, columns: width) : nil
        query = Matrix(rows: n, columns: queryWidth)
        key = Matrix(rows: n, columns: width)
        value = Matrix(rows: n, columns: width)
        attended = Matrix(rows: n, columns: queryWidth)
    }

    /// Memory for the logits of `rows` tokens.
    func reserveLogits(rows: Int, experts: Int) {
        guard logits.rows < rows || logits.columns != experts else { return }
        logits = Matrix(rows: rows, columns: experts)
    }

    /// Lays out the groups' rows one after the other; memory is kept from step to step.
    func layOut(
        _ wanted: [(part: String, expert: Int?, width: Int, rows: [Int], shares: [Float])],
        hidden: Int
    ) {
        let rows = wanted.reduce(0) { $0 + $1.rows.count }
        let widest = wanted.map(\.width).max() ?? 0
        if gathered.rows < rows || gate.columns != widest {
            gathered = Matrix(rows: rows, columns: hidden)
            output = Matrix(rows: rows, columns: hidden)
            gate = Matrix(rows: rows, columns: widest)
            up = Matrix(rows: rows, columns: widest)
        }
        var start = 0
        groups = wanted.map { group in
            let range = start..<start + group.rows.count
            start = range.upperBound
            return Group(
                part: group.part, expert: group.expert, rows: group.rows, shares: group.shares,
                input: gathered.rows(range),
                gate: gate.rows(range).columns(0..<group.width),
                up: up.rows(range).columns(0..<group.width), output: output.rows(range))
        }
    }
}
