public import BlyanKernel
package import BlyanLearning
public import BlyanLedger
public import BlyanModel
public import Foundation
internal import Synchronization

// Unchecked: `lock` guards the mutable state.
/// A held home: its chains, its plugins, its models, and the socket by which other commands reach it.
///
/// Any thread.
public final class Node: @unchecked Sendable {
    /// The home's folder.
    public let home: URL
    /// The plugins that serve new requests; a request keeps the ones that it began with.
    public var plugins: PluginSet { lock.withLock { serving } }
    /// The chains.
    public let store: ChainStore
    /// The accounts; where chain C is broken it says so when it is used.
    public let ledger: Ledger
    /// How services speak to one another.
    public let messages = MessageRouter()
    /// What experts did in this process.
    public let usage = UsageCounter()
    /// What versions of experts did in this home, for whom.
    public let uses: UsageStore
    private let homeLock: HomeLock
    private let fixedThreads: Int?
    private let passphrase: @Sendable () throws -> [UInt8]
    private let remembered: RememberedFiles
    private let lock = NSLock()
    private var serving: PluginSet
    private let manifestPath: String
    // What serves by meta block: one version of a model, by one generation of plugins.
    private var loaded: [Digest: Serving] = [:]
    // Each is held while something slow is done once, so that all else goes on meanwhile.
    private let keyLock = NSLock()
    private let loadLock = NSLock()
    private let reloadLock = NSLock()
    /// Held for a settlement of use: two at a time would settle the same.
    let settling = NSLock()
    private var key: SigningKey?
    let candidates: CandidateStore
    private var knownJudge: Judge?
    let trustBook = Mutex(TrustBook())
    /// Hashes of libraries that are payloads here.
    let keptLibraries = Mutex<Set<Digest>>([])

    static func now() -> Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

    private struct Serving {
        let generation: Int
        let version: Digest?
        let model: LoadedModel
    }

    /// Takes a home and opens its chains; plugins are loaded when they are first needed.
    ///
    /// - Parameters:
    ///   - manifest: another node manifest than `HOME/node.yaml`.
    ///   - threads: compute threads instead of the manifest's.
    ///   - passphrase: asked when this process signs for itself.
    ///   - rebuildIndex: build the index from the log, and put it in the old one's place if that succeeds.
    ///   - log: gets lines for the operator.
    /// - Throws: ``KernelError`` with code `notFound` if the folder is no home, `held` if another process holds it.
    public init(
        home: URL, manifest path: URL? = nil, rebuildIndex: Bool = false, threads: Int? = nil,
        passphrase: @escaping @Sendable () throws -> [UInt8],
        log: @escaping @Sendable (String) -> Void
    ) throws(KernelError) {
        guard unsafe access(home.appendingPathComponent("node.yaml").path, F_OK) == 0 else {
            if errno == EACCES {
                throw KernelError(
                    .io,
                    "\(home.path) cannot be entered: \(unsafe String(cString: strerror(EACCES)))",
                    hint: "run the command as the user whose home it is, or let this user in")
            }
            throw KernelError(
                .notFound, "\(home.path) is not a home",
                hint: "run `blyan init --home \(home.path)`")
        }
        self.home = home
        homeLock = try HomeLock(home: home)
        let manifest = try NodeManifest(
            path: (path ?? home.appendingPathComponent("node.yaml")).path, home: home.path)
        // What is missing is told now and not in the middle of a request.
        _ = try manifest.promptLibrary()
        // Always there, as a later manifest may turn it on; no payload mapped in another mode asks it.
        remembered = RememberedFiles(
            path: home.appendingPathComponent("verified"), seconds: manifest.rememberSeconds)
        // What waits for its verdict is read first: no block names its payloads yet.
        let candidates = CandidateStore(home: home, now: Self.now())
        self.candidates = candidates
        var unnamed: [Digest] = []
        store = try ChainStore(
            home: home, specs: ChainSpec.all, rebuild: rebuildIndex, remembered: remembered
        ) {
            if !candidates.keeps($0) { unnamed.append($0) }
            return true
        }
        ledger = Ledger(store: store, home: home)
        for repair in store.repairs + ledger.repairs { log("note: \(repair)") }
        do {
            let orphans = try candidates.adopt(unnamed, of: store, now: Self.now())
            for payload in orphans { try store.remove(payload: payload) }
            if !orphans.isEmpty {
                log("note: \(orphans.count) payloads that no block names were removed")
            }
        } catch {
            log("note: \(unnamed.count) payloads that no block names stay: \(error.message)")
        }
        for death in candidates.notes { log("fault: \(death)") }
        if let fault = ledger.fault { log("note: there are no balances: \(fault)") }
        let services = unsafe Kernels.services.merging(GateServices.tables) { own, _ in unsafe own }
        let host = unsafe PluginHost(services: services) { level, plugin, message in
            if level > 0 { log("\(plugin): \(message)") }
        }
        manifestPath = manifest.path
        serving = PluginSet(manifest, host: host)
        self.passphrase = passphrase
        fixedThreads = threads
        hasRebuiltIndex = rebuildIndex
        uses = UsageStore(home: home)
        usage.subscribe(to: messages)
        if let difference = rewardsDifference() { log("note: \(difference)") }
    }

