internal import CBlyanMath
internal import CBlyanPlugin
internal import Foundation

/// A Hugging Face directory: `config.json`, safetensors (one file or shards), `tokenizer.json`.
package struct HuggingFaceCheckpoint: Checkpoint {
    package let config: ModelConfig
    package let tokenizer: TokenizerDocument
    private let tensors: any NamedTensors
    private let family: String
    private let biases: Set<String>
    /// The embedding's tensor: a tied model may have only the head's.
    private let embedding: String

    package init(directory: String, tensors given: (any NamedTensors)? = nil) throws {
        let description = try HuggingFaceConfig(path: "\(directory)/config.json")
        let tensors = try given ?? Self.open(directory)
        family = description.family
        biases = description.biases
        var config = description.config
        if config.tiedEmbeddings { config.tiedEmbeddings = try !Self.hasOwnHead(tensors, config) }
        self.config = config
        let names =
            ["model.embed_tokens.weight"] + (config.tiedEmbeddings ? ["lm_head.weight"] : [])
        embedding = names.first { tensors.entries[$0] != nil } ?? names[0]
        self.tensors = tensors
        tokenizer = try TokenizerDocument(huggingFace: directory)
        try checkExtras()
    }

    package func sources() throws -> [SourceFile] { try SourceFile.hashing(tensors.files) }

    private static func open(_ directory: String) throws(ModelError) -> any NamedTensors {
        let manager = FileManager.default
        // Of both, transformers takes the single file.
        if manager.fileExists(atPath: "\(directory)/model.safetensors") {
            return try SafetensorsFile(path: "\(directory)/model.safetensors")
        }
        guard manager.fileExists(atPath: "\(directory)/model.safetensors.index.json") else {
            throw ModelError(
                "\(directory) has no model.safetensors, no pytorch_model.bin and no index of several such files",
                hint: "give a Hugging Face directory or a .gguf file")
        }
        return try ShardedSafetensors(directory: directory, index: "model.safetensors.index.json")
    }

    /// Whether the head that lies beside a tied model's embedding has other values: as in transformers, it then stays a head.
    private static func hasOwnHead(
        _ tensors: any NamedTensors, _ config: ModelConfig
    ) throws -> Bool {
        guard let head = tensors.entries["lm_head.weight"],
            let embedding = tensors.entries["model.embed_tokens.weight"]
        else { return false }
        let (rows, columns) = (config.vocabularySize, config.hiddenSize)
        // Another shape is an error where the part is read.
        guard head.shape == [rows, columns], embedding.shape == head.shape else { return true }
        let zeros = [Float](repeating: 0, count: columns)
        func widen(
            _ dtype: UInt32, _ bytes: UnsafeRawBufferPointer, row: Int, into floats: inout [Float]
        ) {
            let width = bytes.count / rows
            let from = unsafe UnsafeRawBufferPointer(
                rebasing: bytes[row * width..<(row + 1) * width])
            unsafe blyan_math_to_f32(dtype, from.baseAddress, UInt64(columns), &floats)
        }
        let dtypes = (try head.dtype(), try embedding.dtype())
        var differs = false
        try unsafe head.bytes.withBytes(head.range) { first in
            try unsafe embedding.bytes.withBytes(embedding.range) { second in
                var (a, b) = (zeros, zeros)
                for row in 0..<rows where !differs {
                    unsafe widen(dtypes.0, first, row: row, into: &a)
                    unsafe widen(dtypes.1, second, row: row, into: &b)
                    differs = a != b
                }
            }
        }
        return differs
    }

    /// Where a part's tensor may lie: whole tensors by name, or a slice of experts that are stored fused.
    private enum Spelling {
        case whole(String)
        /// Rows [first, first + rows) of matrix `expert` in a tensor [experts, allRows, columns].
        case slice(String, expert: Int, first: Int, allRows: Int)
    }

    package func tensors(of part: PartLayout) throws -> [CheckpointTensor] {
        var found: [CheckpointTensor] = []
        for tensor in part.tensors where isWanted(tensor) {
            let spellings = spellings(part, tensor)
            guard let spelling = spellings.first(where: { tensors.entries[Self.name($0)] != nil })
            else {
                throw ModelError(
                    "the checkpoint lacks tensor \(spellings.map(Self.name).joined(separator: " or ")), expected [\(tensor.rows), \(tensor.columns)]"
                )
            }
            found.append(try read(spelling, tensor))
        }
        return found
    }

    /// What the layout leaves open, the configuration decides: a bias that it does not speak of is not applied.
    private func isWanted(_ tensor: PartLayout.Tensor) -> Bool {
        !tensor.name.hasSuffix("_bias") || biases.contains(tensor.name)
    }

    private static func name(_ spelling: Spelling) -> String {
        switch spelling {
        case .whole(let name), .slice(let name, _, _, _): name
        }
    }

    private func read(_ spelling: Spelling, _ tensor: PartLayout.Tensor) throws(ModelError)
        -> CheckpointTensor
    {
        guard let entry = tensors.entries[Self.name(spelling)] else {
            throw ModelError("the checkpoint lacks tensor \(Self.name(spelling))")
        }
        let dtype = try entry.dtype()
        let width = dtype == UInt32(BLYAN_DTYPE_F32) ? 4 : 2
        let expected: [[Int]]
        switch spelling {
        case .whole:
            expected =
                tensor.rows == 1
                ? [[tensor.columns], [1, tensor.columns]] : [[tensor.rows, tensor.columns]]
        case .slice(_, let expert, _, let allRows):
            let experts = max(entry.shape.first ?? 0, expert + 1)
            expected = [
                entry.isFlattened
                    ? [experts, allRows * tensor.columns] : [experts, allRows, tensor.columns]
            ]
        }
        guard expected.contains(entry.shape) else {
            throw ModelError(
                "tensor \(entry.name) has shape \(entry.shapeText), expected \(expected[0])")
        }
        // The shape is what was expected and its bytes lie in the file, so nothing here overflows.
        var place = entry.range
        if case .slice(_, let expert, let first, let allRows) = spelling {
            let row = tensor.columns * width
            let start = place.lowerBound + (expert * allRows + first) * row
            place = start..<start + tensor.rows * row
        }
        let (bytes, range) = (entry.bytes, place)
        return unsafe CheckpointTensor(
            name: tensor.name, rows: tensor.rows, columns: tensor.columns, dtype: dtype
        ) { body in
            try unsafe bytes.withBytes(range, body)
        }
    }

    private func spellings(_ part: PartLayout, _ tensor: PartLayout.Tensor) -> [Spelling] {
        switch part.name {
        case "embedding": return [.whole(embedding)]
        case "norm": return [.whole("model.norm.weight")]
        case "head": return [.whole("lm_head.weight")]
        default: break
        }
        let layer = "model.layers.\(part.layer)."
        let kind = part.name.split(separator: ".").last.map(String.init) ?? ""
        if kind == "attention" { return [.whole(layer + Self.attention(tensor.name))] }
        let shape = config.layers[part.layer]
        let mixture = family == "mixtral" ? ["block_sparse_moe.", "mlp."] : ["mlp."]
        if tensor.name == "norm" { return [.whole(layer + "post_attention_layernorm.weight")] }
        if kind == "router" { return mixture.map { .whole(layer + $0 + "gate.weight") } }
        if kind == "shared" {
            let suffix =
                tensor.name == "shared_gate"
                ? "shared_expert_gate.weight" : "shared_expert.\(tensor.name)_proj.weight"
            return [.whole(layer + "mlp." + suffix)]
        }
        guard shape.expertCount > 0, let expert = Int(kind.dropFirst("expert".count)) else {
            return [.whole(layer + "mlp.\(tensor.name)_proj.weight")]
        }
        let old = ["gate": "w1", "down": "w2", "up": "w3"][tensor.name] ?? tensor.name
        return mixture.flatMap { prefix -> [Spelling] in
            let experts = layer + prefix + "experts."
            let fused: Spelling =
                tensor.name == "down"
                ? .slice(
                    experts + "down_proj", expert: expert, first: 0, allRows: config.hiddenSize)
                : .slice(
                    experts + "gate_up_proj", expert: expert,
                    first: tensor.name == "up" ? shape.intermediateSize : 0,
                    allRows: 2 * shape.intermediateSize)
            return [
                .whole(experts + "\(expert).\(old).weight"),
                .whole(experts + "\(expert).\(tensor.name)_proj.weight"), fused,
            ]
        }
    }

    private static func attention(_ tensor: String) -> String {
        switch tensor {
        case "norm": "input_layernorm.weight"
        case "q_norm", "k_norm": "self_attn.\(tensor).weight"
        case _ where tensor.hasSuffix("_bias"): "self_attn.\(tensor.prefix(1))_proj.bias"
        default: "self_attn.\(tensor)_proj.weight"
        }
    }

    /// A tensor that no part takes would be left out of the arithmetic: refused, but for what is known to be inert.
    private func checkExtras() throws {
        var used: Set<String> = []
        for part in config.parts {
            for tensor in part.tensors where isWanted(tensor) {
                let found = spellings(part, tensor).map(Self.name)
                    .filter { tensors.entries[$0] != nil }
                guard found.count <= 1 else {
                    throw ModelError(
                        "the checkpoint has both \(found[0]) and \(found[1]), expected one of them")
                }
                used.formUnion(found)
            }
        }
        for name in tensors.entries.keys.sorted() where !used.contains(name) {
            // Computed from the configuration; and the copy of the embedding that a tied head is saved as.
            if name.hasSuffix("rotary_emb.inv_freq")
                || (config.tiedEmbeddings && name == "lm_head.weight")
            {
                continue
            }
            throw ModelError(
                "the checkpoint has tensor \(name), which the architecture \"\(family)\" of this build does not use"
            )
        }
        for part in config.parts
        where part.name.hasSuffix(".expert0") || part.name.hasSuffix(".router") {
            try checkFusedCount(part)
        }
    }

    /// Fused experts must be as many as the configuration says.
    private func checkFusedCount(_ part: PartLayout) throws(ModelError) {
        let shape = config.layers[part.layer]
        guard shape.expertCount > 0 else { return }
        for tensor in part.tensors {
            for case .slice(let name, _, _, _) in spellings(part, tensor) {
                guard let entry = tensors.entries[name] else { continue }
                guard entry.shape.count == (entry.isFlattened ? 2 : 3),
                    entry.shape[0] == shape.expertCount
                else {
                    throw ModelError(
                        "tensor \(name) has shape \(entry.shapeText), expected \(shape.expertCount) experts first"
                    )
                }
            }
        }
    }
}
