/// Typed access to a GGUF file's metadata.
struct GGUFMetadata {
    let gguf: GGUFFile

    init(_ gguf: GGUFFile) { self.gguf = gguf }

    var path: String { gguf.file.path }

    func int(_ key: String) -> Int? {
        guard case .int(let value) = gguf.metadata[key] else { return nil }
        return value
    }

    func double(_ key: String) -> Double? {
        switch gguf.metadata[key] {
        case .double(let value): value
        case .int(let value): Double(value)
        default: nil
        }
    }

    func bool(_ key: String) -> Bool? {
        guard case .bool(let value) = gguf.metadata[key] else { return nil }
        return value
    }

    func string(_ key: String) -> String? {
        guard case .string(let value) = gguf.metadata[key] else { return nil }
        return value
    }

    func strings(_ key: String) -> [String]? {
        guard case .strings(let value) = gguf.metadata[key] else { return nil }
        return value
    }

    func ints(_ key: String) -> [Int]? {
        guard case .ints(let value) = gguf.metadata[key] else { return nil }
        return value
    }

    func doubles(_ key: String) -> [Double]? {
        guard case .doubles(let value) = gguf.metadata[key] else { return nil }
        return value
    }
}
