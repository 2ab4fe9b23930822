internal import BlyanPluginKit
public import CBlyanPlugin

/// The gate that stops the hopeless before the expensive one: a few documents of each slice, with and without the
/// candidate.
///
/// It rejects what cannot be expected to gain what the policy asks for: where even a generous upper bound of the improvement is
/// below that. Whether something is better is not its question.
final class QuickPerplexity: Gate {
    static let name = "quick-perplexity"
    static let version = "1.1.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "documents": {"type": "integer", "minimum": 8, "maximum": 4096, "default": 48,
            "description": "Documents, the first of each slice of the draw."},
          "least_by_slice": {"type": "integer", "minimum": 1, "maximum": 1024, "default": 4,
            "description": "Documents of each slice at least, where it has so many."},
          "least_ppm": {"type": "integer", "minimum": -1000000, "maximum": 1000000, "default": 1500,
            "description": "The improvement, in millionths of the loss, that must be possible: at most what the last gate asks for."},
          "errors": {"type": "integer", "minimum": 1, "maximum": 100, "default": 3,
            "description": "How many standard errors above what was measured are held possible."}}}
        """

    /// Of the draw at most: what shares of it the slices have needs no more.
    private static let drawn = 10_000
    /// Documents that an error can be told from.
    private static let fewest = 8

    private let wanted: Int, leastBySlice: Int
    private let least: Int64, errors: Int64

    init(host: HostServices, config: String) throws(PluginError) {
        let settings = try Settings(config)
        wanted = Int(settings.integer("documents", default: 48))
        leastBySlice = Int(settings.integer("least_by_slice", default: 4))
        least = settings.integer("least_ppm", default: 1500)
        errors = settings.integer("errors", default: 3)
    }

    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict {
        // The pair is evaluated once.
        if candidate.isCompanion { return Verdict(.accept) }
        let drawn: [Candidate.Document]
        do throws(PluginError) { drawn = try candidate.documents(Self.drawn) } catch
            where error.status == BLYAN_E_UNSUPPORTED
        {
            return Verdict(.defer("no-text"))
        }
        let strata = Strata(drawn.map(\.slice), wanted: wanted, leastBySlice: leastBySlice)
        var (before, after): ([Int64], [Int64]) = ([], [])
        for run in strata.runs {
            // Exactly reproducible, as it is so little.
            before += try candidate.losses(.parent, .reference, of: run)
            after += try candidate.losses(.candidate, .reference, of: run)
        }
        // Of almost nothing nothing follows: the last gate says so.
        guard before.count >= Self.fewest,
            let found = strata.improvement(before, after, errors: errors)
        else { return Verdict(.accept, ["documents": .int(Int64(before.count))]) }
        let evidence: [String: JSONValue] = [
            "documents": .int(Int64(before.count)), "baseline_unat": .int(before.reduce(0, +)),
            "candidate_unat": .int(after.reduce(0, +)), "improvement_ppm": .int(found.mean),
            "upper_ppm": .int(found.upper), "least_ppm": .int(least),
        ]
        return Verdict(found.upper < least ? .reject("hopeless") : .accept, evidence)
    }

    func selfTest() throws(PluginError) {
        // 12 of one slice, 4 of another: two of each are taken, and count 12 to 4.
        let strata = Strata(
            (0..<16).map { $0 % 4 == 3 ? "b" : "a" }, wanted: 4, leastBySlice: 1)
        let even = strata.improvement([100, 100, 100, 100], [90, 90, 90, 90], errors: 4)
        let uneven = strata.improvement([100, 100, 100, 100], [90, 90, 100, 100], errors: 4)
        guard strata.runs == [0..<2, 3..<4, 7..<8], even?.mean == 100_000, even?.upper == 100_000,
            let uneven, uneven.mean == 75_000, uneven.upper > 75_000
        else { throw PluginError(BLYAN_E_INTERNAL, "self-test: improvements are wrong") }
    }
}

private let table = PluginTable.gate(QuickPerplexity.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
