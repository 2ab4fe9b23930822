public import BlyanKernel
public import CBlyanPlugin

// Safe and Sendable: the tables are static and belong to the plugin that is held.
/// A payload format as the model uses it: typed calls, and nothing believed that was not checked.
///
/// Any thread.
@safe public struct FormatPlugin: @unchecked Sendable {
    /// The plugin behind it.
    public let plugin: LoadedPlugin
    private let decoder: UnsafePointer<blyan_format_decode>
    private let viewer: UnsafePointer<blyan_format_view>?
    private let computer: UnsafePointer<blyan_format_compute>?
    private let encoder: UnsafePointer<blyan_format_encode>?

    /// The format in a loaded plugin.
    ///
    /// - Throws: ``KernelError/Code/plugin`` if the plugin is of another kind.
    public init(_ plugin: LoadedPlugin) throws(KernelError) {
        guard let decoder = unsafe plugin.table(BLYAN_FORMAT_DECODE, as: blyan_format_decode.self)
        else {
            throw KernelError(
                .plugin,
                "plugin \(plugin.manifest.name) is a \(plugin.manifest.kind.rawValue), "
                    + "expected a format")
        }
        self.plugin = plugin
        unsafe self.decoder = decoder
        unsafe viewer = plugin.table(BLYAN_FORMAT_VIEW, as: blyan_format_view.self)
        unsafe computer = plugin.table(BLYAN_FORMAT_COMPUTE, as: blyan_format_compute.self)
        unsafe encoder = plugin.table(BLYAN_FORMAT_ENCODE, as: blyan_format_encode.self)
    }

    /// Whether the host can multiply on the mapped bytes.
    public var canView: Bool { unsafe viewer != nil }
    /// Whether the plugin computes experts itself.
    public var canCompute: Bool { unsafe computer != nil }
    /// Whether the plugin writes payloads.
    public var canEncode: Bool { unsafe encoder != nil }

    /// The tensors of a payload, with their places in it where the format offers `view`.
    ///
    /// - Throws: ``KernelError/Code/malformed`` naming tensor, found and expected; integrity and io errors of
    ///   the payload as they are.
    public func describe(_ payload: any PayloadBytes) throws(KernelError) -> [TensorDescription] {
        let raw = try unsafe PayloadView(payload).lend { payload throws(KernelError) in
            // Payloads have few tensors: the first guess nearly always holds.
            try unsafe list(payload, capacity: 16)
        }
        var names: Set<String> = []
        var tensors: [TensorDescription] = []
        for tensor in raw {
            let checked = try TensorDescription(tensor, payloadSize: payload.size)
            guard names.insert(checked.name).inserted else {
                throw KernelError(.malformed, "tensor \(checked.name) stands twice in one payload")
            }
            tensors.append(checked)
        }
        return tensors
    }

    private func list(
        _ payload: UnsafePointer<blyan_payload>, capacity: Int
    ) throws(KernelError) -> [blyan_tensor] {
        var empty = blyan_tensor()
        empty.struct_size = UInt32(MemoryLayout<blyan_tensor>.size)
        var tensors = [blyan_tensor](repeating: empty, count: capacity)
        var count: UInt32 = 0
        var full = false
        let instance = unsafe plugin.instance
        try plugin.call("describe") { error in
            let size = UInt32(tensors.count)
            let status =
                if let viewer = unsafe viewer {
                    unsafe viewer.pointee.describe(
                        instance, payload, &tensors, size, &count, &error)
                } else {
                    unsafe decoder.pointee.list(instance, payload, &tensors, size, &count, &error)
                }
            full = status == BLYAN_E_CAPACITY && count > size
            return full ? blyan_status(BLYAN_OK) : status
        }
        guard count <= TensorDescription.countLimit else {
            throw KernelError(
                .limit,
                "a payload has \(count) tensors, at most \(TensorDescription.countLimit) are read")
        }
        if full {
            guard capacity < TensorDescription.countLimit else {
                throw KernelError(
                    .plugin, "plugin \(plugin.manifest.name) changes its tensor count")
            }
            // Twice is enough for a plugin that keeps its word; the limit ends it for one that does not.
            return try unsafe list(payload, capacity: max(Int(count), capacity * 2))
        }
        guard count <= capacity else {
            throw KernelError(
                .plugin, "plugin \(plugin.manifest.name) counts \(count) of \(capacity)")
        }
        return Array(tensors.prefix(Int(count)))
    }

