public import BlyanKernel
internal import CBlyanPlugin

// Safe and Sendable: the table is static and belongs to the plugin that is held.
/// A router as the model uses it: typed calls, and nothing believed that was not checked.
///
/// Any thread, but the calls of one request one at a time.
@safe public struct RouterPlugin: @unchecked Sendable {
    /// The plugin behind it.
    public let plugin: LoadedPlugin
    private let table: UnsafePointer<blyan_router>

    /// The router in a loaded plugin.
    ///
    /// - Throws: ``KernelError/Code/plugin`` if the plugin is of another kind.
    public init(_ plugin: LoadedPlugin) throws(KernelError) {
        guard let table = unsafe plugin.table(BLYAN_ROUTER_ROUTE, as: blyan_router.self) else {
            throw KernelError(
                .plugin,
                "plugin \(plugin.manifest.name) is a \(plugin.manifest.kind.rawValue), "
                    + "expected a router")
        }
        self.plugin = plugin
        unsafe self.table = table
    }

    // Safe and Sendable: the handle is the plugin's; calls of one request come one at a time, by contract.
    /// What the router remembers of one request.
    ///
    /// Ends when the last reference goes.
    @safe public final class Request: @unchecked Sendable {
        fileprivate let router: RouterPlugin
        fileprivate let handle: UnsafeMutableRawPointer?
        /// Experts a layer, experts that serve a token, and layers, as opened.
        public let experts: Int, slots: Int, layers: Int

        fileprivate init(
            _ router: RouterPlugin, _ handle: UnsafeMutableRawPointer?, experts: Int, slots: Int,
            layers: Int
        ) {
            self.router = router
            unsafe self.handle = handle
            self.experts = experts
            self.slots = slots
            self.layers = layers
        }

        deinit { unsafe router.table.pointee.close(router.plugin.instance, handle) }

        /// A second request that continues from the same state.
        public func clone() throws(KernelError) -> Request {
            var copy: UnsafeMutableRawPointer?
            try router.plugin.call("clone") { error in
                unsafe router.table.pointee.clone(router.plugin.instance, handle, &copy, &error)
            }
            return unsafe Request(router, copy, experts: experts, slots: slots, layers: layers)
        }
    }

    /// Opens the state of one request.
    ///
    /// - Parameters:
    ///   - layers: layers of the model.
    ///   - experts: experts a layer.
    ///   - slots: experts that serve a token.
    ///   - normalises: whether the weights of the picked experts are divided by their sum.
    public func open(
        layers: Int, experts: Int, slots: Int, normalises: Bool
    ) throws(KernelError) -> Request {
        guard let layerCount = UInt32(exactly: layers), let expertCount = UInt32(exactly: experts),
            let slotCount = UInt32(exactly: slots), (1...max(1, experts)).contains(slots)
        else {
            throw KernelError(
                .limit, "a model of \(layers) layers, \(experts) experts and \(slots) a token")
        }
        var model = blyan_router_model(
            struct_size: UInt32(MemoryLayout<blyan_router_model>.size), layers: layerCount,
            experts: expertCount, experts_per_token: slotCount, normalise: normalises ? 1 : 0,
            reserved: 0)
        var handle: UnsafeMutableRawPointer?
        try plugin.call("open") { error in
            unsafe table.pointee.open(plugin.instance, &model, &handle, &error)
        }
        return unsafe Request(self, handle, experts: experts, slots: slots, layers: layers)
    }

    /// The experts of a batch of rows, `slots` each.
    public struct Choice: Sendable {
        /// Slots a row.
        public let slots: Int
        /// Expert ids, rows × slots; `BLYAN_NO_EXPERT` in an empty slot.
        public let ids: [UInt32]
        /// Finite and not negative, rows × slots; 0 in an empty slot.
        public let weights: [Float]
    }