    /// The key that this node signs with, unlocked once.
    ///
    /// - Parameter passphrase: asked if the key is locked; nil = what the node was made with.
    /// - Throws: ``KernelError`` with code `key`; what asking for the passphrase throws.
    public func signingKey(passphrase: (@Sendable () throws -> [UInt8])? = nil) throws -> SigningKey
    {
        if let key = keyLock.withLock({ key }) { return key }
        // A person may take their time to type: nobody else waits for it.
        let secret = try (passphrase ?? self.passphrase)()
        return try keyLock.withLock {
            if let key { return key }
            let opened = try Keystore(home: home).unlock(passphrase: secret)
            key = opened
            return opened
        }
    }

    /// Whether the key is unlocked: then this process signs without asking anybody.
    package var isKeyOpen: Bool { keyLock.withLock { key != nil } }

    /// Whether opening this home built its index from the log.
    public let hasRebuiltIndex: Bool
    /// The node manifest.
    public var manifest: NodeManifest { plugins.node }

    /// Reads the node manifest again and lets new requests have the plugins that it names now.
    ///
    /// All of them are loaded, checked and configured first; requests under way keep those they began with.
    /// A reward policy that is another than the one on chain is written there first.
    /// - Parameter passphrase: asked if the key that signs that block is locked; nil = what the node was made with.
    /// - Returns: The new generation.
    /// - Throws: ``KernelError`` naming the plugin and what mends it; what asking for the passphrase throws. Then nothing
    ///   has changed.
    public func reloadPlugins(passphrase: (@Sendable () throws -> [UInt8])? = nil) throws
        -> PluginSet
    {
        // One at a time: two that begin from one generation would make the same next one.
        reloadLock.lock()
        defer { reloadLock.unlock() }
        let next = try plugins.next(NodeManifest(path: manifestPath, home: home.path))
        try checkRouter(of: next)
        _ = try next.node.promptLibrary()
        try adoptRewards(of: next, passphrase: passphrase)
        remembered.hold(seconds: next.node.rememberSeconds)
        lock.withLock {
            serving = next
            loaded.removeAll()
        }
        messages.publish(
            PluginsReloaded(generation: next.generation, plugins: next.node.plugins),
            to: .pluginsReloaded)
        return next
    }

    /// That the router of `next` takes every model that is served.
    private func checkRouter(of next: PluginSet) throws(KernelError) {
        guard next.node.router != nil else { return }
        let router = try next.router()
        for meta in try store.blocks(.type(chain: "A", "meta")) {
            // A damaged model is not served by any router.
            guard let model = try? catalog.model(meta), model.isComplete else { continue }
            do throws(KernelError) { try router.check(model.document.config) } catch {
                throw KernelError(
                    error.code, "the model \(model.name) would not be served: \(error.message)",
                    hint: error.hint
                        ?? "change \(router.plugin.manifest.path), or the router in \(next.node.path)"
                )
            }
        }
    }

    /// The models of this home.
    public var catalog: ModelCatalog { ModelCatalog(store) }

    /// Lets go of all that is mapped and remembered, since a payload turned out to be damaged, or was mended: later
    /// requests map it again and verify it.
    public func forgetPayloads() {
        remembered.forget()
        lock.withLock { loaded.removeAll() }
    }

    /// The models that are loaded now, by name.
    public var loadedModels: [LoadedModel] {
        lock.withLock { loaded.values.map(\.model) }.sorted { $0.model.name < $1.model.name }
    }

    /// Threads that a model's steps are shared by.
    public var threads: Int {
        let wanted = fixedThreads ?? manifest.threads
        return wanted > 0 ? wanted : ProcessInfo.processInfo.activeProcessorCount
    }

    /// A model that serves, loaded once for a version and a generation of plugins.
    ///
    /// An older version or generation lives as long as the requests that began with it.
    ///
    /// - Throws: ``ModelError`` if there is no such model or it is incomplete; ``KernelError``.
    public func model(_ name: String?) throws -> LoadedModel {
        try model(catalog.model(named: name), keeps: true)
    }

    /// A version of a model.
    ///
    /// - Parameters:
    ///   - keeps: it serves whoever asks next; an older version serves its caller alone.
    ///   - router: another one than requests get.
    private func model(
        _ found: CatalogModel, keeps: Bool, by router: RouterPlugin? = nil
    ) throws -> LoadedModel {
        loadLock.lock()
        defer { loadLock.unlock() }
        let plugins = plugins
        let manifest = plugins.node
        let version = found.version?.hash
        let isServed = router.map { $0.plugin === (try? plugins.router().plugin) } ?? true
        if isServed, let known = lock.withLock({ loaded[found.meta.hash] }),
            known.generation == plugins.generation, known.version == version
        {
            return known.model
        }
        let mode: VerifyMode =
            switch manifest.verify {
            case .always: .always
            case .touch: .touch
            case .remember: .remember
            }
        let (messages, uses) = (messages, uses)
        let model = try LoadedModel(
            found, store: store, mode: mode, budget: manifest.cacheBudget, threads: threads,
            library: manifest.promptLibrary(),
            format: { [plugins] in try plugins.format(for: $0) },
            router: { [plugins] in try router ?? plugins.router() },
            onLoad: {
                uses.count($0)
                messages.publish($0, to: .expertLoaded)
            },
            onUse: {
                uses.count($0)
                messages.publish($0, to: .expertsUsed)
            })
        lock.withLock {
            // A reload in between has dropped what was there: this one then serves its request alone.
            guard keeps, serving.generation == plugins.generation else { return }
            loaded[found.meta.hash] = Serving(
                generation: plugins.generation, version: version, model: model)
        }
        return model
    }

