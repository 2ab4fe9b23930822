import BlyanModel
import Foundation
import Testing

/// Tensors of a fixture with some of them changed.
private struct EditedTensors: NamedTensors {
    var entries: [String: TensorEntry]
    let files: [MappedFile] = []

    /// What a test made up.
    private struct Made: LentBytes {
        let values: [Float]

        func withBytes(_ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Void) throws
        {
            try values.withUnsafeBytes {
                try body(UnsafeRawBufferPointer(rebasing: $0[range]))
            }
        }
    }

    /// A tensor of f32, filled by element number.
    mutating func set(_ name: String, _ shape: [Int], _ value: (Int) -> Float) {
        let values = (0..<shape.reduce(1, *)).map(value)
        entries[name] = TensorEntry(
            name: name, shape: shape, dtypeName: "F32", bytes: Made(values: values),
            range: 0..<4 * values.count)
    }

    /// A tensor under another name too.
    mutating func copy(_ name: String, as other: String) throws {
        let entry = try #require(entries[name])
        entries[other] = TensorEntry(
            name: other, shape: entry.shape, dtypeName: entry.dtypeName, bytes: entry.bytes,
            range: entry.range)
    }
}

/// Which of a checkpoint's tensors are used where names leave a choice: as the transformers library chooses, or refused.
@Suite struct HuggingFaceCheckpointTests {
    private let embedding = "model.embed_tokens.weight"
    private let head = "lm_head.weight"

    /// A fixture whose tensors are edited.
    private func open(
        _ name: String, _ edit: (inout EditedTensors) throws -> Void
    ) throws -> any Checkpoint {
        let from = fixture("checkpoints/\(name)")
        return try withFile([0], named: "pytorch_model.bin") { path in
            let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
            for file in ["config.json", "tokenizer.json"] {
                try FileManager.default.copyItem(
                    at: from.appendingPathComponent(file), to: folder.appendingPathComponent(file))
            }
            let file = try SafetensorsFile(
                path: from.appendingPathComponent("model.safetensors").path)
            var tensors = EditedTensors(entries: file.entries)
            try edit(&tensors)
            return try HuggingFaceCheckpoint(directory: folder.path, tensors: tensors)
        }
    }

    private func floats(_ checkpoint: any Checkpoint, _ part: String) throws -> [Float] {
        let layout = try #require(checkpoint.config.parts.first { $0.name == part })
        var floats: [Float] = []
        try checkpoint.tensors(of: layout)[0].withBytes {
            floats = $0.count % 4 == 0 ? Array($0.bindMemory(to: Float.self)) : []
        }
        return floats
    }

    @Test func aTiedHeadOfTheSameValuesIsLeftOut() throws {
        // The embedding is f16, the head the same in f32.
        let checkpoint = try open("llama-tiny") { tensors in
            let entry = try #require(tensors.entries[embedding])
            var values: [Float] = []
            try entry.bytes.withBytes(entry.range) { bytes in
                values = bytes.bindMemory(to: Float16.self).map(Float.init)
            }
            tensors.set(head, entry.shape) { values[$0] }
        }
        #expect(checkpoint.config.tiedEmbeddings)
        #expect(!checkpoint.config.parts.contains { $0.name == "head" })
    }

    @Test func aTiedHeadOfOtherValuesIsAHead() throws {
        let checkpoint = try open("llama-yarn") { tensors in
            let shape = try #require(tensors.entries[embedding]).shape
            tensors.set(head, shape) { Float($0) }
        }
        #expect(!checkpoint.config.tiedEmbeddings)
        #expect(try floats(checkpoint, "head").prefix(3) == [0, 1, 2])
    }

    @Test func aTiedHeadMayStandForTheEmbedding() throws {
        let checkpoint = try open("llama-yarn") { tensors in
            try tensors.copy(embedding, as: head)
            tensors.entries[embedding] = nil
        }
        let usual = try openCheckpoint(at: fixture("checkpoints/llama-yarn").path)
        #expect(checkpoint.config == usual.config)
        #expect(try floats(checkpoint, "embedding") == floats(usual, "embedding"))
    }

    @Test func aHeadOfAnotherShapeIsRefused() throws {
        let checkpoint = try open("llama-yarn") { $0.set(head, [3, 2]) { Float($0) } }
        let message = refusal { _ = try floats(checkpoint, "head") }
        #expect(message?.contains("lm_head.weight has shape [3, 2]") == true, "\(message ?? "")")
    }

    @Test func aTensorInTwoSpellingsIsRefused() throws {
        let stray = "model.layers.0.mlp.experts.0.gate_proj.weight"
        let message = refusal {
            _ = try open("mixtral-fused") { tensors in
                let fused = "model.layers.0.mlp.experts.gate_up_proj"
                let shape = try #require(tensors.entries[fused]).shape
                tensors.set(stray, [shape[1] / 2, shape[2]]) { _ in 0 }
            }
        }
        #expect(message?.contains(stray) == true, "\(message ?? "accepted")")
    }

    @Test func theSingleFileIsTakenBeforeTheIndex() throws {
        let from = fixture("checkpoints/llama-yarn")
        try withFile(
            Array(#"{"weight_map": {"x": "other.safetensors"}}"#.utf8),
            named: "model.safetensors.index.json"
        ) { path in
            let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
            for file in ["config.json", "tokenizer.json", "model.safetensors"] {
                try FileManager.default.copyItem(
                    at: from.appendingPathComponent(file), to: folder.appendingPathComponent(file))
            }
            let checkpoint = try openCheckpoint(at: folder.path)
            #expect(try checkpoint.sources().map(\.name) == ["model.safetensors"])
        }
    }
}
