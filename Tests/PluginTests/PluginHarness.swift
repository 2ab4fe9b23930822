import BlyanKernel
import CBlyanMath
import CBlyanPlugin
import Foundation

/// A plugin as a host in C sees it: dlopen, one symbol, tables of functions, and nothing of the node's own host.
///
/// Formats are driven through ``list(_:)``, ``decode(_:tensor:rows:)``, ``compute(_:_:)`` and
/// ``encode(_:options:)`` on a ``GuardedPayload``.
final class PluginHarness {
    let entry: UnsafePointer<blyan_plugin>
    let instance: UnsafeMutableRawPointer

    /// Opens `lib<library>.so` beside the running test and makes an instance.
    init(_ library: String, config: String = "{}") throws {
        let path = Bench.products.appendingPathComponent("lib\(library).so").path
        guard let image = dlopen(path, RTLD_NOW | RTLD_LOCAL),
            let symbol = dlsym(image, BLYAN_PLUGIN_SYMBOL)
        else { throw Refusal(status: 0, message: String(cString: dlerror())) }
        let open = unsafeBitCast(symbol, to: blyan_plugin_entry_fn.self)
        guard let entry = open() else { throw Refusal(status: 0, message: "no entry") }
        self.entry = entry
        var made: UnsafeMutableRawPointer?
        try Refusal.check { error in
            withC(config) { entry.pointee.create(Self.host, $0, &made, &error) }
        }
        guard let made else { throw Refusal(status: 0, message: "no instance") }
        instance = made
    }

    deinit { entry.pointee.destroy(instance) }

    /// An ability's table, or nil where the plugin lacks it.
    func table<T>(_ id: String, as: T.Type) -> UnsafePointer<T>? {
        entry.pointee.get_ability(instance, id)?.assumingMemoryBound(to: T.self)
    }

    func selfTest() throws {
        try Refusal.check { entry.pointee.self_test(instance, &$0) }
    }

    /// What the host offers: logs go nowhere, SHA-256 is the kernel's, mathematics the node's.
    // Written here, never after.
    private nonisolated(unsafe) static let host: UnsafePointer<blyan_host> = {
        let host = UnsafeMutablePointer<blyan_host>.allocate(capacity: 1)
        host.initialize(to: blyan_host())
        host.pointee.struct_size = UInt32(MemoryLayout<blyan_host>.size)
        host.pointee.abi_major = UInt16(BLYAN_ABI_MAJOR)
        host.pointee.abi_minor = UInt16(BLYAN_ABI_MINOR)
        host.pointee.log = { _, _, _ in }
        host.pointee.sha256 = { _, bytes, out in
            let view = UnsafeRawBufferPointer(start: bytes.data, count: Int(bytes.size))
            for (i, byte) in SHA256.hash(Array(view)).bytes.enumerated() { out?[i] = byte }
            return blyan_status(BLYAN_OK)
        }
        host.pointee.monotonic_ns = { _ in 0 }
        host.pointee.is_cancelled = { _ in 0 }
        host.pointee.get_service = { _, id in
            guard let id, String(cString: id) == BLYAN_HOST_MATH else { return nil }
            return UnsafeRawPointer(blyan_math_service())
        }
        return UnsafePointer(host)
    }()
}

/// What a plugin answered other than success.
struct Refusal: Error, CustomStringConvertible {
    let status: blyan_status
    let message: String
    var description: String { "status \(status): \(message)" }

    static func check(_ body: (inout blyan_error) -> blyan_status) throws {
        var error = blyan_error()
        error.struct_size = UInt32(MemoryLayout<blyan_error>.size)
        let status = body(&error)
        guard status != BLYAN_OK else { return }
        let message = withUnsafeBytes(of: error.text) {
            String(decoding: $0.prefix(Int(error.text_length)), as: UTF8.self)
        }
        throw Refusal(status: status, message: message)
    }
}

/// Text as a C view, for the length of the call.
func withC<R>(_ text: String, _ body: (blyan_string) -> R) -> R {
    var text = text
    return text.withUTF8 { bytes in
        bytes.withMemoryRebound(to: CChar.self) {
            body(blyan_string(data: $0.baseAddress, size: UInt64($0.count)))
        }
    }
}

extension blyan_tensor {
    /// The tensor's name.
    var text: String {
        withUnsafeBytes(of: name) {
            String(decoding: $0.prefix(Int(name_length)), as: UTF8.self)
        }
    }
}

// MARK: formats

