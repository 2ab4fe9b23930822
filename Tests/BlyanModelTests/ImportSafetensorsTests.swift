import BlyanKernel
import BlyanModel
import Foundation
import Testing

@Suite struct ImportSafetensorsTests {
    static func file(_ header: String, data: Int, length: UInt64? = nil) -> [UInt8] {
        var out = ImportBytes()
        out.put(length ?? UInt64(header.utf8.count))
        return out.bytes + Array(header.utf8) + [UInt8](repeating: 7, count: data)
    }

    private static func tensor(_ fields: String) -> String { "{\"a\":{\(fields)}}" }
    private static let good = #""dtype":"F32","shape":[2,2],"data_offsets":[0,16]"#

    static let refused: [(what: String, bytes: [UInt8], says: String)] = [
        ("seven bytes", [1, 2, 3, 4, 5, 6, 7], "7 bytes"),
        ("an empty header", file("", data: 0), "begin with {"),
        ("an empty header and data", file("", data: 8), "begin with {"),
        ("an exabyte", file("{}", data: 0, length: 1 << 60), "1152921504606846976"),
        ("2^64 - 1", file("{}", data: 0, length: .max), "18446744073709551615"),
        ("a header past the end", file("{}", data: 0, length: 900), "cut short"),
        ("a list", file("[]", data: 0), "begin with {"),
        ("metadata of numbers", file(#"{"__metadata__":{"a":1}}"#, data: 0), "__metadata__"),
        ("a tensor twice", file("{\"a\":{\(good)},\"a\":{\(good)}}", data: 16), "twice"),
        (
            "a hole", file(tensor(#""dtype":"U8","shape":[4],"data_offsets":[4,8]"#), data: 8),
            "hole"
        ),
        ("bytes left over", file(tensor(good), data: 17), "the file at"),
        ("data cut short", file(tensor(good), data: 15), "cut short"),
        (
            "an overlap",
            file(
                #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
                data: 6), "overlap"
        ),
        (
            "a shape of 2^126",
            file(
                tensor(
                    #""dtype":"U8","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,4]"#
                ), data: 4), "63 bits"
        ),
        (
            "a negative shape",
            file(tensor(#""dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]"#), data: 4),
            "dimension"
        ),
        (
            "negative offsets",
            file(tensor(#""dtype":"U8","shape":[4],"data_offsets":[-4,0]"#), data: 4), "offsets"
        ),
        (
            "a fourth field",
            file(tensor(good + #","x":1"#), data: 16), "is not described"
        ),
        (
            "a fractional shape",
            file(tensor(#""dtype":"U8","shape":[1.5],"data_offsets":[0,4]"#), data: 4), "dimension"
        ),
        ("an unknown dtype", file(tensor(good).replacing("F32", with: "F31"), data: 16), "F31"),
    ]

    @Test(arguments: refused)
    func isRefused(what: String, bytes: [UInt8], says: String) throws {
        try withFile(bytes) { path in
            let message = refusal { _ = try SafetensorsFile(path: path) }
            #expect(message?.contains(says) == true, "\(message ?? "accepted")")
            #expect(message?.contains("model.safetensors") == true)
        }
    }

    @Test func aPaddedHeaderAndEmptyTensorsAreRead() throws {
        let header =
            "{\"b\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[16,16]},\"a\":{\(Self.good)}}   "
        try withFile(Self.file(header, data: 16)) { path in
            let file = try SafetensorsFile(path: path)
            #expect(file.entries["a"]?.shape == [2, 2])
            #expect(file.entries["b"]?.range.isEmpty == true)
        }
    }

    @Test func aFileThatGrowsMeanwhileIsNoticed() throws {
        try withFile(Self.file(Self.tensor(Self.good), data: 16)) { path in
            let file = try SafetensorsFile(path: path)
            let entry = try #require(file.entries["a"])
            try entry.bytes.withBytes(entry.range) { #expect($0.count == 16) }
            let handle = try #require(FileHandle(forWritingAtPath: path))
            try handle.seekToEnd()
            try handle.write(contentsOf: Data([1]))
            try handle.close()
            let message = refusal { try entry.bytes.withBytes(entry.range) { _ in } }
            #expect(message?.contains("changed while it was read") == true)
        }
    }

    /// The bytes of a page that is gone are zeros, and an error says so: not the end of the process.
    @Test func aFileCutShortWhileItIsReadIsNoticed() throws {
        let length = 1 << 20
        let header =
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[\(length)],\"data_offsets\":[0,\(length)]}}"
        try withFile(Self.file(header, data: length)) { path in
            let file = try SafetensorsFile(path: path)
            let entry = try #require(file.entries["a"])
            let handle = try #require(FileHandle(forWritingAtPath: path))
            let message = refusal {
                try entry.bytes.withBytes(entry.range) { bytes in
                    try handle.truncate(atOffset: 10)
                    #expect(bytes[length - 1] == 0)
                }
            }
            #expect(message?.contains(path) == true, "\(message ?? "accepted")")
            #expect(message?.contains("cut short") == true)
        }
    }

    @Test func aFileThatIsSetBackIsNoticed() throws {
        try withFile(Self.file(Self.tensor(Self.good), data: 16)) { path in
            let file = try SafetensorsFile(path: path)
            let entry = try #require(file.entries["a"])
            let before = try FileManager.default.attributesOfItem(atPath: path)
            let handle = try #require(FileHandle(forUpdatingAtPath: path))
            try handle.seekToEnd()
            try handle.seek(toOffset: handle.offset() - 1)
            try handle.write(contentsOf: Data([9]))
            let written = try #require(before[.modificationDate])
            try FileManager.default.setAttributes([.modificationDate: written], ofItemAtPath: path)
            let message = refusal { try entry.bytes.withBytes(entry.range) { _ in } }
            #expect(message?.contains("changed while it was read") == true)
        }
    }

    /// A model is its bytes, not the names and sizes of its files.
    @Test(arguments: ["llama-bf16", "qwen3-sharded"])
    func everySourceIsHashed(name: String) throws {
        let folder = fixture("checkpoints/\(name)")
        let sources = try openCheckpoint(at: folder.path).sources()
        #expect(!sources.isEmpty)
        for source in sources {
            let bytes = try [UInt8](Data(contentsOf: folder.appendingPathComponent(source.name)))
            #expect(source.size == bytes.count)
            #expect(source.sha256 == SHA256.hash(bytes).description)
        }
    }

    /// Whatever the header says, the reader refuses it or describes bytes that are there.
    @Test(arguments: 0..<8)
    func mutationsNeverLeadOutside(seed: Int) throws {
        var random = SeededNumbers(seed: UInt64(seed))
        let whole = try [UInt8](
            Data(contentsOf: fixture("checkpoints/llama-bf16/model.safetensors")))
        let length = whole.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        var accepted = 0
        for _ in 0..<60 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let at = Int.random(in: 0..<8 + length, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1:
                    bytes[at] = Array("0123456789,:[]{}\"-e. ".utf8).randomElement(using: &random)!
                case 2: bytes.remove(at: at)
                default: bytes.removeLast(Int.random(in: 0..<200, using: &random))
                }
            }
            try withFile(bytes) { path in
                guard let file = try? SafetensorsFile(path: path) else { return }
                accepted += 1
                for entry in file.entries.values {
                    #expect(entry.range.lowerBound >= 8 && entry.range.upperBound <= bytes.count)
                }
            }
        }
        #expect(accepted < 60)
    }
}
