internal import BlyanJSON
internal import BlyanLearning

/// What became of one candidate of a stream.
struct StreamRecord: Codable {
    /// What a gate said.
    struct Answer: Codable {
        var outcome: String
        var reason: String
        /// Of the processor, of all threads.
        var seconds: Double
        /// It was asked on its own, since one before it had refused.
        var isAlone: Bool
    }

    /// What the last gate found, in billionths of the loss.
    struct Evaluation: Codable {
        var improvement, lower, upper, delta, floor: Int64
        /// The lowest of the slices' lower bounds.
        var worstSlice: Int64
        /// Losses of the first documents of the draw, in micro-nats.
        var baseline, candidate: [Int64]
    }

    /// Improvements on all documents, in billionths.
    struct Truth: Codable {
        var improvement: Int64
        /// The least of a slice.
        var worstSlice: Int64
    }

    var number: Int
    var kind: String
    var isLate: Bool
    var gates: [String: Answer] = [:]
    var last: Evaluation?
    var features: [Int64] = []
    var score: Int64?
    var truth: Truth?

    init(number: Int, kind: String, isLate: Bool) {
        self.number = number
        self.kind = kind
        self.isLate = isLate
    }

    /// Documents whose losses are noted.
    private static let noted = 128

    mutating func add(_ gate: VerdictDocument.Gate, _ seconds: Double, isAlone: Bool = false) {
        gates[gate.name] = Answer(
            outcome: gate.outcome, reason: gate.reason, seconds: seconds, isAlone: isAlone)
        let evidence = gate.evidence
        if gate.name == "immune" {
            features = Self.integers(evidence["features"])
            score = evidence["score"]?.int
        }
        guard gate.name == "proof-of-learning", let improvement = evidence["improvement_ppb"]?.int
        else { return }
        var worst = Int64.max
        if case .object(let slices)? = evidence["slices"] {
            worst = slices.values.compactMap { $0["lower_ppb"]?.int }.min() ?? 0
        }
        func number(_ name: String) -> Int64 { evidence[name]?.int ?? 0 }
        last = Evaluation(
            improvement: improvement, lower: number("lower_ppb"), upper: number("upper_ppb"),
            delta: number("delta_ppb"), floor: number("floor_ppb"), worstSlice: worst,
            baseline: Array(Self.integers(evidence["baseline_unat"]).prefix(Self.noted)),
            candidate: Array(Self.integers(evidence["candidate_unat"]).prefix(Self.noted)))
    }

    private static func integers(_ value: JSONValue?) -> [Int64] {
        guard case .array(let values)? = value else { return [] }
        return values.compactMap(\.int)
    }

    /// Whether it is to be asked what the candidate is worth: of the other kinds, only what the last gate took for a gain.
    var mayGain: Bool { isAcceptedByTheLast || ["honest", "overfitted"].contains(kind) }

    var isAcceptedByTheLast: Bool { gates["proof-of-learning"]?.outcome == "accept" }

    /// The gate that refused it in the pipeline.
    var refusedBy: String? {
        gates.first { !$0.value.isAlone && $0.value.outcome == "reject" }?.key
    }

    var isStoppedCheaply: Bool { refusedBy != nil && refusedBy != "proof-of-learning" }

    /// Whether the gates without the immune one stop it before the last.
    var isStoppedWithoutImmune: Bool {
        gates.contains {
            !["immune", "proof-of-learning"].contains($0.key) && $0.value.outcome == "reject"
        }
    }

    /// Seconds of the processor that the pipeline took before the last gate.
    var cheapSeconds: Double {
        gates.filter { $0.key != "proof-of-learning" && !$0.value.isAlone }
            .reduce(0) { $0 + $1.value.seconds }
    }
}
