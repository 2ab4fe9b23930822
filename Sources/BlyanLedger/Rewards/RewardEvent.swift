public import BlyanJSON

/// What a reward policy is told: facts of signed blocks, as the plugin contract writes them.
public enum RewardEvent: Sendable, Equatable {
    /// A candidate was accepted as a new version.
    case accepted(Acceptance)
    /// A version was used.
    case usage(Use)

    /// An accepted version.
    public struct Acceptance: Sendable, Equatable {
        /// Whoever made it.
        public var author: Account
        /// Whoever made the versions that it stands on, nearest first, without the import.
        public var lineage: [Account]
        /// What the gates measured; nil if none did.
        public var gain: Gain?

        /// Makes one.
        public init(author: Account, lineage: [Account], gain: Gain?) {
            (self.author, self.lineage, self.gain) = (author, lineage, gain)
        }
    }

    /// What the gates of a verdict measured, in billionths of the loss.
    public struct Gain: Sendable, Equatable {
        /// The mean improvement.
        public var improvement: Int64
        /// Its lower bound.
        public var lower: Int64
        /// What the bound had to exceed.
        public var delta: Int64

        /// Makes one.
        public init(improvement: Int64, lower: Int64, delta: Int64) {
            (self.improvement, self.lower, self.delta) = (improvement, lower, delta)
        }

        /// The proven improvement in millionths, from 0 to 1,000,000: the quality of a version.
        public var quality: Int64 { min(max(0, lower / 1000), 1_000_000) }
    }

    /// Use of a version, for which others paid.
    public struct Use: Sendable, Equatable {
        /// Whoever made the version.
        public var author: Account
        /// Requests that it served.
        public var calls: Int64
        /// How long they took in all.
        public var milliseconds: Int64
        /// The version's quality in millionths.
        public var quality: Int64
        /// When it was used last, UTC milliseconds.
        public var lastUse: Int64
        /// When its use was counted, UTC milliseconds.
        public var time: Int64
        /// Who paid.
        public var payers: [Account]
    }

    /// As a policy gets it.
    public var document: JSONValue {
        func texts(_ accounts: [Account]) -> JSONValue {
            .array(accounts.map { .string($0.description) })
        }
        switch self {
        case .accepted(let event):
            return .object([
                "kind": .string("accepted"), "author": .string(event.author.description),
                "lineage": texts(event.lineage),
                "improvement_ppb": .int(event.gain?.improvement ?? 0),
                "lower_ppb": .int(event.gain?.lower ?? 0),
                "delta_ppb": .int(event.gain?.delta ?? 0),
            ])
        case .usage(let event):
            return .object([
                "kind": .string("usage"), "author": .string(event.author.description),
                "calls": .int(event.calls), "milliseconds": .int(event.milliseconds),
                "quality_ppm": .int(event.quality), "last_use": .int(event.lastUse),
                "time": .int(event.time), "payers": texts(event.payers),
            ])
        }
    }
}
