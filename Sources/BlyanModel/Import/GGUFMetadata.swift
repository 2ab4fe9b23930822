/// Typed access to a GGUF file's metadata: absent is nil, another type is an error.
struct GGUFMetadata {
    let gguf: GGUFFile

    init(_ gguf: GGUFFile) { self.gguf = gguf }

    var path: String { gguf.file.path }

    private func read<T>(
        _ key: String, _ expected: String, _ body: (GGUFValue) -> T?
    ) throws(ModelError) -> T? {
        guard let value = gguf.metadata[key] else { return nil }
        guard let found = body(value) else {
            throw ModelError("\(path): \(key) is not \(expected)")
        }
        return found
    }

    func int(_ key: String) throws(ModelError) -> Int? {
        try read(key, "a whole number") { if case .int(let value) = $0 { value } else { nil } }
    }

    func double(_ key: String) throws(ModelError) -> Double? {
        try read(key, "a number") {
            switch $0 {
            case .double(let value): value
            case .int(let value): Double(value)
            default: nil
            }
        }
    }

    func bool(_ key: String) throws(ModelError) -> Bool? {
        try read(key, "true or false") { if case .bool(let value) = $0 { value } else { nil } }
    }

    func string(_ key: String) throws(ModelError) -> String? {
        try read(key, "text") { if case .string(let value) = $0 { value } else { nil } }
    }

    func strings(_ key: String) throws(ModelError) -> [String]? {
        try read(key, "an array of texts") {
            if case .strings(let value) = $0 { value } else { nil }
        }
    }

    func ints(_ key: String) throws(ModelError) -> [Int]? {
        try read(key, "an array of whole numbers") {
            if case .ints(let value) = $0 { value } else { nil }
        }
    }

    func doubles(_ key: String) throws(ModelError) -> [Double]? {
        try read(key, "an array of numbers") {
            if case .doubles(let value) = $0 { value } else { nil }
        }
    }
}
