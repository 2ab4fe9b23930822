internal import BlyanPluginKit
public import CBlyanPlugin

/// The policy that pays for a proven gain: in proportion to the lower bound of the improvement over delta, which it had
/// to exceed, up to a cap; split over the accepted version and those that it stands on, by shares.
///
/// amount = ⌊per_delta × min(lower, cap × delta) / delta⌋. Each ancestor gets ⌊amount × share / 1,000,000⌋, the author
/// the rest: the shares of ancestors that there are not, and what rounding left. Without a measured gain, or with a
/// delta of 0, nothing is paid.
final class Improvement: Reward {
    static let name = "improvement"
    static let version = "1.0.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "per_delta_micro_bly": {"type": "integer", "minimum": 1, "maximum": 1000000000000, "default": 10000000,
            "description": "Micro-BLY for each delta that the lower bound of the improvement reaches."},
          "cap_deltas": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 20,
            "description": "More deltas than this are not paid."},
          "lineage_shares_ppm": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1000000},
            "default": [150000, 50000],
            "description": "Shares, in millionths, of the versions that it stands on, nearest first; the author gets the rest."},
          "vesting_blocks": {"type": "integer", "minimum": 0, "maximum": 10000000, "default": 100,
            "description": "Usage and reward blocks over which a payment vests; 0: at once."}}}
        """

    private struct Terms {
        let perDelta: Int64
        let cap: Int64
        let shares: [Int64]
        let vesting: Int64

        init(_ settings: Settings) throws(PluginError) {
            perDelta = settings.integer("per_delta_micro_bly", default: 10_000_000)
            cap = settings.integer("cap_deltas", default: 20)
            shares = settings.integers("lineage_shares_ppm", default: [150_000, 50_000])
            vesting = settings.integer("vesting_blocks", default: 100)
            guard (1...1_000_000_000_000).contains(perDelta), (1...1_000_000).contains(cap),
                (0...10_000_000).contains(vesting)
            else {
                throw PluginError(
                    BLYAN_E_CONFIG,
                    "per_delta_micro_bly \(perDelta), cap_deltas \(cap) or vesting_blocks \(vesting)"
                )
            }
            guard shares.count <= 64, shares.allSatisfy({ (0...1_000_000).contains($0) }),
                shares.reduce(0, +) <= 1_000_000
            else {
                throw PluginError(
                    BLYAN_E_CONFIG,
                    "lineage_shares_ppm holds more than 64 shares, or more than 1000000 in all")
            }
        }
    }

    init(host: HostServices, config: String) throws(PluginError) {
        _ = try Terms(Settings(config))
    }

    func settle(_ events: [JSONValue], config: Settings) throws(PluginError) -> [Payment] {
        let terms = try Terms(config)
        var payments: [Payment] = []
        for (i, event) in events.enumerated() {
            guard let accepted = AcceptedEvent(event), let parts = Self.split(accepted, terms)
            else { continue }
            payments += parts.map {
                Payment(event: i, account: $0.account, amount: $0.amount, vesting: terms.vesting)
            }
        }
        return payments
    }

    /// Who gets what, the author first; nil for nothing.
    ///
    /// An account that stands there twice gets one sum.
    private static func split(_ event: AcceptedEvent, _ terms: Terms) -> [(
        account: String, amount: Int64
    )]? {
        guard event.delta > 0, event.lower > 0, let most = event.delta.times(terms.cap),
            let amount = terms.perDelta.scaled(by: min(event.lower, most), over: event.delta)
        else { return nil }
        var parts: [(account: String, amount: Int64)] = [(event.author, amount)]
        for (account, share) in zip(event.lineage, terms.shares) {
            guard let part = amount.scaled(by: share, over: 1_000_000) else { return nil }
            parts[0].amount -= part
            if let known = parts.firstIndex(where: { $0.account == account }) {
                parts[known].amount += part
            } else {
                parts.append((account, part))
            }
        }
        return parts.filter { $0.amount > 0 }
    }

    /// Two and a half deltas on one ancestor's shoulders.
    func selfTest() throws(PluginError) {
        let (author, other) = (
            "02" + String(repeating: "0", count: 64), "03" + String(repeating: "0", count: 64)
        )
        let event: JSONValue = .object([
            "kind": .string("accepted"), "author": .string(author),
            "lineage": .array([.string(other)]), "improvement_ppb": .int(6_000_000),
            "lower_ppb": .int(5_000_000), "delta_ppb": .int(2_000_000),
        ])
        let paid = try settle([event], config: Settings(.object([:])))
        guard paid.map(\.amount) == [21_250_000, 3_750_000], paid.map(\.account) == [author, other]
        else { throw PluginError(BLYAN_E_INTERNAL, "self-test: the split is wrong") }
    }
}

private let table = PluginTable.reward(Improvement.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