    /// Rows of a tensor as f32, row after row.
    ///
    /// - Parameters:
    ///   - index: its place in what ``describe(_:)`` answered.
    ///   - out: exactly rows × columns floats.
    public func decode(
        _ payload: any PayloadBytes, tensor: TensorDescription, index: Int, rows: Range<Int>,
        into out: UnsafeMutableBufferPointer<Float>
    ) throws(KernelError) {
        let (count, overflow) = rows.count.multipliedReportingOverflow(by: tensor.columns)
        guard rows.lowerBound >= 0, rows.upperBound <= tensor.rows, !overflow, out.count == count,
            let number = UInt32(exactly: index)
        else {
            throw KernelError(
                .plugin, "decode of rows \(rows) of \(tensor.name) into \(out.count) floats")
        }
        try unsafe PayloadView(payload).lend { view throws(KernelError) in
            try plugin.call("decode") { error in
                unsafe decoder.pointee.decode(
                    plugin.instance, view, number, UInt64(rows.lowerBound),
                    UInt64(rows.upperBound), out.baseAddress, &error)
            }
        }
    }

    /// Does one stage of an expert for one row range; false where the plugin leaves it to the host.
    public func compute(
        _ payload: any PayloadBytes, _ work: blyan_compute
    ) throws(KernelError) -> Bool {
        guard let computer = unsafe computer else { return false }
        var done = true
        try unsafe PayloadView(payload).lend { view throws(KernelError) in
            var work = unsafe work
            unsafe work.struct_size = UInt32(MemoryLayout<blyan_compute>.size)
            try plugin.call("compute") { error in
                let status = unsafe computer.pointee.compute(plugin.instance, view, &work, &error)
                done = status != BLYAN_E_UNSUPPORTED
                return done ? status : blyan_status(BLYAN_OK)
            }
        }
        return done
    }

    // Safe: only pointers with their counts, read during `encode` alone.
    /// A tensor to write; bytes are row-major, contiguous, little-endian, and valid during the call.
    @safe public struct Source {
        let name: String, dtype: UInt32, rows: Int, columns: Int
        let data: UnsafeRawBufferPointer, scales: UnsafeRawBufferPointer

        /// Makes a source; `scales` holds one f32 a row for int8, else nothing.
        public init(
            name: String, dtype: UInt32, rows: Int, columns: Int, data: UnsafeRawBufferPointer,
            scales: UnsafeRawBufferPointer
        ) {
            self.name = name
            self.dtype = dtype
            self.rows = rows
            self.columns = columns
            unsafe self.data = unsafe data
            unsafe self.scales = unsafe scales
        }
    }

    /// Writes one payload.
    ///
    /// - Parameters:
    ///   - options: JSON that the plugin knows, e.g. `{"quantise":"int8"}`.
    ///   - sink: gets the bytes in order.
    /// - Returns: what is to be signed: which bytes the Merkle leaves cover, and where their hashes lie.
    public func encode(
        _ sources: [Source], options: String, into sink: any PayloadSink
    ) throws(KernelError) -> blyan_encoded {
        guard let encoder = unsafe encoder else {
            throw KernelError(.plugin, "plugin \(plugin.manifest.name) does not write payloads")
        }
        return try unsafe SinkView(sink).lend { view throws(KernelError) in
            var encoded = blyan_encoded()
            encoded.struct_size = UInt32(MemoryLayout<blyan_encoded>.size)
            try plugin.call("encode") { error in
                unsafe SourceTable(sources).lend { table, count in
                    unsafe withText(options) { text in
                        unsafe encoder.pointee.encode(
                            plugin.instance, table, count, text, view, &encoded, &error)
                    }
                }
            }
            return encoded
        }
    }
}

/// Text as a C view, for the length of the call.
func withText<R>(_ text: String, _ body: (blyan_string) -> R) -> R {
    var text = text
    return text.withUTF8 { bytes in
        unsafe body(
            blyan_string(
                data: UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self),
                size: UInt64(bytes.count)))
    }
}
