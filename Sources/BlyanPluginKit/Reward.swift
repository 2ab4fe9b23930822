public import BlyanJSON
internal import CBlyanPlugin

/// A plugin of kind reward: says who is paid for what, from signed facts alone.
public protocol Reward: Plugin {
    /// The payments that follow from events, in order of the events. Serial.
    ///
    /// The same configuration and events give the same payments on every machine: no clock, no randomness, no floats, no
    /// state. An event that is not as the contract says, or of a kind that the policy does not know, earns nothing.
    /// - Parameters:
    ///   - events: as `blyan_settlement` describes them.
    ///   - config: that of the policy block which governs; not always that of the manifest.
    /// - Throws: `BLYAN_E_CONFIG` for a configuration that the schema does not allow.
    func settle(_ events: [JSONValue], config: Settings) throws(PluginError) -> [Payment]
}

/// One payment.
public struct Payment: Sendable, Equatable {
    /// The event that it pays for, from 0.
    public var event: Int
    /// Who is paid: a compressed public key in hex.
    public var account: String
    /// Micro-BLY, above 0.
    public var amount: Int64
    /// Usage and reward blocks over which it vests; 0: at once.
    public var vesting: Int64

    /// Makes a payment.
    public init(event: Int, account: String, amount: Int64, vesting: Int64) {
        (self.event, self.account) = (event, account)
        (self.amount, self.vesting) = (amount, vesting)
    }
}

/// A candidate that was accepted as a new version.
public struct AcceptedEvent: Sendable, Equatable {
    /// The account of whoever made it.
    public let author: String
    /// Accounts of the versions that it stands on, nearest first.
    public let lineage: [String]
    /// The lower bound of the improvement, in billionths of the loss; 0 if no gate measured.
    public let lower: Int64
    /// What the bound had to exceed.
    public let delta: Int64

    /// What an event says, or nil if it is of another kind or not as the contract says.
    public init?(_ event: JSONValue) {
        guard event["kind"]?.string == "accepted",
            let author = event["author"]?.string, Accounts.isAccount(author),
            let lineage = event["lineage"]?.strings, lineage.allSatisfy(Accounts.isAccount),
            event["improvement_ppb"]?.int != nil, let lower = event["lower_ppb"]?.int,
            let delta = event["delta_ppb"]?.int
        else { return nil }
        (self.author, self.lineage) = (author, lineage)
        (self.lower, self.delta) = (lower, delta)
    }
}

/// A version that was used, by requests that other accounts paid for.
public struct UsageEvent: Sendable, Equatable {
    /// The account of whoever made the version.
    public let author: String
    /// Requests that it served.
    public let calls: Int64
    /// How long they took in all.
    public let milliseconds: Int64
    /// The version's proven improvement, in millionths.
    public let quality: Int64
    /// When it was used last, UTC milliseconds.
    public let lastUse: Int64
    /// When the use was counted, UTC milliseconds.
    public let time: Int64

    /// What an event says, or nil if it is of another kind or not as the contract says: what nobody paid for, or whom it
    /// would pay, earns nothing.
    public init?(_ event: JSONValue) {
        guard event["kind"]?.string == "usage",
            let author = event["author"]?.string, Accounts.isAccount(author),
            let payers = event["payers"]?.strings, !payers.isEmpty,
            payers.allSatisfy({ Accounts.isAccount($0) && $0 != author }),
            let calls = event["calls"]?.int, calls > 0,
            let milliseconds = event["milliseconds"]?.int, milliseconds >= 0,
            let quality = event["quality_ppm"]?.int, quality >= 0,
            let lastUse = event["last_use"]?.int, let time = event["time"]?.int,
            lastUse >= 0, lastUse <= time
        else { return nil }
        (self.author, self.calls, self.milliseconds) = (author, calls, milliseconds)
        (self.quality, self.lastUse, self.time) = (quality, lastUse, time)
    }
}

/// The form of accounts.
private enum Accounts {
    static func isAccount(_ text: String) -> Bool {
        let digits = Array(text.utf8)
        return digits.count == 66 && (text.hasPrefix("02") || text.hasPrefix("03"))
            && digits.allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
    }
}

extension Int64 {
    /// A product, or nil beyond 64 bits.
    public func times(_ other: Int64) -> Int64? {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? nil : product
    }

    /// ⌊self × a / b⌋ for numbers that are not negative, or nil if it is beyond 64 bits or `b` is not above 0.
    public func scaled(by a: Int64, over b: Int64) -> Int64? {
        guard self >= 0, a >= 0, b > 0 else { return nil }
        return Int64(exactly: Int128(self) * Int128(a) / Int128(b))
    }
}
