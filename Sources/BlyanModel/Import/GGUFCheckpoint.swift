internal import CBlyanPlugin

/// A GGUF file of the llama architecture, dense or with experts, with its tokenizer.
///
/// Quantised tensors become f16, or f32 where f16 cannot hold a value; the file's sha256 goes into the meta block.
struct GGUFCheckpoint: Checkpoint {
    let config: ModelConfig
    let tokenizer: TokenizerDocument
    private let gguf: GGUFFile

    init(path: String) throws {
        let gguf = try GGUFFile(path: path)
        self.gguf = gguf
        config = try GGUFConfig.read(gguf)
        try config.validate(of: path)
        tokenizer = try TokenizerDocument(gguf: GGUFMetadata(gguf))
        try checkExtras()
    }

    func sources() throws -> [SourceFile] { try SourceFile.hashing([gguf.file]) }

    /// Where a part's tensor lies: a whole tensor, or one expert of a fused one.
    private func place(_ part: PartLayout, _ tensor: PartLayout.Tensor) -> [(
        name: String, expert: Int?
    )] {
        switch part.name {
        case "embedding": return [("token_embd.weight", nil)]
        case "norm": return [("output_norm.weight", nil)]
        case "head": return [("output.weight", nil)]
        default: break
        }
        let layer = "blk.\(part.layer)."
        let kind = part.name.split(separator: ".").last.map(String.init) ?? ""
        if kind == "attention" {
            if tensor.name == "norm" { return [(layer + "attn_norm.weight", nil)] }
            let base =
                tensor.name.prefix(1) == "o" ? "attn_output" : "attn_\(tensor.name.prefix(1))"
            return [(layer + base + (tensor.name.hasSuffix("_bias") ? ".bias" : ".weight"), nil)]
        }
        if tensor.name == "norm" { return [(layer + "ffn_norm.weight", nil)] }
        if kind == "router" { return [(layer + "ffn_gate_inp.weight", nil)] }
        guard config.layers[part.layer].expertCount > 0,
            let expert = Int(kind.dropFirst("expert".count))
        else {
            return [(layer + "ffn_\(tensor.name).weight", nil)]
        }
        return [
            (layer + "ffn_\(tensor.name)_exps.weight", expert),
            (layer + "ffn_\(tensor.name).\(expert).weight", nil),
        ]
    }

    func tensors(of part: PartLayout) throws -> [CheckpointTensor] {
        var found: [CheckpointTensor] = []
        for tensor in part.tensors {
            let places = place(part, tensor)
            guard
                let (entry, expert) = places.lazy.compactMap({ place in
                    gguf.tensors[place.name].map { ($0, place.expert) }
                }).first
            else {
                if tensor.optional { continue }
                throw ModelError(
                    "\(gguf.file.path) lacks tensor \(places.map(\.name).joined(separator: " or ")), expected [\(tensor.rows), \(tensor.columns)]"
                )
            }
            found.append(try read(entry, expert, tensor, part))
        }
        return found
    }

    private func read(
        _ entry: GGUFTensor, _ expert: Int?, _ tensor: PartLayout.Tensor, _ part: PartLayout
    ) throws(ModelError) -> CheckpointTensor {
        var expected = tensor.rows == 1 ? [tensor.columns] : [tensor.columns, tensor.rows]
        if expert != nil { expected.append(config.layers[part.layer].expertCount) }
        // Trailing ones may be left out.
        guard
            entry.dimensions == expected
                || (tensor.rows == 1 && entry.dimensions == [tensor.columns, 1])
        else {
            throw ModelError(
                "tensor \(entry.name) has dimensions \(entry.dimensions), expected \(expected) (innermost first)"
            )
        }
        let type = entry.type
        let rowBytes = tensor.columns / type.blockElements * type.blockBytes
        let start = entry.range.lowerBound + (expert ?? 0) * tensor.rows * rowBytes
        let range = start..<start + tensor.rows * rowBytes
        // Queries and keys lie interleaved, for another form of the same rotation.
        let isInterleaved = ["q", "k", "q_bias", "k_bias"].contains(tensor.name)
        let isVector = tensor.rows == 1
        guard !(isVector && isInterleaved && type.isQuantised) else {
            throw ModelError("tensor \(entry.name) is a bias of type \(type.name), expected F32")
        }
        let rows = GGUFRows(
            type: type, target: type.isQuantised ? quantisedDtype(type, range) : type.plainDtype,
            rows: isVector && isInterleaved ? tensor.columns : tensor.rows,
            columns: isVector && isInterleaved ? 1 : tensor.columns,
            headSize: isInterleaved ? config.headSize : nil)
        try gguf.file.checkUnchanged()
        let file = gguf.file
        return unsafe CheckpointTensor(
            name: tensor.name, rows: tensor.rows, columns: tensor.columns, dtype: rows.target
        ) { body in
            try unsafe file.withBytes(range) { raw in
                guard !rows.isAsStored else { return try unsafe body(raw) }
                let out = AlignedBuffer<UInt8>(count: rows.byteCount)
                unsafe rows.convert(raw, into: out.pointer)
                try unsafe body(UnsafeRawBufferPointer(start: out.pointer, count: rows.byteCount))
            }
        }
    }

    /// The dtype of a quantised tensor: f16 unless a block's scales allow values beyond its largest.
    private func quantisedDtype(_ type: GGUFType, _ range: Range<Int>) -> UInt32 {
        let blocks = unsafe UnsafeRawBufferPointer(rebasing: gguf.file.bytes[range])
        guard let base = blocks.baseAddress else { return UInt32(BLYAN_DTYPE_F32) }
        for at in stride(from: 0, to: blocks.count, by: type.blockBytes) {
            let bound = unsafe type.bound(base + at)
            // Not greater, rather than less: a scale that is no number takes f32 too.
            guard bound <= 65_504 else { return UInt32(BLYAN_DTYPE_F32) }
        }
        return UInt32(BLYAN_DTYPE_F16)
    }

    /// A tensor that no part takes would be left out of the arithmetic.
    private func checkExtras() throws(ModelError) {
        var used: Set<String> = ["rope_freqs.weight"]
        for part in config.parts {
            for tensor in part.tensors {
                let place = place(part, tensor).first { gguf.tensors[$0.name] != nil }
                if let place { used.insert(place.name) }
            }
        }
        for name in gguf.tensors.keys.sorted() where !used.contains(name) {
            throw ModelError("\(gguf.file.path) has tensor \(name), which this build does not use")
        }
    }
}
