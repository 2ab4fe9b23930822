internal import CBlyanPlugin

extension PluginTable {
    /// The table of a format; `decode` is offered always, the rest as named.
    public static func format<F: Format>(_: F.Type, abilities: Set<FormatAbility>) -> PluginTable {
        unsafe FormatFunctions.shared = FormatFunctions(F.self)
        var tables = [BLYAN_FORMAT_DECODE: Ability(decodeTable())]
        if abilities.contains(.view) { tables[BLYAN_FORMAT_VIEW] = Ability(viewTable()) }
        if abilities.contains(.compute) { tables[BLYAN_FORMAT_COMPUTE] = Ability(computeTable()) }
        if abilities.contains(.encode) { tables[BLYAN_FORMAT_ENCODE] = Ability(encodeTable()) }
        let offered = tables
        return unsafe PluginTable(F.self, kind: Int(BLYAN_KIND_FORMAT)) { id in
            unsafe offered[id]?.table
        }
    }
}

private func viewTable() -> blyan_format_view {
    unsafe blyan_format_view(
        struct_size: UInt32(MemoryLayout<blyan_format_view>.size), reserved: 0,
        describe: { unsafe listTensors($0, $1, $2, $3, $4, $5) })
}

private func decodeTable() -> blyan_format_decode {
    unsafe blyan_format_decode(
        struct_size: UInt32(MemoryLayout<blyan_format_decode>.size), reserved: 0,
        list: { unsafe listTensors($0, $1, $2, $3, $4, $5) },
        decode: { instance, payload, index, begin, end, out, error in
            unsafe answer(error) { () throws(PluginError) in
                guard let payload = unsafe payload, begin <= end, unsafe out != nil || begin == end
                else {
                    throw PluginError(BLYAN_E_ARGUMENT, "decode got a null pointer or bad rows")
                }
                try unsafe FormatFunctions.get().decode(
                    instance, Payload(payload), Int(index), begin..<end, out)
            }
        })
}

private func computeTable() -> blyan_format_compute {
    unsafe blyan_format_compute(
        struct_size: UInt32(MemoryLayout<blyan_format_compute>.size), reserved: 0,
        compute: { instance, payload, work, error in
            unsafe answer(error) { () throws(PluginError) in
                guard let payload = unsafe payload, let work = unsafe work else {
                    throw PluginError(BLYAN_E_ARGUMENT, "compute got a null pointer")
                }
                try unsafe FormatFunctions.get().compute(instance, Payload(payload), work.pointee)
            }
        })
}

private func encodeTable() -> blyan_format_encode {
    unsafe blyan_format_encode(
        struct_size: UInt32(MemoryLayout<blyan_format_encode>.size), reserved: 0,
        encode: { instance, sources, count, options, sink, encoded, error in
            unsafe answer(error) { () throws(PluginError) in
                guard let sink = unsafe sink, let encoded = unsafe encoded else {
                    throw PluginError(BLYAN_E_ARGUMENT, "encode got a null pointer")
                }
                var list = unsafe [blyan_source]()
                for i in 0..<Int(count) {
                    guard let source = unsafe sources?[i] else {
                        throw PluginError(BLYAN_E_ARGUMENT, "source \(i) is null")
                    }
                    unsafe list.append(source.pointee)
                }
                let result = try unsafe FormatFunctions.get().encode(
                    instance, list, string(options), Sink(sink))
                unsafe encoded.pointee.covered = result.covered
                unsafe encoded.pointee.leaf_size = result.leafSize
                unsafe encoded.pointee.leaf_hashes_offset = result.leafHashesOffset
            }
        })
}

private func listTensors(
    _ instance: UnsafeMutableRawPointer?, _ payload: UnsafePointer<blyan_payload>?,
    _ out: UnsafeMutablePointer<blyan_tensor>?, _ capacity: UInt32,
    _ count: UnsafeMutablePointer<UInt32>?, _ error: UnsafeMutablePointer<blyan_error>?
) -> blyan_status {
    unsafe answer(error) { () throws(PluginError) in
        guard let payload = unsafe payload, let count = unsafe count else {
            throw PluginError(BLYAN_E_ARGUMENT, "describe got a null pointer")
        }
        let tensors = try unsafe FormatFunctions.get().list(instance, Payload(payload))
        unsafe count.pointee = UInt32(clamping: tensors.count)
        for (i, tensor) in tensors.enumerated() where i < Int(capacity) {
            guard let slot = unsafe out.map({ unsafe $0 + i }),
                unsafe Int(slot.pointee.struct_size) == MemoryLayout<blyan_tensor>.size
            else { throw PluginError(BLYAN_E_ARGUMENT, "tensor slot \(i) is of another ABI") }
            unsafe slot.pointee = tensor
        }
        guard tensors.count <= Int(capacity) else {
            throw PluginError(BLYAN_E_CAPACITY, "\(tensors.count) tensors")
        }
    }
}

// Safe: the closures are given pointers only by the C functions above, which got them from the host.
/// A format's calls with its type behind closures.
@safe private struct FormatFunctions: Sendable {
    typealias Handle = UnsafeMutableRawPointer?
    let list: @Sendable (Handle, borrowing Payload) throws(PluginError) -> [blyan_tensor]
    let decode:
        @Sendable (
            Handle, borrowing Payload, Int, Range<UInt64>, UnsafeMutablePointer<Float>?
        ) throws(PluginError) -> Void
    let compute: @Sendable (Handle, borrowing Payload, blyan_compute) throws(PluginError) -> Void
    let encode: @Sendable (Handle, [blyan_source], String, Sink) throws(PluginError) -> Encoded

    // Written once, before the plugin's table is handed out.
    nonisolated(unsafe) static var shared: FormatFunctions?

    static func get() throws(PluginError) -> FormatFunctions {
        guard let shared = unsafe shared else {
            throw PluginError(BLYAN_E_INTERNAL, "the format was not registered")
        }
        return shared
    }

    init<F: Format>(_: F.Type) {
        unsafe list = { handle, payload throws(PluginError) in
            try unsafe Instance.plugin(handle, as: F.self).list(payload)
        }
        unsafe decode = { handle, payload, index, rows, out throws(PluginError) in
            let format = try unsafe Instance.plugin(handle, as: F.self)
            // The caller's buffer has rows * columns floats: columns come from the format's own list.
            let tensors = try format.list(payload)
            guard tensors.indices.contains(index), rows.upperBound <= tensors[index].rows else {
                throw PluginError(BLYAN_E_ARGUMENT, "tensor \(index) has no rows \(rows)")
            }
            let (count, overflow) = UInt64(rows.count)
                .multipliedReportingOverflow(by: tensors[index].columns)
            guard !overflow, let size = Int(exactly: count) else {
                throw PluginError(BLYAN_E_LIMIT, "rows \(rows) are too many for memory")
            }
            try unsafe format.decode(
                payload, index: index, rows: rows,
                into: UnsafeMutableBufferPointer(start: out, count: size))
        }
        unsafe compute = { handle, payload, work throws(PluginError) in
            try unsafe Instance.plugin(handle, as: F.self).compute(payload, work)
        }
        unsafe encode = { handle, sources, options, sink throws(PluginError) in
            try unsafe Instance.plugin(handle, as: F.self)
                .encode(sources, options: options, into: sink)
        }
    }
}
