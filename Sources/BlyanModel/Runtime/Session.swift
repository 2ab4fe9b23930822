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

    /// Positions that fit.
    public var capacity: Int { cache.capacity }

    package init(cache: KeyValueCache, router: (any RequestRouter)?) {
        self.cache = cache
        self.router = router
    }
}
