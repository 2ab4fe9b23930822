import BlyanKernel
import BlyanModel
import CBlyanPlugin
import Foundation
import Testing

/// A GGUF file that tests can spoil before it is written.
private struct GGUFDraft {
    struct Tensor {
        var name: String
        var dimensions: [UInt64]
        var type: UInt32 = 0
        var offset: UInt64
    }

    var magic = Array("GGUF".utf8)
    var version: UInt32 = 3
    var tensorCount: UInt64?
    var keyCount: UInt64?
    /// Keys with type and value as bytes.
    var fields: [(key: String, value: [UInt8])] = []
    var tensors: [Tensor] = []
    var data = 0

    static func value<I: FixedWidthInteger>(_ type: UInt32, _ number: I) -> [UInt8] {
        var out = ImportBytes()
        out.put(type)
        out.put(number)
        return out.bytes
    }

    static func text(_ text: String) -> [UInt8] {
        var out = ImportBytes()
        out.put(UInt32(8))
        out.put(text: text)
        return out.bytes
    }

    /// A llama of one layer without its tokenizer: good as far as the header goes.
    static var llama: GGUFDraft {
        var draft = GGUFDraft()
        draft.fields = [
            ("general.architecture", text("llama")),
            ("llama.block_count", value(4, UInt32(1))),
            ("llama.embedding_length", value(4, UInt32(8))),
            ("llama.feed_forward_length", value(4, UInt32(8))),
            ("llama.attention.head_count", value(4, UInt32(2))),
            ("llama.attention.layer_norm_rms_epsilon", value(6, Float(1e-5).bitPattern)),
        ]
        draft.tensors = [Tensor(name: "token_embd.weight", dimensions: [8, 4], offset: 0)]
        draft.data = 128
        return draft
    }

    func set(_ key: String, _ value: [UInt8]) -> GGUFDraft {
        var draft = self
        draft.fields.removeAll { $0.key == key }
        draft.fields.append((key, value))
        return draft
    }

    func edit(_ body: (inout GGUFDraft) -> Void) -> GGUFDraft {
        var draft = self
        body(&draft)
        return draft
    }

    var bytes: [UInt8] {
        var out = ImportBytes()
        out.bytes = magic
        out.put(version)
        out.put(tensorCount ?? UInt64(tensors.count))
        out.put(keyCount ?? UInt64(fields.count))
        for field in fields {
            out.put(text: field.key)
            out.bytes += field.value
        }
        for tensor in tensors {
            out.put(text: tensor.name)
            out.put(UInt32(tensor.dimensions.count))
            for dimension in tensor.dimensions { out.put(dimension) }
            out.put(tensor.type)
            out.put(tensor.offset)
        }
        while !out.bytes.count.isMultiple(of: 32) { out.bytes.append(0) }
        return out.bytes + [UInt8](repeating: 0, count: data)
    }
}

@Suite struct ImportGGUFTests {
    private static func array(_ type: UInt32, _ count: UInt64) -> [UInt8] {
        var out = ImportBytes()
        out.put(UInt32(9))
        out.put(type)
        out.put(count)
        return out.bytes
    }

    /// A llama of two layers whose feed-forward lengths stand in an array.
    private static func perLayer(_ lengths: [UInt32]) -> GGUFDraft {
        var values = ImportBytes(bytes: array(4, UInt64(lengths.count)))
        for length in lengths { values.put(length) }
        var heads = ImportBytes(bytes: array(4, 2))
        for _ in 0..<2 { heads.put(UInt32(1)) }
        return GGUFDraft.llama.set("llama.block_count", GGUFDraft.value(4, UInt32(2)))
            .set("llama.feed_forward_length", values.bytes)
            .set("llama.attention.head_count_kv", heads.bytes)
    }

    private static let good = GGUFDraft.llama
    private static let number = GGUFDraft.value(4, UInt32(7))

