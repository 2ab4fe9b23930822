// Unchecked: the decoder's lock serialises all use of the mutable position.
/// One request's state: its key/value cache, its router's state, and how far it has come.
///
/// Used by one task at a time.
public final class Session: @unchecked Sendable {
    let cache: KeyValueCache
    let router: (any RequestRouter)?
    /// Tokens that have been run, and so the position of the next one.
    public internal(set) var position = 0
    /// Whether a step began and did not end: then router and cache may disagree on where the request stands.
    var isBroken = false
    /// Experts that have served the request under way.
    var served: Set<String> = []
    /// What its steps took that nobody was told of yet.
    var use: [String: RequestUse.Expert] = [:]
    /// Steps in `use`.
    var useSteps = 0
    /// The account that pays for this request, as hex; "" for the node's own use.
    public let payer: String

    /// Positions that fit.
    public var capacity: Int { cache.capacity }

    package init(cache: KeyValueCache, router: (any RequestRouter)?, payer: String = "") {
        self.cache = cache
        self.router = router
        self.payer = payer
    }
}

/// What some steps of a request took of its experts.
public struct RequestUse: Sendable {
    /// What they took of one.
    public struct Expert: Sendable, Equatable {
        /// Whether it served the request for the first time.
        public var isFirst = false
        /// Tokens that it served.
        public var tokens = 0
        /// Steps in which it served.
        public var steps = 0
        /// How long those steps took.
        public var nanoseconds: Int64 = 0
    }

    /// By expert name.
    public let experts: [String: Expert]
    /// The account that pays, as hex; "" for the node's own use.
    public let payer: String
}
