internal import CBlyanPlugin

extension PluginTable {
    /// The table of a router.
    public static func router<R: Router>(_: R.Type) -> PluginTable {
        unsafe RouterFunctions.shared = RouterFunctions(R.self)
        let ability = unsafe Ability(
            blyan_router(
                struct_size: UInt32(MemoryLayout<blyan_router>.size), reserved: 0,
                open: { instance, model, out, error in
                    unsafe answer(error) { () throws(PluginError) in
                        guard let model = unsafe model, let out = unsafe out else {
                            throw PluginError(BLYAN_E_ARGUMENT, "open got a null pointer")
                        }
                        let request = try unsafe RouterFunctions.get().open(
                            instance, RouterModel(model.pointee))
                        unsafe out.pointee = Unmanaged.passRetained(request).toOpaque()
                    }
                },
                clone: { instance, request, out, error in
                    unsafe answer(error) { () throws(PluginError) in
                        guard let request = unsafe request, let out = unsafe out else {
                            throw PluginError(BLYAN_E_ARGUMENT, "clone got a null pointer")
                        }
                        let state = unsafe Unmanaged<AnyObject>.fromOpaque(request)
                        let copy = try unsafe RouterFunctions.get().clone(
                            instance, state.takeUnretainedValue())
                        unsafe out.pointee = Unmanaged.passRetained(copy).toOpaque()
                    }
                },
                close: { _, request in
                    guard let request = unsafe request else { return }
                    unsafe Unmanaged<AnyObject>.fromOpaque(request).release()
                },
                route: { instance, route, error in
                    unsafe answer(error) { () throws(PluginError) in
                        guard let route = unsafe route else {
                            throw PluginError(BLYAN_E_ARGUMENT, "route got a null pointer")
                        }
                        try unsafe RouterFunctions.get().route(instance, route.pointee)
                    }
                }))
        return unsafe PluginTable(R.self, kind: Int(BLYAN_KIND_ROUTER)) { id in
            unsafe id == BLYAN_ROUTER_ROUTE ? ability.table : nil
        }
    }
}

extension RouterModel {
    init(_ model: blyan_router_model) {
        self.init(
            layers: Int(model.layers), experts: Int(model.experts),
            expertsPerToken: Int(model.experts_per_token), normalises: model.normalise != 0)
    }
}

// Safe: the closures are given pointers only by the C functions above, which got them from the host.
/// A router's calls with its types behind closures.
@safe private struct RouterFunctions: Sendable {
    typealias Handle = UnsafeMutableRawPointer?
    let open: @Sendable (Handle, RouterModel) throws(PluginError) -> AnyObject
    let clone: @Sendable (Handle, AnyObject) throws(PluginError) -> AnyObject
    let route: @Sendable (Handle, blyan_route) throws(PluginError) -> Void

    // Written once, before the plugin's table is handed out.
    nonisolated(unsafe) static var shared: RouterFunctions?

    static func get() throws(PluginError) -> RouterFunctions {
        guard let shared = unsafe shared else {
            throw PluginError(BLYAN_E_INTERNAL, "the router was not registered")
        }
        return shared
    }

    init<R: Router>(_: R.Type) {
        unsafe open = { handle, model throws(PluginError) in
            try unsafe RoutedRequest(
                Instance.plugin(handle, as: R.self).open(model), experts: model.experts)
        }
        unsafe clone = { handle, request throws(PluginError) in
            let old = unsafe unsafeDowncast(request, to: RoutedRequest<R.Request>.self)
            return try unsafe RoutedRequest(
                Instance.plugin(handle, as: R.self).clone(old.state), experts: old.experts)
        }
        unsafe route = { handle, route throws(PluginError) in
            let router = try unsafe Instance.plugin(handle, as: R.self)
            let slots = unsafe Int(route.slots)
            var start = 0
            for row in unsafe 0..<Int(route.rows) {
                guard let request = unsafe route.requests[row] else {
                    throw PluginError(BLYAN_E_ARGUMENT, "row \(row) has no request")
                }
                let state = unsafe unsafeDowncast(
                    Unmanaged<AnyObject>.fromOpaque(request).takeUnretainedValue(),
                    to: RoutedRequest<R.Request>.self)
                let logits = unsafe Span(_unsafeStart: route.logits + start, count: state.experts)
                start += state.experts
                var ids = unsafe MutableSpan(_unsafeStart: route.ids + row * slots, count: slots)
                var weights = unsafe MutableSpan(
                    _unsafeStart: route.weights + row * slots, count: slots)
                ids.update(repeating: BLYAN_NO_EXPERT)
                weights.update(repeating: 0)
                try unsafe router.route(
                    logits, request: state.state, layer: route.layer,
                    position: route.positions[row], ids: &ids, weights: &weights)
            }
        }
    }
}

/// What a request handle points at: the router's state, and how long a row of logits is.
private final class RoutedRequest<State: AnyObject> {
    let state: State
    let experts: Int

    init(_ state: State, experts: Int) {
        self.state = state
        self.experts = experts
    }
}