extension PluginHarness {
    /// The tensors of a payload, from `view` where the plugin offers it, else from `decode`.
    func list(_ payload: GuardedPayload, capacity: Int = 64) throws -> [blyan_tensor] {
        var empty = blyan_tensor()
        empty.struct_size = UInt32(MemoryLayout<blyan_tensor>.size)
        var tensors = [blyan_tensor](repeating: empty, count: capacity)
        var count: UInt32 = 0
        do {
            try Refusal.check { error in
                payload.lend { view in
                    if let viewer = table(BLYAN_FORMAT_VIEW, as: blyan_format_view.self) {
                        return viewer.pointee.describe(
                            instance, view, &tensors, UInt32(capacity), &count, &error)
                    }
                    guard let table = table(BLYAN_FORMAT_DECODE, as: blyan_format_decode.self)
                    else { return blyan_status(BLYAN_E_UNSUPPORTED) }
                    return table.pointee.list(
                        instance, view, &tensors, UInt32(capacity), &count, &error)
                }
            }
        } catch let refusal as Refusal where refusal.status == BLYAN_E_CAPACITY {
            guard Int(count) > capacity else { throw refusal }
            return try list(payload, capacity: Int(count))
        }
        return Array(tensors.prefix(Int(count)))
    }

    /// Rows of a tensor as f32; all of them by default.
    func decode(
        _ payload: GuardedPayload, tensor index: Int = 0, rows: Range<UInt64>? = nil
    ) throws -> [Float] {
        let tensors = try list(payload)
        guard tensors.indices.contains(index) else {
            throw Refusal(status: 0, message: "the payload has no tensor \(index)")
        }
        let rows = rows ?? 0..<tensors[index].rows
        guard let table = table(BLYAN_FORMAT_DECODE, as: blyan_format_decode.self) else {
            throw Refusal(status: 0, message: "no decode")
        }
        var out = [Float](
            repeating: .signalingNaN, count: rows.count * Int(tensors[index].columns))
        try Refusal.check { error in
            payload.lend {
                table.pointee.decode(
                    instance, $0, UInt32(index), rows.lowerBound, rows.upperBound, &out, &error)
            }
        }
        return out
    }

    /// One stage of an expert.
    func compute(_ payload: GuardedPayload, _ work: blyan_compute) throws {
        guard let table = table(BLYAN_FORMAT_COMPUTE, as: blyan_format_compute.self) else {
            throw Refusal(status: 0, message: "no compute")
        }
        var work = work
        work.struct_size = UInt32(MemoryLayout<blyan_compute>.size)
        try Refusal.check { error in
            payload.lend { table.pointee.compute(instance, $0, &work, &error) }
        }
    }

    /// A tensor to write.
    struct Source {
        var name: String
        var dtype = Int(BLYAN_DTYPE_F32)
        var rows: Int
        var columns: Int
        var data: [UInt8]
        var scales: [Float] = []

        init(
            _ name: String, dtype: Int = Int(BLYAN_DTYPE_F32), rows: Int, columns: Int,
            data: [UInt8], scales: [Float] = []
        ) {
            (self.name, self.dtype, self.rows, self.columns) = (name, dtype, rows, columns)
            (self.data, self.scales) = (data, scales)
        }

        /// Values as f32.
        init(_ name: String, rows: Int, columns: Int, _ values: [Float]) {
            self.init(
                name, rows: rows, columns: columns,
                data: values.withUnsafeBytes { Array($0) })
        }
    }

    /// Writes one payload; what is to be signed of it lies in ``MemorySink/encoded``.
    @discardableResult
    func encode(
        _ sources: [Source], options: String = "{}", into sink: MemorySink = MemorySink()
    ) throws -> MemorySink {
        guard let table = table(BLYAN_FORMAT_ENCODE, as: blyan_format_encode.self) else {
            throw Refusal(status: 0, message: "no encode")
        }
        let memory = CopiedMemory()
        let list = sources.map { source in
            blyan_source(
                struct_size: UInt32(MemoryLayout<blyan_source>.size),
                dtype: UInt32(source.dtype), rows: UInt64(source.rows),
                columns: UInt64(source.columns), name: memory.text(source.name),
                data: memory.bytes(source.data),
                scales: memory.bytes(source.scales.withUnsafeBytes { Array($0) }))
        }
        try list.withUnsafeBufferPointer { list in
            let pointers = list.indices.map { i -> UnsafePointer<blyan_source>? in
                list.baseAddress.map { $0 + i }
            }
            try Refusal.check { error in
                withC(options) { options in
                    sink.lend { view in
                        table.pointee.encode(
                            instance, pointers, UInt32(pointers.count), options, view,
                            &sink.encoded, &error)
                    }
                }
            }
        }
        return sink
    }
}

/// Copies with addresses, each ending at a page that cannot be read, that live as long as this object.
private final class CopiedMemory {
    private var pages: [GuardedPages] = []

    func bytes(_ bytes: [UInt8]) -> blyan_bytes {
        guard !bytes.isEmpty else { return blyan_bytes(data: nil, size: 0) }
        let copy = GuardedPages(bytes)
        pages.append(copy)
        return blyan_bytes(
            data: copy.start.assumingMemoryBound(to: UInt8.self), size: UInt64(bytes.count))
    }

    func text(_ text: String) -> blyan_string {
        let view = bytes(Array(text.utf8))
        return blyan_string(
            data: view.data.map { UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self) },
            size: view.size)
    }
}
