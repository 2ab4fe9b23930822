import Foundation
import Testing

/// Bad checkpoints: an error that names what is wrong, and a home that is as good as before.
@Suite struct DamagedCheckpointTests {
    /// One way to damage a copy of a checkpoint, and what the error must name.
    struct Damage: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let names: [String]
        let apply: @Sendable (URL) throws -> Void

        init(_ what: String, _ names: [String], _ apply: @escaping @Sendable (URL) throws -> Void) {
            testDescription = what
            self.names = names
            self.apply = apply
        }

        /// Damages the safetensors file.
        static func weights(
            _ what: String, _ names: [String],
            _ edit: @escaping @Sendable (inout Safetensors) -> Void
        ) -> Damage {
            Damage(what, names) { folder in
                let url = folder.appendingPathComponent("model.safetensors")
                var file = try Safetensors(Data(contentsOf: url))
                edit(&file)
                try file.bytes().write(to: url)
            }
        }

        /// Damages the bytes of a file.
        static func bytes(
            _ what: String, of name: String = "model.safetensors", _ names: [String],
            _ edit: @escaping @Sendable (inout Data) -> Void
        ) -> Damage {
            Damage(what, names) { folder in
                let url = folder.appendingPathComponent(name)
                var data = try Data(contentsOf: url)
                edit(&data)
                try data.write(to: url)
            }
        }

        /// Replaces text in config.json.
        static func config(_ what: String, _ old: String, _ new: String, _ names: [String])
            -> Damage
        {
            Damage(what, names) { folder in
                let url = folder.appendingPathComponent("config.json")
                let text = try String(contentsOf: url, encoding: .utf8)
                try #require(text.contains(old))
                try text.replacing(old, with: new).write(to: url, atomically: true, encoding: .utf8)
            }
        }
    }

    private static let key = "model.layers.0.self_attn.k_proj.weight"
    private static let gate = "model.layers.1.mlp.gate.weight"

    static let damages: [Damage] = [
        .bytes("cut short", ["model.safetensors", "cut short"]) { $0.removeLast(100) },
        .bytes("longer", ["model.safetensors", "the file at"]) {
            $0.append(contentsOf: [1, 2, 3])
        },
        .bytes("seven bytes", ["7 bytes"]) { $0 = $0.prefix(7) },
        .bytes("a header of an exabyte", ["1152921504606846976"]) { data in
            data.replaceSubrange(0..<8, with: [0, 0, 0, 0, 0, 0, 0, 16])
        },
        .bytes("a header longer than the file", ["cut short"]) { data in
            data.replaceSubrange(0..<8, with: [0, 0, 0, 1, 0, 0, 0, 0])
        },
        .bytes("a header that is no JSON", ["model.safetensors"]) { $0[9] = 0x7B },
        .weights("overlapping tensors", ["overlap"]) { file in
            let offsets = file.tensors[gate]?.offsets ?? [0, 0]
            file.tensors[gate]?.offsets = offsets.map { $0 - 4 }
        },
        .weights("offsets past the end", [key, "data_offsets"]) { file in
            file.tensors[key]?.offsets = [0, 1 << 60]
        },
        .weights("offsets backwards", [key, "data_offsets"]) { $0.tensors[key]?.offsets.reverse() },
        .weights("a shape that overflows", [key, "63 bits"]) {
            $0.tensors[key]?.shape = [1 << 40, 1 << 40]
        },
        .weights("a shape larger than its bytes", [key, "2048 bytes", "4096"]) {
            $0.tensors[key]?.shape = [32, 32]
        },
        .weights("a transposed tensor", [key, "[32, 16]", "expected [16, 32]"]) {
            $0.tensors[key]?.shape = [32, 16]
        },
        .weights("a missing tensor", ["lacks", gate, "[4, 32]"]) { $0.remove(gate) },
        .weights("a tensor too many", [key + ".extra"]) { file in
            file.tensors[key + ".extra"] = Safetensors.Tensor(
                dtype: "F32", shape: [0], offsets: [0, 0])
        },
        .weights("integers", [key, "I32", "F32, F16 or BF16"]) { $0.tensors[key]?.dtype = "I32" },
        .weights("an unknown dtype", [key, "F12"]) { $0.tensors[key]?.dtype = "F12" },
        .config(
            "an unknown architecture", "\"mixtral\"", "\"gpt_bigcode\"",
            ["gpt_bigcode", "llama", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"]),
        .config(
            "an unknown field", "\"hidden_act\"",
            "\"final_logit_softcapping\": 30.0, \"hidden_act\"",
            ["final_logit_softcapping"]),
        .config("another activation", "\"silu\"", "\"gelu\"", ["hidden_act", "gelu", "silu"]),
        .config(
            "an unknown rope", "\"rope_type\": \"default\"", "\"rope_type\": \"longrope\"",
            ["rope_type", "longrope"]),
        .config(
            "fewer experts than stored", "\"num_local_experts\": 4", "\"num_local_experts\": 3",
            ["experts", "[4, "]),
        .config(
            "more experts than stored", "\"num_local_experts\": 4", "\"num_local_experts\": 5",
            ["experts", "[4, "]),
        .config(
            "a negative size", "\"hidden_size\": 32", "\"hidden_size\": -32",
            ["hidden_size", "-32"]),
        .bytes("half a configuration", of: "config.json", ["config.json"]) {
            $0 = $0.prefix($0.count / 2)
        },
        .bytes("half a tokenizer", of: "tokenizer.json", ["tokenizer.json"]) {
            $0 = $0.prefix($0.count / 2)
        },
        Damage("no weights", ["model.safetensors"]) { folder in
            try FileManager.default.removeItem(
                at: folder.appendingPathComponent("model.safetensors"))
        },
        Damage("an index that leads outside", ["../model.safetensors"]) { folder in
            // A single file in the folder would be taken before the index.
            try FileManager.default.moveItem(
                at: folder.appendingPathComponent("model.safetensors"),
                to: folder.deletingLastPathComponent().appendingPathComponent("model.safetensors"))
            let text = #"{"weight_map": {"model.norm.weight": "../model.safetensors"}}"#
            try Data(text.utf8).write(
                to: folder.appendingPathComponent("model.safetensors.index.json"))
        },
    ]

    @Test(arguments: damages)
    func isRefused(_ damage: Damage) throws {
        let home = try Home()
        let copy = home.scratch.appendingPathComponent("copy")
        try FileManager.default.copyItem(at: Checkpoints.routed, to: copy)
        try damage.apply(copy)
        try home.fail("import", copy.path, naming: damage.names)
        #expect(try home.succeed("block", "export", "--chain", "B", "--jsonl").isEmpty)
        #expect(try home.succeed("chain", "verify").contains("verified  1 block "))
    }

    @Test func aGoodImportFollowsABadOne() throws {
        let home = try Home()
        let copy = home.scratch.appendingPathComponent("copy")
        try FileManager.default.copyItem(at: Checkpoints.routed, to: copy)
        try Self.damages[0].apply(copy)
        try home.fail("import", copy.path, naming: [])
        let expected = try Checkpoints.expected(Checkpoints.routed)
        try home.succeed("import", Checkpoints.routed.path)
        #expect(try home.evaluate(expected).greedy == expected.greedy)
    }
}
