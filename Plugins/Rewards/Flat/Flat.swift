internal import BlyanPluginKit
public import CBlyanPlugin

/// The policy that pays a fixed amount for each accepted version: for private networks, where everybody is known.
final class Flat: Reward {
    static let name = "flat"
    static let version = "1.0.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "amount_micro_bly": {"type": "integer", "minimum": 1, "maximum": 1000000000000, "default": 1000000,
            "description": "Micro-BLY for an accepted version."},
          "vesting_blocks": {"type": "integer", "minimum": 0, "maximum": 10000000, "default": 0,
            "description": "Usage and reward blocks over which a payment vests; 0: at once."}}}
        """

    private struct Terms {
        let amount: Int64
        let vesting: Int64

        init(_ settings: Settings) throws(PluginError) {
            amount = settings.integer("amount_micro_bly", default: 1_000_000)
            vesting = settings.integer("vesting_blocks", default: 0)
            guard (1...1_000_000_000_000).contains(amount), (0...10_000_000).contains(vesting)
            else {
                throw PluginError(
                    BLYAN_E_CONFIG, "amount_micro_bly \(amount) or vesting_blocks \(vesting)")
            }
        }
    }

    init(host: HostServices, config: String) throws(PluginError) {
        _ = try Terms(Settings(config))
    }

    func settle(_ events: [JSONValue], config: Settings) throws(PluginError) -> [Payment] {
        let terms = try Terms(config)
        return events.enumerated().compactMap { i, event in
            AcceptedEvent(event).map {
                Payment(event: i, account: $0.author, amount: terms.amount, vesting: terms.vesting)
            }
        }
    }

    /// What is no accepted version earns nothing.
    func selfTest() throws(PluginError) {
        guard
            try settle([.object(["kind": .string("accepted")])], config: Settings(.object([:])))
                .isEmpty
        else { throw PluginError(BLYAN_E_INTERNAL, "self-test: garbage is paid for") }
    }
}

private let table = PluginTable.reward(Flat.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