    /// Routes one layer of one step: one call for all rows.
    ///
    /// - Parameters:
    ///   - logits: rows × experts, as the router matrix gave them.
    ///   - requests: the request of each row, all opened for the same model by this router; rows of one request
    ///     come in the order of their positions.
    ///   - positions: each row's position in its request.
    /// - Throws: ``KernelError/Code/plugin`` for an id out of range or picked twice, or a bad weight.
    public func route(
        layer: Int, logits: UnsafeBufferPointer<Float>, requests: [Request], positions: [UInt64]
    ) throws(KernelError) -> Choice {
        let slots = requests.first?.slots ?? 0
        var ids = [UInt32](repeating: BLYAN_NO_EXPERT, count: requests.count * slots)
        var weights = [Float](repeating: 0, count: requests.count * slots)
        let result = unsafe ids.withUnsafeMutableBufferPointer { ids in
            unsafe weights.withUnsafeMutableBufferPointer { weights in
                Result { () throws(KernelError) in
                    try unsafe route(
                        layer: layer, logits: logits, requests: requests, positions: positions,
                        ids: ids, weights: weights)
                }
            }
        }
        try result.get()
        return Choice(slots: slots, ids: ids, weights: weights)
    }

    /// As ``route(layer:logits:requests:positions:)``, into the caller's rows × slots.
    public func route(
        layer: Int, logits: UnsafeBufferPointer<Float>, requests: [Request], positions: [UInt64],
        ids: UnsafeMutableBufferPointer<UInt32>, weights: UnsafeMutableBufferPointer<Float>
    ) throws(KernelError) {
        guard let first = requests.first, let layerNumber = UInt32(exactly: layer),
            let rows = UInt32(exactly: requests.count), positions.count == requests.count,
            layer < first.layers, logits.count == requests.count * first.experts,
            requests.allSatisfy({ $0.experts == first.experts && $0.slots == first.slots }),
            ids.count == requests.count * first.slots, weights.count == ids.count
        else {
            throw KernelError(
                .plugin,
                "router \(plugin.manifest.name): \(logits.count) logits and \(positions.count) positions "
                    + "for \(requests.count) rows of layer \(layer) do not fit")
        }
        let handles = unsafe requests.map { unsafe $0.handle }
        try plugin.call("route") { error in
            unsafe handles.withUnsafeBufferPointer { handles in
                unsafe positions.withUnsafeBufferPointer { positions in
                    var route = unsafe blyan_route(
                        struct_size: UInt32(MemoryLayout<blyan_route>.size), layer: layerNumber,
                        rows: rows, slots: UInt32(first.slots), logits: logits.baseAddress,
                        requests: handles.baseAddress, positions: positions.baseAddress,
                        ids: ids.baseAddress, weights: weights.baseAddress)
                    return unsafe table.pointee.route(plugin.instance, &route, &error)
                }
            }
        }
        withExtendedLifetime(requests) {}
        try unsafe check(ids, weights, first, layer: layer)
    }

    private func check(
        _ ids: UnsafeMutableBufferPointer<UInt32>, _ weights: UnsafeMutableBufferPointer<Float>,
        _ model: Request, layer: Int
    ) throws(KernelError) {
        for i in ids.indices {
            let id = unsafe ids[i], weight = unsafe weights[i], row = i / model.slots
            func refuse(_ what: String) -> KernelError {
                KernelError(
                    .plugin, "router \(plugin.manifest.name), layer \(layer), row \(row): \(what)")
            }
            guard weight.isFinite, weight >= 0 else { throw refuse("weight \(weight)") }
            if id == BLYAN_NO_EXPERT {
                guard weight == 0 else { throw refuse("an empty slot has weight \(weight)") }
                continue
            }
            guard id < model.experts else { throw refuse("expert \(id) of \(model.experts)") }
            guard unsafe !ids[row * model.slots..<i].contains(id) else {
                throw refuse("expert \(id) is picked twice")
            }
        }
    }
}