    static let refused: [(what: String, bytes: [UInt8], says: String)] = [
        ("another magic", good.edit { $0.magic = Array("GGUG".utf8) }.bytes, "not a GGUF"),
        ("version 1", good.edit { $0.version = 1 }.bytes, "version 1"),
        ("version 4", good.edit { $0.version = 4 }.bytes, "version 4"),
        ("big-endian", good.edit { $0.version = 0x0300_0000 }.bytes, "big-endian"),
        ("2^60 tensors", good.edit { $0.tensorCount = 1 << 60 }.bytes, "1152921504606846976"),
        ("2^64 - 1 keys", good.edit { $0.keyCount = .max }.bytes, "metadata keys"),
        ("a key twice", good.edit { $0.fields.append($0.fields[1]) }.bytes, "block_count twice"),
        (
            "a text of 2^62 bytes", good.set("x", GGUFDraft.value(8, UInt64(1) << 62)).bytes,
            "bytes of text"
        ),
        ("an array of 2^61", good.set("x", array(4, 1 << 61)).bytes, "array items"),
        ("an array past the end", good.set("x", array(4, 100_000)).bytes, "beyond its end"),
        ("arrays in arrays", good.set("x", array(9, 1)).bytes, "nested"),
        (
            "a value of type 77", good.set("x", GGUFDraft.value(77, UInt32(0))).bytes,
            "unknown type 77"
        ),
        ("a truth value of 2", good.set("x", GGUFDraft.value(7, UInt8(2))).bytes, "truth value 2"),
        (
            "a text that is no UTF-8", good.set("x", GGUFDraft.value(8, UInt64(1)) + [0xFF]).bytes,
            "UTF-8"
        ),
        (
            "an alignment of 0", good.set("general.alignment", GGUFDraft.value(4, UInt32(0))).bytes,
            "alignment 0"
        ),
        (
            "an alignment of 24",
            good.set("general.alignment", GGUFDraft.value(4, UInt32(24))).bytes, "alignment 24"
        ),
        (
            "nine dimensions",
            good.edit { $0.tensors[0].dimensions = Array(repeating: 1, count: 9) }.bytes,
            "9 dimensions"
        ),
        (
            "a dimension of 2^63", good.edit { $0.tensors[0].dimensions = [1 << 63] }.bytes,
            "dimension"
        ),
        (
            "a size of 2^80", good.edit { $0.tensors[0].dimensions = [1 << 40, 1 << 40] }.bytes,
            "does not fit"
        ),
        ("no elements", good.edit { $0.tensors[0].dimensions = [0, 4] }.bytes, "dimension of 0"),
        ("an unknown type", good.edit { $0.tensors[0].type = 16 }.bytes, "type 16"),
        ("rows that are no blocks", good.edit { $0.tensors[0].type = 2 }.bytes, "whole blocks"),
        ("an odd offset", good.edit { $0.tensors[0].offset = 4 }.bytes, "unaligned"),
        ("an offset of 2^63", good.edit { $0.tensors[0].offset = 1 << 63 }.bytes, "unaligned"),
        ("an offset near 2^63", good.edit { $0.tensors[0].offset = (1 << 63) - 32 }.bytes, "hole"),
        (
            "a hole",
            good.edit {
                $0.tensors[0].offset = 64; $0.data = 192
            }.bytes, "hole of 64"
        ),
        ("bytes left over", good.edit { $0.data = 1000 }.bytes, "872 bytes after"),
        ("data cut short", good.edit { $0.data = 127 }.bytes, "cut short"),
        (
            "an overlap",
            good.edit { $0.tensors.append(.init(name: "b", dimensions: [8], offset: 32)) }.bytes,
            "overlaps"
        ),
        (
            "a tensor twice",
            good.edit {
                $0.tensors.append(.init(name: "token_embd.weight", dimensions: [8], offset: 128));
                $0.data = 160
            }.bytes, "twice"
        ),
        ("no architecture", good.edit { $0.fields.removeFirst() }.bytes, "general.architecture"),
        (
            "another architecture", good.set("general.architecture", GGUFDraft.text("bert")).bytes,
            "\"bert\" is not known\nhint: known: llama"
        ),
        ("an adapter", good.set("general.type", GGUFDraft.text("adapter")).bytes, "adapter"),
        (
            "one of several parts", good.set("split.count", GGUFDraft.value(2, UInt16(3))).bytes,
            "split.count is 3"
        ),
        ("an unknown field", good.set("llama.new_idea", number).bytes, "llama.new_idea"),
        (
            "a logit scale",
            good.set("llama.logit_scale", GGUFDraft.value(6, Float(2).bitPattern)).bytes,
            "llama.logit_scale is 2.0"
        ),
        (
            "heads of more layers than there are",
            good.set("llama.attention.head_count_kv", array(4, 2) + [1, 0, 0, 0, 1, 0, 0, 0]).bytes,
            "head_count_kv is [1, 1]"
        ),
        (
            "an unknown scaling",
            good.set("llama.rope.scaling.type", GGUFDraft.text("longrope")).bytes, "longrope"
        ),
        (
            "2^31 layers", good.set("llama.block_count", GGUFDraft.value(4, UInt32(1) << 31)).bytes,
            "block_count"
        ),
        (
            "an endless number of experts",
            good.set("llama.expert_count", GGUFDraft.value(12, Double(1e300).bitPattern)).bytes,
            "experts"
        ),
        (
            "no layers", good.set("llama.block_count", GGUFDraft.value(4, UInt32(0))).bytes,
            "block_count"
        ),
        (
            "a partial rotation",
            good.set("llama.rope.dimension_count", GGUFDraft.value(4, UInt32(2))).bytes,
            "dimension_count is 2"
        ),
        ("no tokenizer", good.bytes, "tokenizer"),
        // Everything else about it is right.
        (
            "a number for each layer that is the same in all", perLayer([8, 8]).bytes, "tokenizer"
        ),
        ("layers that differ", perLayer([8, 16]).bytes, "feed_forward_length is [8, 16]"),
        ("a number for too few layers", perLayer([8]).bytes, "feed_forward_length is [8]"),
    ]

