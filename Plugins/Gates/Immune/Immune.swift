internal import BlyanPluginKit
public import CBlyanPlugin

// Unchecked: the host asks an instance one candidate at a time.
/// The gate that learns from every verdict what is worth evaluating.
///
/// A small classifier, of features of the weights, of the author's record and of timing. It refuses what scores
/// below nearly all that was ever accepted; the share that may be refused wrongly is stated. Of those it would refuse it lets some
/// pass all the same, so that its errors come to light. While too little was accepted to keep to that share it refuses nothing.
final class Immune: Gate, @unchecked Sendable {
    static let name = "immune"
    static let version = "1.0.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "budget_ppm": {"type": "integer", "minimum": 1, "maximum": 200000, "default": 10000,
            "description": "The share, in millionths, of what would be accepted that may be refused."},
          "explore_ppm": {"type": "integer", "minimum": 0, "maximum": 1000000, "default": 62500,
            "description": "The share of what would be refused that passes all the same, to learn from."}}}
        """

    private let budget: Int64
    private let explored: Int64
    private var records: [Memory.Record] = []
    private var memory = Memory()

    init(host: HostServices, config: String) throws(PluginError) {
        let settings = try Settings(config)
        budget = settings.integer("budget_ppm", default: 10_000)
        explored = settings.integer("explore_ppm", default: 62_500)
    }

    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict {
        // It knows experts; the router that goes with one is evaluated with it.
        guard !candidate.isCompanion, candidate.hasParent else { return Verdict(.accept) }
        try remember(candidate, candidate.history().verdicts)
        let author = candidate.context["author"]?.string ?? ""
        let features = try Features(candidate, memory.authors[author]).values
        let score = memory.score(features)
        var evidence: [String: JSONValue] = [
            "examples": .int(Int64(memory.examples.count)),
            "features": .array(features.map(JSONValue.int)), "score": .int(score),
            "weights": .array(memory.weights.map(JSONValue.int)),
        ]
        guard let threshold = memory.threshold(budget: budget) else {
            return Verdict(.accept, evidence)
        }
        evidence["threshold"] = .int(threshold)
        guard score < threshold else { return Verdict(.accept, evidence) }
        // By what decides the text, which its author could not know.
        let seed = candidate.context["seed"]?.string ?? ""
        let lot = Int64(seed.suffix(8), radix: 16).map { $0 % 1_000_000 } ?? 0
        guard lot >= explored else {
            evidence["explored"] = .bool(true)
            return Verdict(.accept, evidence)
        }
        return Verdict(.reject("unlikely"), evidence)
    }

    /// Has the memory of the first so many verdicts.
    private func remember(_ candidate: borrowing Candidate, _ count: Int) throws(PluginError) {
        while records.count < count {
            records.append(
                try Self.record(candidate.verdict(records.count, evidenceOf: [Self.name])))
        }
        // An audit looks back on fewer.
        if memory.verdicts > count { memory = Memory() }
        while memory.verdicts < count { memory.learn(records[memory.verdicts]) }
    }

    private static func record(_ verdict: JSONValue) -> Memory.Record {
        let header = verdict["block"]?.string.flatMap { try? JSONValue(parsing: Array($0.utf8)) }
        var features: [Int64] = []
        if case .array(let entries)? = verdict["evidence"],
            case .array(let values)? = entries.last?["evidence"]?["features"]
        {
            // A receipt may say anything: one with other numbers counts as one without features.
            features = values.compactMap(\.int).filter {
                (-Features.largest...Features.largest).contains($0)
            }
        }
        return Memory.Record(
            author: header?["miner_pub"]?.string ?? "", received: verdict["received"]?.int ?? 0,
            isAccepted: verdict["outcome"]?.string == "accept", features: features)
    }

    func selfTest() throws(PluginError) {
        var memory = Memory()
        let good = Features.names.indices.map { $0 % 2 == 0 ? Features.one : -Features.one }
        for i in 0..<64 {
            memory.learn(
                .init(
                    author: "a", received: 0, isAccepted: i % 2 == 0,
                    features: i % 2 == 0 ? good : good.map { -$0 }))
        }
        guard memory.score(good) > 0, memory.score(good.map { -$0 }) < 0,
            memory.threshold(budget: 10_000) == nil, memory.threshold(budget: 100_000) != nil
        else { throw PluginError(BLYAN_E_INTERNAL, "self-test: nothing is learnt") }
    }
}

private let table = PluginTable.gate(Immune.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
