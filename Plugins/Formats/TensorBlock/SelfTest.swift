internal import BlyanPluginKit
internal import CBlyanPlugin

/// Writes a small payload to memory, reads it back and compares.
struct SelfTest {
    private let format: TensorBlock

    init(_ format: TensorBlock) { self.format = format }

    func run() throws(PluginError) {
        let values = (0..<15).map { Float($0 - 7) / 4 }
        for order in [Order.rows, .columns] {
            let layout = order == .rows ? "rows" : "columns"
            let kept = try Self.written(format, values, #"{"layout": "\#(layout)"}"#)
            guard try decoded(kept) == values else {
                throw PluginError(
                    BLYAN_E_INTERNAL, "f32 in \(layout) does not come back as written")
            }
            let small = try Self.written(
                format, values, #"{"quantise": "int8", "layout": "\#(layout)"}"#)
            for (found, value) in zip(try decoded(small), values)
            where abs(found - value) > 1.75 / 254 * 1.000_001 {
                throw PluginError(
                    BLYAN_E_INTERNAL, "int8 in \(layout): \(found), expected about \(value)")
            }
        }
    }

    /// The payload of one matrix of 3 x 5 f32.
    private static func written(
        _ format: TensorBlock, _ values: [Float], _ options: String
    ) throws(PluginError) -> [UInt8] {
        let sink = MemorySink()
        let result = unsafe values.withUnsafeBytes { data in
            Result { () throws(PluginError) in
                let name = UnsafeMutablePointer<CChar>.allocate(capacity: 1)
                unsafe name.initialize(to: CChar(UInt8(ascii: "a")))
                defer { unsafe name.deallocate() }
                let source = unsafe blyan_source(
                    struct_size: UInt32(MemoryLayout<blyan_source>.size),
                    dtype: Element.f32.rawValue, rows: 3, columns: 5,
                    name: blyan_string(data: name, size: 1),
                    data: blyan_bytes(
                        data: data.baseAddress?.assumingMemoryBound(to: UInt8.self),
                        size: UInt64(data.count)),
                    scales: blyan_bytes())
                var table = unsafe sink.table()
                _ = try unsafe withUnsafePointer(to: &table) { table throws(PluginError) in
                    try unsafe format.encode([source], options: options, into: Sink(table))
                }
            }
        }
        try result.get()
        return sink.bytes
    }

    private func decoded(_ payload: [UInt8]) throws(PluginError) -> [Float] {
        let memory = MemoryPayload(payload)
        var values = [Float](repeating: .nan, count: 15)
        var table = unsafe memory.table()
        let result = unsafe withUnsafePointer(to: &table) { table in
            unsafe values.withUnsafeMutableBufferPointer { out in
                Result { () throws(PluginError) in
                    try unsafe format.decode(Payload(table), index: 0, rows: 0..<3, into: out)
                }
            }
        }
        withExtendedLifetime(memory) {}
        try result.get()
        return values
    }
}

// Safe: the hashes are one allocation of 32 bytes, freed at the end.
/// A sink whose bytes stay in memory; its leaf hashes are zero, which a reader of data does not mind.
@safe private final class MemorySink {
    private(set) var bytes: [UInt8] = []
    private let hashes = UnsafeMutablePointer<UInt8>.allocate(capacity: 32)

    init() { unsafe hashes.initialize(repeating: 0, count: 32) }

    deinit { unsafe hashes.deallocate() }

    /// The C table, valid as long as this object.
    func table() -> blyan_sink {
        unsafe blyan_sink(
            struct_size: UInt32(MemoryLayout<blyan_sink>.size), reserved: 0,
            context: Unmanaged.passUnretained(self).toOpaque(),
            write: { context, bytes, _ in
                guard let sink = unsafe MemorySink.at(context) else {
                    return blyan_status(BLYAN_E_ARGUMENT)
                }
                unsafe sink.bytes.append(
                    contentsOf: UnsafeBufferPointer(start: bytes.data, count: Int(bytes.size)))
                return blyan_status(BLYAN_OK)
            },
            leaves: { context, _, hashes, count, _, _ in
                guard let sink = unsafe MemorySink.at(context) else {
                    return blyan_status(BLYAN_E_ARGUMENT)
                }
                unsafe hashes?.pointee = UnsafePointer(sink.hashes)
                unsafe count?.pointee = 1
                return blyan_status(BLYAN_OK)
            })
    }

    private static func at(_ context: UnsafeMutableRawPointer?) -> MemorySink? {
        unsafe context.map { unsafe Unmanaged<MemorySink>.fromOpaque($0).takeUnretainedValue() }
    }
}

// Safe: the table checks every read against the one allocation, freed at the end.
/// A payload in memory.
@safe private final class MemoryPayload {
    private let bytes: UnsafeMutableBufferPointer<UInt8>

    init(_ bytes: [UInt8]) {
        unsafe self.bytes = .allocate(capacity: bytes.count)
        _ = unsafe self.bytes.initialize(from: bytes)
    }

    deinit { unsafe bytes.deallocate() }

    /// The C table, valid as long as this object.
    func table() -> blyan_payload {
        unsafe blyan_payload(
            struct_size: UInt32(MemoryLayout<blyan_payload>.size), reserved: 0,
            context: Unmanaged.passUnretained(self).toOpaque(), size: UInt64(bytes.count),
            read: { context, offset, length, out, _ in
                guard let context = unsafe context else { return blyan_status(BLYAN_E_ARGUMENT) }
                let bytes = unsafe Unmanaged<MemoryPayload>.fromOpaque(context)
                    .takeUnretainedValue().bytes
                guard offset <= bytes.count, length <= UInt64(bytes.count) - offset else {
                    return blyan_status(BLYAN_E_ARGUMENT)
                }
                unsafe out?.pointee = bytes.baseAddress.map {
                    unsafe UnsafePointer($0 + Int(offset))
                }
                return blyan_status(BLYAN_OK)
            })
    }
}
