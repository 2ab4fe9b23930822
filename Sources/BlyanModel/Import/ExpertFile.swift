internal import BlyanJSON
package import BlyanKernel
internal import CBlyanPlugin
internal import Foundation

/// One part of a model as a file that other software reads and writes: safetensors, or a pickle by a format plugin.
package enum ExpertFile {
    /// A tensor as f32, row after row; a vector has one row.
    package struct Tensor: Sendable {
        package let name: String
        package let rows: Int
        package let columns: Int
        package let values: [Float]

        package init(name: String, rows: Int, columns: Int, values: [Float]) {
            self.name = name
            self.rows = rows
            self.columns = columns
            self.values = values
        }
    }

    /// What the file says beside tensors.
    package struct Contents: Sendable {
        package let tensors: [Tensor]
        /// The block that the part was exported from, if the file tells.
        package let parent: Digest?
    }

    /// The bytes of a safetensors file with tensors in f32 and the block that they are of.
    package static func safetensors(_ tensors: [Tensor], parent: Digest) -> [UInt8] {
        var header: [String: JSONValue] = [
            "__metadata__": .object(["blyan_parent": .string(parent.description)])
        ]
        var offset: Int64 = 0
        for tensor in tensors {
            let end = offset + Int64(4 * tensor.values.count)
            let shape = tensor.rows == 1 ? [tensor.columns] : [tensor.rows, tensor.columns]
            header[tensor.name] = .object([
                "dtype": .string("F32"), "shape": .array(shape.map { .int(Int64($0)) }),
                "data_offsets": .array([.int(offset), .int(end)]),
            ])
            offset = end
        }
        var text = JSONValue.object(header).canonical()
        text += [UInt8](repeating: 32, count: (8 - text.count % 8) % 8)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 + text.count + Int(offset))
        unsafe withUnsafeBytes(of: UInt64(text.count).littleEndian) {
            unsafe bytes.append(contentsOf: $0)
        }
        bytes += text
        for tensor in tensors { bytes += littleEndian(tensor.values) }
        return bytes
    }

    /// The bytes that a format plugin makes of tensors in f32.
    ///
    /// - Throws: What the plugin throws.
    package static func encoded(_ tensors: [Tensor], by format: FormatPlugin) throws -> [UInt8] {
        let sink = MemorySink()
        var encoded = false
        func lend(_ index: Int, _ sources: [FormatPlugin.Source]) throws {
            guard index < tensors.count else {
                _ = try format.encode(sources, options: "{}", into: sink)
                encoded = true
                return
            }
            let tensor = tensors[index]
            try unsafe littleEndian(tensor.values).withUnsafeBytes { bytes in
                let source = unsafe FormatPlugin.Source(
                    name: tensor.name, dtype: UInt32(BLYAN_DTYPE_F32), rows: tensor.rows,
                    columns: tensor.columns, data: bytes,
                    scales: UnsafeRawBufferPointer(start: nil, count: 0))
                try lend(index + 1, sources + [source])
            }
        }
        try lend(0, [])
        return encoded ? sink.bytes : []
    }

    /// Reads the tensors of a part from a file.
    ///
    /// Tensors have the part's own names, or those that Hugging Face checkpoints give them, with any prefix. A safetensors
    /// file is known by how it begins, whatever its name is.
    ///
    /// - Parameter plugins: read what is no safetensors file.
    /// - Throws: ``ModelError`` naming file and tensor; ``KernelError`` naming the plugin that would read the file.
    package static func read(_ path: String, of layout: PartLayout, plugins: PluginSet) throws
        -> Contents
    {
        // One that is damaged is told what a safetensors file must have.
        let isSafetensors =
            try SafetensorsFile.isBegun(at: path) || path.hasSuffix(".safetensors")
        let named: any NamedTensors
        if isSafetensors {
            named = try SafetensorsFile(path: path)
        } else {
            let url = URL(fileURLWithPath: path)
            let format: FormatPlugin
            do throws(KernelError) {
                format = try plugins.format(forFileExtension: url.pathExtension)
            } catch {
                throw KernelError(
                    error.code, "\(path) is no safetensors file, and \(error.message)",
                    hint: error.hint)
            }
            named = try ForeignTensors(
                directory: url.deletingLastPathComponent().path, files: [url.lastPathComponent],
                index: nil, format: format)
        }
        var tensors: [Tensor] = []
        var used: Set<String> = []
        for tensor in layout.tensors {
            let names = named.entries.keys.filter { Self.name($0, means: tensor.name) }
            guard names.count <= 1 else {
                throw ModelError(
                    "\(path): \(names.sorted().joined(separator: " and ")) both are \(tensor.name)")
            }
            guard let name = names.first, let entry = named.entries[name] else {
                if tensor.optional { continue }
                throw ModelError(
                    "\(path) lacks the tensor \(tensor.name) of \(layout.name): it has \(named.entries.keys.sorted().joined(separator: ", "))"
                )
            }
            used.insert(name)
            let count = entry.shape.reduce(1, *)
            let fits =
                entry.shape == [tensor.rows, tensor.columns]
                || tensor.rows == 1 && entry.shape == [tensor.columns]
            guard fits, count == tensor.rows * tensor.columns else {
                throw ModelError(
                    "\(path): tensor \(name) has shape \(entry.shapeText), expected [\(tensor.rows), \(tensor.columns)]"
                )
            }
            let dtype = try entry.dtype()
            var values = [Float](repeating: 0, count: count)
            try unsafe entry.bytes.withBytes(entry.range) { bytes in
                try unsafe convert(bytes, dtype, into: &values)
            }
            tensors.append(
                Tensor(
                    name: tensor.name, rows: tensor.rows, columns: tensor.columns, values: values))
        }
        if let odd = Set(named.entries.keys).subtracting(used).min() {
            throw ModelError("\(path) has a tensor \(odd), which \(layout.name) has not")
        }
        return Contents(tensors: tensors, parent: isSafetensors ? try parent(path) : nil)
    }

    /// Whether a checkpoint's name for a tensor means a part's own.
    private static func name(_ name: String, means tensor: String) -> Bool {
        let foreign = [
            "gate": ["gate_proj", "w1"], "up": ["up_proj", "w3"], "down": ["down_proj", "w2"],
            "shared_gate": ["shared_expert_gate"], "norm": ["post_attention_layernorm"],
        ]
        let words = name.split(separator: ".").map(String.init)
        let last = words.last == "weight" && words.count > 1 ? words[words.count - 2] : words.last
        return name == tensor || ([tensor] + (foreign[tensor] ?? [])).contains(last ?? "")
    }

    private static func parent(_ path: String) throws -> Digest? {
        guard let file = FileHandle(forReadingAtPath: path) else { return nil }
        defer { try? file.close() }
        guard let start = try file.read(upToCount: 8), start.count == 8 else { return nil }
        let length = start.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= 1 << 20, let text = try file.read(upToCount: Int(length)) else {
            return nil
        }
        let header = try? JSONValue(parsing: Array(text.reversed().drop { $0 == 32 }.reversed()))
        guard let parent = header?["__metadata__"]?["blyan_parent"] else { return nil }
        guard let hash = parent.string.flatMap({ Digest(hex: $0) }) else {
            throw KernelError(
                .malformed,
                "\(path): the metadata blyan_parent is no block's hash, which has 64 hex digits",
                hint: "leave blyan_parent as `blyan expert export` wrote it, or out")
        }
        return hash
    }

    private static func convert(
        _ bytes: UnsafeRawBufferPointer, _ dtype: UInt32, into values: inout [Float]
    ) throws(ModelError) {
        for i in values.indices {
            switch Int(dtype) {
            case BLYAN_DTYPE_F32:
                values[i] = unsafe Float(
                    bitPattern: UInt32(
                        littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)))
            case BLYAN_DTYPE_F16:
                values[i] = unsafe Float(
                    Float16(
                        bitPattern: UInt16(
                            littleEndian: bytes.loadUnaligned(
                                fromByteOffset: 2 * i, as: UInt16.self))))
            default:
                values[i] = unsafe Float(
                    bitPattern: UInt32(
                        UInt16(
                            littleEndian: bytes.loadUnaligned(
                                fromByteOffset: 2 * i, as: UInt16.self))) << 16)
            }
        }
    }

    private static func littleEndian(_ values: [Float]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4 * values.count)
        for value in values {
            unsafe withUnsafeBytes(of: value.bitPattern.littleEndian) {
                unsafe bytes.append(contentsOf: $0)
            }
        }
        return bytes
    }
}

/// What a plugin writes, in memory.
private final class MemorySink: PayloadSink {
    private(set) var bytes: [UInt8] = []

    func write(_ new: UnsafeRawBufferPointer) throws(KernelError) {
        unsafe bytes.append(contentsOf: new)
    }

    func closeLeaves(size: UInt64) throws(KernelError) -> (stored: [Digest], root: Digest) {
        guard size > 0, let size = Int(exactly: size) else {
            throw KernelError(.plugin, "leaves of \(size) bytes")
        }
        var leaves: [Digest] = []
        unsafe bytes.withUnsafeBytes { all in
            for start in stride(from: 0, to: all.count, by: size) {
                unsafe leaves.append(
                    Merkle.leaf(
                        UnsafeRawBufferPointer(
                            rebasing: all[start..<min(all.count, start + size)])))
            }
        }
        return (Merkle.stored(leaves), Merkle.root(leaves))
    }
}