    /// Who judges candidates in this home, made when it is first needed.
    ///
    /// - Parameter passphrase: asked if the key that signs verdicts is locked; nil = what the node was made with.
    /// - Throws: ``KernelError`` if log or index are damaged.
    package func judge(passphrase: (@Sendable () throws -> [UInt8])? = nil) throws -> Judge {
        if let passphrase { _ = try signingKey(passphrase: passphrase) }
        return try keyLock.withLock {
            if let knownJudge { return knownJudge }
            let messages = messages
            let made = try Judge(
                Judge.Host(
                    store: store, key: { [unowned self] in try signingKey() },
                    plugins: { [unowned self] in plugins },
                    model: { [unowned self] in try model($0, keeps: false, by: $1) },
                    threads: threads,
                    clock: { Self.now() },
                    onStored: { messages.publish(BlockStored($0), to: .blockStored) },
                    onJudged: {
                        messages.publish(CandidateJudged($0, $1), to: .candidateJudged)
                    },
                    payer: { [unowned self] in payer() },
                    append: { [unowned self] in try append($0, paying: $1) },
                    revert: { [unowned self] in try append($0, takingBack: $1) },
                    // Its first policy block would else move the place that the record is made for.
                    prepare: { [unowned self] in _ = try rewardPolicy(for: $0) },
                    admit: { [unowned self] in try admit(author: $0) }),
                candidates: candidates)
            knownJudge = made
            return made
        }
    }

    /// Writes the gates and the router that are enabled now as the policy that candidates are judged by, if there is a policy and
    /// it has others.
    ///
    /// - Returns: The policy block, durable; nil if nothing changed.
    /// - Throws: What loading these plugins, signing or appending throws.
    package func adoptPolicy(passphrase: (@Sendable () throws -> [UInt8])? = nil) throws -> Block? {
        let judge = try judge()
        guard let current = try judge.currentPolicy(), try !current.policy.isOf(plugins) else {
            return nil
        }
        return try self.judge(passphrase: passphrase ?? self.passphrase).adoptPolicy()
    }

    /// Runs what writes payloads before blocks name them: no payload is deleted meanwhile.
    public func holdingPayloads<R>(_ body: () throws -> R) rethrows -> R {
        try candidates.holdingPayloads(body)
    }

    /// Deletes payloads of rejected candidates beyond the budget of bytes and age, as each judgement does.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func prunePayloads() throws { try judge().prune() }

    /// Before the process ends while commands run that did not end when told: no plugin is to blame for that.
    public func leave() { candidates.leaves() }

    /// Gives the home back: keeps what is durable, and writes what was counted.
    public func close() {
        try? uses.close()
        ledger.close()
        store.close()
    }
}

extension NodeManifest {
    /// Seconds that a check is remembered for; 0 where it is not.
    fileprivate var rememberSeconds: Int {
        if case .remember(let seconds) = verify { seconds } else { 0 }
    }
}

/// New requests get other plugins.
public struct PluginsReloaded: Sendable {
    /// The new generation.
    public let generation: Int
    /// The plugins of it that are enabled.
    public let plugins: [String]
}

extension Topic<PluginsReloaded> {
    /// New requests get other plugins.
    public static var pluginsReloaded: Self { Topic("plugins.reloaded") }
}

/// A block is durable.
public struct BlockStored: Sendable {
    /// The block.
    public let block: Block

    /// Makes a message.
    public init(_ block: Block) { self.block = block }
}

extension Topic<BlockStored> {
    /// A block is durable.
    public static var blockStored: Self { Topic("block.stored") }
}

/// A judgement of a candidate has ended: with an outcome, or with an error, after which the candidate waits on.
public struct CandidateJudged: Sendable {
    /// The candidate.
    public let candidate: Block
    /// "accept", "reject" or "defer", and why; or what went wrong.
    package let result: Result<Judge.Judgement, any Error>

    package init(_ candidate: Block, _ result: Result<Judge.Judgement, any Error>) {
        self.candidate = candidate
        self.result = result
    }
}

extension Topic<CandidateJudged> {
    /// A judgement of a candidate has ended.
    public static var candidateJudged: Self { Topic("candidate.judged") }
}

extension Topic<LoadedModel.ExpertLoaded> {
    /// An expert was mapped.
    public static var expertLoaded: Self { Topic("expert.loaded") }
}

extension Topic<LoadedModel.ExpertsUsed> {
    /// Experts served a request, or a part of it.
    public static var expertsUsed: Self { Topic("expert.used") }
}
