import BlyanModel
import Foundation

/// Bytes of model files as tests write them: little-endian fields in a row.
struct ImportBytes {
    var bytes: [UInt8] = []

    mutating func put<I: FixedWidthInteger>(_ value: I) {
        for i in 0..<I.bitWidth / 8 {
            bytes.append(UInt8(truncatingIfNeeded: value >> I(8 * i)))
        }
    }

    /// GGUF text: length and bytes.
    mutating func put(text: String) {
        put(UInt64(text.utf8.count))
        bytes += Array(text.utf8)
    }
}

/// A file with `bytes` for the length of `body`.
func withFile<R>(
    _ bytes: [UInt8], named name: String = "model.safetensors", _ body: (String) throws -> R
) throws -> R {
    let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("blyan-import-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appendingPathComponent(name)
    try Data(bytes).write(to: file)
    return try body(file.path)
}

/// What reading was refused with, or nil if it was not.
func refusal(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch { return "\(error)" }
}

/// A folder of fixtures.
func fixture(_ path: String) -> URL {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures").appendingPathComponent(path)
}

/// Numbers that are the same in every run, by splitmix64.
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}
