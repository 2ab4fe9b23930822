internal import BlyanPluginKit
public import CBlyanPlugin

/// The gate that asks whether the model is better with the candidate than without, on text that nobody could fit to.
///
/// It accepts when the lower bound of the improvement exceeds delta, and no slice's lower bound falls below its floor:
/// a lucky sample does not pass, and a better mean does not hide a harm. It says "this is better", never "this was
/// trained so".
///
/// In a review, where the candidate is a version that stands, it rejects only what is shown to be worse than its parent:
/// even the upper bound of the improvement is below 0.
final class ProofOfLearning: Gate {
    static let name = "proof-of-learning"
    static let version = "1.2.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "documents": {"type": "integer", "minimum": 16, "maximum": 1000000, "default": 300,
            "description": "Documents that are drawn."},
          "least_documents": {"type": "integer", "minimum": 8, "maximum": 1000000, "default": 128,
            "description": "With fewer documents nothing is decided: the verdict is defer."},
          "delta_ppm": {"type": "integer", "minimum": 0, "maximum": 1000000, "default": 1500,
            "description": "The improvement, in millionths of the loss, that the lower bound must exceed."},
          "confidence_ppm": {"type": "integer", "minimum": 500000, "maximum": 999900, "default": 990000,
            "description": "One-sided confidence of that bound."},
          "floor_ppm": {"type": "integer", "minimum": -1000000, "maximum": 1000000, "default": -20000,
            "description": "What no slice's improvement may fall below."},
          "slice_confidence_ppm": {"type": "integer", "minimum": 500000, "maximum": 999900, "default": 950000,
            "description": "One-sided confidence of each slice's bound."},
          "resamples": {"type": "integer", "minimum": 200, "maximum": 100000, "default": 10000,
            "description": "Bootstrap resamples."},
          "band_ppm": {"type": "integer", "minimum": 1, "maximum": 100000, "default": 50,
            "description": "A bound this close to its threshold is decided on the reference path."},
          "always_reference": {"type": "boolean", "default": true,
            "description": "Whether every verdict is decided on the reference path, so that each loss in the receipt can be reproduced bit for bit anywhere."}}}
        """

    private let wanted: Int, least: Int, resamples: Int
    private let delta: Int64, confidence: Int64, floor: Int64, sliceConfidence: Int64, band: Int64
    private let alwaysReference: Bool

    init(host: HostServices, config: String) throws(PluginError) {
        let settings = try Settings(config)
        wanted = Int(settings.integer("documents", default: 300))
        least = Int(settings.integer("least_documents", default: 128))
        resamples = Int(settings.integer("resamples", default: 10_000))
        // Billionths from here on.
        delta = settings.integer("delta_ppm", default: 1500) * 1000
        floor = settings.integer("floor_ppm", default: -20_000) * 1000
        band = settings.integer("band_ppm", default: 50) * 1000
        confidence = settings.integer("confidence_ppm", default: 990_000)
        sliceConfidence = settings.integer("slice_confidence_ppm", default: 950_000)
        alwaysReference = settings.boolean("always_reference", default: true)
        guard least <= wanted else {
            throw PluginError(
                BLYAN_E_CONFIG, "least_documents is \(least), more than the \(wanted) documents")
        }
    }

    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict {
        // The pair is evaluated once.
        if candidate.isCompanion { return Verdict(.accept) }
        let documents: [Candidate.Document]
        do throws(PluginError) { documents = try candidate.documents(wanted) } catch
            where error.status == BLYAN_E_UNSUPPORTED
        {
            return Verdict(.defer("no-text"))
        }
        guard documents.count >= least else {
            return Verdict(
                .defer("too-little-text"), ["documents": .int(Int64(documents.count))])
        }
        if !alwaysReference {
            let found = try decide(candidate, documents, .fast, saying: "fast")
            if !found.isClose { return found.verdict }
        }
        return try decide(
            candidate, documents, .reference, saying: alwaysReference ? "reference" : "band"
        ).verdict
    }

    /// Documents of a slice that a bound of its own is worth something for.
    private static let fewest = 8

    /// The places of each slice's documents, by its name; all slices with fewer than ``fewest`` are one, `*`, since resamples
    /// of one document are always the same.
    static func slices(_ names: [String]) -> [(name: String, documents: [Int])] {
        var places: [String: [Int]] = [:]
        for (i, name) in names.enumerated() { places[name, default: []].append(i) }
        let rare = places.values.filter { $0.count < fewest }.flatMap { $0 }.sorted()
        places = places.filter { $0.value.count >= fewest }
        if !rare.isEmpty { places["*"] = rare }
        return places.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// - Parameter name: tells an auditor why the path was taken: by itself, or inside the noise band.
    private func decide(
        _ candidate: borrowing Candidate, _ documents: [Candidate.Document],
        _ path: Candidate.Path, saying name: String
    ) throws(PluginError) -> (verdict: Verdict, isClose: Bool) {
        let all = 0..<documents.count
        let baseline = try candidate.losses(.parent, path, of: all)
        let own = try candidate.losses(.candidate, path, of: all)
        let bootstrap = Bootstrap(
            baseline: baseline, candidate: own, slices: Self.slices(documents.map(\.slice)),
            seed: try seed(candidate.context), resamples: resamples)
        let samples = bootstrap.resampled()
        let bound = Bootstrap.lowerBound(samples.all, confidence: confidence)
        let upper = Bootstrap.lowerBound(samples.all, confidence: 1_000_000 - confidence)
        var slices: [String: JSONValue] = [:]
        var (worst, isClose) = (Int64.max, abs(bound - delta) <= band)
        for (slice, sorted) in zip(bootstrap.slices, samples.slices) {
            let lower = Bootstrap.lowerBound(sorted, confidence: sliceConfidence)
            // Of fewer nothing is certain.
            if slice.documents.count >= Self.fewest {
                worst = min(worst, lower)
                isClose = isClose || abs(lower - floor) <= band
            }
            slices[slice.name] = .object([
                "documents": .int(Int64(slice.documents.count)),
                "improvement_ppb": .int(bootstrap.improvement(slice.documents)),
                "lower_ppb": .int(lower),
            ])
        }
        let evidence: [String: JSONValue] = [
            "path": .string(name),
            "documents": .array(documents.map { .int(Int64(clamping: $0.line)) }),
            "tokens": .array(documents.map { .int(Int64($0.tokens)) }),
            "baseline_unat": .array(baseline.map(JSONValue.int)),
            "candidate_unat": .array(own.map(JSONValue.int)),
            "token_count": .int(documents.reduce(0) { $0 + Int64($1.tokens) }),
            "improvement_ppb": .int(bootstrap.improvement(all)),
            "lower_ppb": .int(bound),
            "upper_ppb": .int(upper),
            "delta_ppb": .int(delta), "floor_ppb": .int(floor), "slices": .object(slices),
        ]
        if candidate.isReview {
            return (
                Verdict(upper < 0 ? .reject("worse") : .accept, evidence),
                upper.magnitude <= UInt64(band)
            )
        }
        let outcome: Verdict.Outcome =
            bound <= delta
            ? .reject("no-improvement") : worst < floor ? .reject("slice-harmed") : .accept
        return (Verdict(outcome, evidence), isClose)
    }

    /// The draw's seed seeds the resamples too: whoever has the receipt can repeat them.
    private func seed(_ context: JSONValue) throws(PluginError) -> UInt64 {
        guard let text = context["seed"]?.string, let seed = UInt64(text.prefix(16), radix: 16)
        else { throw PluginError(BLYAN_E_ARGUMENT, "the context has no seed") }
        return seed
    }

    /// Ten documents, each a tenth better: whatever is resampled is a tenth better.
    func selfTest() throws(PluginError) {
        let bootstrap = Bootstrap(
            baseline: (1...10).map { $0 * 1000 }, candidate: (1...10).map { $0 * 900 },
            slices: [("a", Array(0..<4)), ("b", Array(4..<10))], seed: 7, resamples: 50)
        let slices = Self.slices((0..<12).map { $0 < 9 ? "a" : "\($0)" })
        let samples = bootstrap.resampled()
        guard (samples.all + samples.slices.flatMap { $0 }).allSatisfy({ $0 == 100_000_000 }),
            bootstrap.improvement(0..<10) == 100_000_000,
            Bootstrap.lowerBound(Array(0..<100), confidence: 990_000) == 1,
            slices.map(\.name) == ["*", "a"], slices[0].documents == [9, 10, 11]
        else { throw PluginError(BLYAN_E_INTERNAL, "self-test: resamples are wrong") }
    }
}

private let table = PluginTable.gate(ProofOfLearning.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
