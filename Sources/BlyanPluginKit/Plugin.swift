/// A plugin of any kind, made once by the host and used from then on.
public protocol Plugin: AnyObject, Sendable {
    /// As in the manifest: `[a-z0-9-]{1,64}`.
    static var name: String { get }
    /// As in the manifest: SemVer.
    static var version: String { get }
    /// JSON Schema of the configuration.
    static var configSchema: String { get }
    /// Makes an instance. `config` is JSON that already agrees with ``configSchema``.
    ///
    /// - Throws: `BLYAN_E_CONFIG` for what a schema cannot say.
    init(host: HostServices, config: String) throws(PluginError)
    /// Checks itself on data of its own in under a second.
    func selfTest() throws(PluginError)
}

/// A plugin of kind router: picks experts and weights from the logits that the host computed.
public protocol Router: Plugin {
    /// The state of one request; used by one call at a time.
    associatedtype Request: AnyObject
    /// Opens the state of one request. Any thread.
    func open(_ model: RouterModel) throws(PluginError) -> Request
    /// A second request that continues from the same state. Serial per request.
    func clone(_ request: Request) throws(PluginError) -> Request
    /// Routes one row: fills `ids` and `weights`, one slot each, initially `BLYAN_NO_EXPERT` and 0.
    ///
    /// Rows of one request come in the order of their positions. Serial per request, any thread across requests.
    /// - Parameters:
    ///   - logits: one a expert.
    ///   - position: of the token in its request, from 0.
    func route(
        _ logits: Span<Float>, request: Request, layer: UInt32, position: UInt64,
        ids: inout MutableSpan<UInt32>, weights: inout MutableSpan<Float>) throws(PluginError)
}

/// What the checkpoint says of routing.
public struct RouterModel: Sendable, Equatable {
    /// Layers of the model.
    public var layers: Int
    /// Experts a layer.
    public var experts: Int
    /// Slots k: experts that serve a token, from 1 to all of them.
    public var expertsPerToken: Int
    /// Whether the weights of the picked experts are divided by their sum.
    public var normalises: Bool

    /// Makes a description.
    public init(layers: Int, experts: Int, expertsPerToken: Int, normalises: Bool) {
        self.layers = layers
        self.experts = experts
        self.expertsPerToken = expertsPerToken
        self.normalises = normalises
    }
}