    @Test(arguments: refused)
    func isRefused(what: String, bytes: [UInt8], says: String) throws {
        try withFile(bytes, named: "m.gguf") { path in
            let message = refusal { _ = try openCheckpoint(at: path) }
            #expect(message?.contains(says) == true, "\(message ?? "accepted")")
            #expect(message?.contains("m.gguf") == true)
        }
    }

    /// Cut anywhere, the file is refused by name.
    @Test func everyTruncationIsRefused() throws {
        let whole = try [UInt8](Data(contentsOf: fixture("checkpoints/gguf-llama-q4_1/model.gguf")))
        for length in stride(from: 1, to: whole.count, by: 997) {
            try withFile(Array(whole[..<length]), named: "m.gguf") { path in
                let message = refusal { _ = try openCheckpoint(at: path) }
                #expect(message?.contains("m.gguf") == true, "\(length)")
            }
        }
    }

    /// Whatever the header says, the reader refuses it, or lends exactly as many bytes as shapes need.
    @Test(arguments: 0..<8)
    func mutationsNeverLeadOutside(seed: Int) throws {
        var random = SeededNumbers(seed: UInt64(seed))
        let names = ["llama-q4_1", "mixtral-q5_1", "llama-f16-llama3", "llama-q4_0-yarn"]
        let url = fixture("checkpoints/gguf-\(names[seed % 4])/model.gguf")
        let whole = try [UInt8](Data(contentsOf: url))
        // Metadata lies first, then the tokenizer, then the tensors' descriptions.
        let head = whole.count / 2
        var refusals = 0
        for _ in 0..<40 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(
                    in: 0..<(Bool.random(using: &random) ? 1200 : head), using: &random)
                bytes[at] =
                    [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &random)][
                        Int.random(in: 0..<6, using: &random)]
            }
            try withFile(bytes, named: "m.gguf") { path in
                do {
                    let checkpoint = try openCheckpoint(at: path)
                    for part in checkpoint.config.parts {
                        for tensor in try checkpoint.tensors(of: part) {
                            let width = tensor.dtype == UInt32(BLYAN_DTYPE_F32) ? 4 : 2
                            try tensor.withBytes {
                                #expect($0.count == tensor.rows * tensor.columns * width)
                            }
                        }
                    }
                } catch {
                    refusals += 1
                    #expect(error is ModelError)
                }
            }
        }
        #expect(refusals > 0)
    }

    private struct Blocks: Decodable {
        let blocks: String
        let sha256: String
        let first: [Float]
    }

    /// Each type against the `gguf` package of PyPI, bit for bit in f32.
    @Test(arguments: GGUFType.allCases.filter(\.isQuantised))
    func blocksDecodeAsElsewhere(_ type: GGUFType) throws {
        let all = try JSONDecoder().decode(
            [String: Blocks].self, from: Data(contentsOf: fixture("gguf/blocks.json")))
        let expected = try #require(all[type.name])
        let bytes = try #require(Hex.decode(expected.blocks, count: expected.blocks.count / 2))
        let count = bytes.count / type.blockBytes
        let out = AlignedBuffer<Float>(count: count * type.blockElements)
        bytes.withUnsafeBytes { type.decode($0.baseAddress!, blocks: count, into: out.pointer) }
        let values = out.array(0..<count * type.blockElements)
        #expect(Array(values.prefix(4)) == expected.first)
        #expect(values.withUnsafeBytes { SHA256.hash($0) }.description == expected.sha256)
    }

    /// A scale that f16 cannot carry makes the tensor f32; the values are the same.
    @Test func whatF16CannotHoldBecomesF32() throws {
        let url = fixture("checkpoints/gguf-llama-q8_0/model.gguf")
        let whole = try [UInt8](Data(contentsOf: url))
        let name = "blk.1.ffn_down.weight"
        let before = try dtypes(of: url.path)
        #expect(before["down"] == UInt32(BLYAN_DTYPE_F16))
        // The tensor's offset stands after its name, rank, two dimensions and type.
        let at = try #require(whole.firstRange(of: Array(name.utf8))).upperBound + 4 + 16 + 4
        let offset = whole[at..<at + 8].reversed().reduce(0) { $0 << 8 | Int($1) }
        let sizes = try dataStart(of: whole)
        var bytes = whole
        bytes.replaceSubrange(sizes + offset..<sizes + offset + 2, with: [0x00, 0x7B])
        try withFile(bytes, named: "m.gguf") { path in
            let after = try dtypes(of: path)
            #expect(after["down"] == UInt32(BLYAN_DTYPE_F32))
            #expect(after["up"] == UInt32(BLYAN_DTYPE_F16))
        }
    }

    private func dtypes(of path: String) throws -> [String: UInt32] {
        let checkpoint = try openCheckpoint(at: path)
        let part = try #require(checkpoint.config.parts.first { $0.name == "layer1.expert0" })
        return try Dictionary(
            checkpoint.tensors(of: part).map { ($0.name, $0.dtype) },
            uniquingKeysWith: { a, _ in a })
    }

    /// The last tensor ends at the end of the file, less than 32 bytes of padding before it.
    private func dataStart(of bytes: [UInt8]) throws -> Int {
        let name = try #require(bytes.firstRange(of: Array("output_norm.weight".utf8)))
        let at = name.upperBound + 4 + 8 + 4
        let offset = bytes[at..<at + 8].reversed().reduce(0) { $0 << 8 | Int($1) }
        return bytes.count - (offset + 128)
    }

    @Test func theSourceIsNamedByItsHash() throws {
        let url = fixture("checkpoints/gguf-llama-q4_1/model.gguf")
        let checkpoint = try openCheckpoint(at: url.path)
        let hash = try SHA256.hash([UInt8](Data(contentsOf: url))).description
        #expect(try checkpoint.sources().map(\.sha256) == [hash])
        #expect(try checkpoint.sources().map(\.name) == ["model.gguf"])
    }
}
