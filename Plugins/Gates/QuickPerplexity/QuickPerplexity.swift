internal import BlyanPluginKit
public import CBlyanPlugin

/// The gate that stops the hopeless before the expensive one: the first documents of the draw, with and without the
/// candidate.
///
/// It rejects only what is clearly worse there; whether something is better is not its question.
final class QuickPerplexity: Gate {
    static let name = "quick-perplexity"
    static let version = "1.0.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "documents": {"type": "integer", "minimum": 8, "maximum": 4096, "default": 48,
            "description": "Documents, from the beginning of the draw."},
          "least_ppm": {"type": "integer", "minimum": -1000000, "maximum": 0, "default": -3000,
            "description": "An improvement on them below this, in millionths of the loss, is hopeless."}}}
        """

    private let wanted: Int
    private let least: Int64

    init(host: HostServices, config: String) throws(PluginError) {
        let settings = try Settings(config)
        wanted = Int(settings.integer("documents", default: 48))
        least = settings.integer("least_ppm", default: -3000)
    }

    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict {
        // The pair is evaluated once.
        if candidate.isCompanion { return Verdict(.accept) }
        let count: Int
        do throws(PluginError) { count = try candidate.documents(wanted).count } catch
            where error.status == BLYAN_E_UNSUPPORTED
        {
            return Verdict(.defer("no-text"))
        }
        // Exactly reproducible, as it is so little.
        let before = try candidate.losses(.parent, .reference, of: 0..<count).reduce(0, +)
        let after = try candidate.losses(.candidate, .reference, of: 0..<count).reduce(0, +)
        let improvement = Self.improvement(before, after)
        let evidence: [String: JSONValue] = [
            "documents": .int(Int64(count)), "baseline_unat": .int(before),
            "candidate_unat": .int(after), "improvement_ppm": .int(improvement),
        ]
        return Verdict(improvement < least ? .reject("hopeless") : .accept, evidence)
    }

    /// 1 - after / before, in millionths.
    private static func improvement(_ before: Int64, _ after: Int64) -> Int64 {
        guard before > 0 else { return 0 }
        return Int64(clamping: (Int128(before) - Int128(after)) * 1_000_000 / Int128(before))
    }

    func selfTest() throws(PluginError) {
        guard Self.improvement(200, 190) == 50_000, Self.improvement(200, 210) == -50_000 else {
            throw PluginError(BLYAN_E_INTERNAL, "self-test: improvements are wrong")
        }
    }
}

private let table = PluginTable.gate(QuickPerplexity.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
