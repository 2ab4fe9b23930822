internal import BlyanPluginKit
public import CBlyanPlugin

/// The policy that pays for use.
///
/// For each version that was used
///
///     base × min(calls / 100, 2) × max(0.5, 2 − seconds a call) × (1 + quality) × (1 if used within the last hour, else 0.8)
///
/// in micro-BLY, rounded down once, after the last multiplication. Seconds a call are milliseconds / calls / 1000, not
/// rounded. Only calls that another account paid for arrive here.
final class UsageQuality: Reward {
    static let name = "usage-quality"
    static let version = "1.0.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "base_micro_bly": {"type": "integer", "minimum": 1, "maximum": 1000000000000, "default": 1000000,
            "description": "The base, in micro-BLY."},
          "vesting_blocks": {"type": "integer", "minimum": 0, "maximum": 10000000, "default": 100,
            "description": "Usage and reward blocks over which a payment vests; 0: at once."}}}
        """

    private struct Terms {
        let base: Int64
        let vesting: Int64

        init(_ settings: Settings) throws(PluginError) {
            base = settings.integer("base_micro_bly", default: 1_000_000)
            vesting = settings.integer("vesting_blocks", default: 100)
            guard (1...1_000_000_000_000).contains(base), (0...10_000_000).contains(vesting) else {
                throw PluginError(
                    BLYAN_E_CONFIG, "base_micro_bly \(base) or vesting_blocks \(vesting)")
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
            guard let use = UsageEvent(event), let amount = Self.amount(use, base: terms.base),
                amount > 0
            else { continue }
            payments.append(
                Payment(event: i, account: use.author, amount: amount, vesting: terms.vesting))
        }
        return payments
    }

    private static let hour: Int64 = 3_600_000

    /// Micro-BLY, or nil for numbers that cannot be multiplied.
    private static func amount(_ use: UsageEvent, base: Int64) -> Int64? {
        let calls = Int128(use.calls)
        // In thousandths of a second, times calls.
        let speed = max(500 * calls, 2000 * calls - Int128(use.milliseconds))
        let recency: Int128 = use.time - use.lastUse <= hour ? 10 : 8
        var product = Int128(base)
        for factor in [min(calls, 200), speed, 1_000_000 + Int128(use.quality), recency] {
            let (next, overflow) = product.multipliedReportingOverflow(by: factor)
            guard !overflow else { return nil }
            product = next
        }
        return Int64(exactly: product / (100 * 1000 * calls * 1_000_000 * 10))
    }

    /// 150 calls of half a second, quality 0.25, used just now: 1.5 × 1.5 × 1.25 of the base.
    func selfTest() throws(PluginError) {
        let event: JSONValue = .object([
            "kind": .string("usage"), "author": .string("02" + String(repeating: "0", count: 64)),
            "payers": .array([.string("03" + String(repeating: "0", count: 64))]),
            "calls": .int(150), "milliseconds": .int(75_000), "quality_ppm": .int(250_000),
            "last_use": .int(0), "time": .int(3_600_000),
        ])
        guard let use = UsageEvent(event), Self.amount(use, base: 1_000_000) == 2_812_500 else {
            throw PluginError(BLYAN_E_INTERNAL, "self-test: the formula is wrong")
        }
    }
}

private let table = PluginTable.reward(UsageQuality.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
