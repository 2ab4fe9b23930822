package import BlyanKernel
package import BlyanModel

extension Judge {
    /// What the judge needs of the node.
    package struct Host: Sendable {
        package let store: ChainStore
        /// Signs verdicts.
        package let key: @Sendable () throws -> SigningKey
        /// The plugins of now.
        package let plugins: @Sendable () -> PluginSet
        /// A model as a version block has it, by a router or, with nil, by the node's own.
        package let model: @Sendable (CatalogModel, RouterPlugin?) throws -> LoadedModel
        package let threads: Int
        /// UTC milliseconds.
        package let clock: @Sendable () -> Int64
        /// Told of each block that is durable.
        package let onStored: @Sendable (Block) -> Void
        /// Told of each judgement of a candidate that has ended, and how.
        package let onJudged: @Sendable (Block, Result<Judgement, any Error>) -> Void
        /// The reward policy that is asked what an acceptance earns, nil if none is; no code of it runs.
        package let payer: @Sendable () -> AskedPlugin?
        /// Appends the record of an acceptance, with what is paid for it.
        package let append: @Sendable ([Block], AcceptedCandidate) throws -> Void
        /// Appends the record of a review by which a version reverts, with what is taken back for it; gives the block that
        /// takes back, if anything had not vested.
        package let revert: @Sendable (_ record: [Block], RevertedVersion) throws -> Block?
        /// Writes what the acceptance of a candidate needs on chain beforehand.
        package let prepare: @Sendable (_ candidate: Digest) throws -> Void
        /// Throws if an author may not upload now.
        package let admit: @Sendable (_ author: String) throws -> Void

        package init(
            store: ChainStore, key: @escaping @Sendable () throws -> SigningKey,
            plugins: @escaping @Sendable () -> PluginSet,
            model: @escaping @Sendable (CatalogModel, RouterPlugin?) throws -> LoadedModel,
            threads: Int,
            clock: @escaping @Sendable () -> Int64, onStored: @escaping @Sendable (Block) -> Void,
            onJudged: @escaping @Sendable (Block, Result<Judgement, any Error>) -> Void = { _, _ in
            },
            payer: @escaping @Sendable () -> AskedPlugin? = { nil },
            append: (@Sendable ([Block], AcceptedCandidate) throws -> Void)? = nil,
            revert: (@Sendable ([Block], RevertedVersion) throws -> Block?)? = nil,
            prepare: @escaping @Sendable (_ candidate: Digest) throws -> Void = { _ in },
            admit: @escaping @Sendable (_ author: String) throws -> Void = { _ in }
        ) {
            self.store = store
            self.key = key
            self.plugins = plugins
            self.model = model
            self.threads = threads
            self.clock = clock
            self.onStored = onStored
            self.onJudged = onJudged
            self.payer = payer
            self.append = append ?? { record, _ in try store.append(record) }
            self.revert =
                revert
                ?? { record, _ in
                    try store.append(record)
                    return nil
                }
            self.prepare = prepare
            self.admit = admit
        }
    }
}
