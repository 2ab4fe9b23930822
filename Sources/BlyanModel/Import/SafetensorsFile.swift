/// A safetensors file, read strictly: huggingface.co/docs/safetensors.
///
/// Eight bytes of header length, a JSON header, data: no holes, no overlaps, no bytes left over.
package struct SafetensorsFile: NamedTensors {
    package let entries: [String: TensorEntry]
    package let files: [MappedFile]

    /// Whether a file begins as safetensors do, whatever it is called.
    ///
    /// - Throws: ``ModelError`` if it is absent, empty or no regular file.
    static func isBegun(at path: String) throws(ModelError) -> Bool {
        let file = try MappedFile(path: path)
        let bytes = unsafe file.bytes
        guard bytes.count > 8, unsafe bytes[8] == UInt8(ascii: "{") else { return false }
        return unsafe UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
            <= UInt64(headerLimit)
    }

    private static let headerLimit = 100_000_000
    private static let tensorLimit = 1_000_000

    /// Maps a file and checks its header.
    ///
    /// - Throws: ``ModelError`` naming the file, and the tensor where one is at fault.
    package init(path: String) throws(ModelError) {
        let file = try MappedFile(path: path)
        files = [file]
        let bytes = unsafe file.bytes
        func bad(_ what: String) -> ModelError { ModelError("\(path): \(what)") }
        guard bytes.count >= 8 else {
            throw bad("\(bytes.count) bytes are too few for a safetensors file")
        }
        let length = unsafe UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(Self.headerLimit) else {
            throw bad("a header of \(length) bytes exceeds \(Self.headerLimit)")
        }
        guard length <= UInt64(bytes.count - 8) else {
            throw bad(
                "the header needs \(length) bytes, the file has \(bytes.count - 8) after its length: it is cut short"
            )
        }
        let start = 8 + Int(length)
        guard length > 0, unsafe bytes[8] == UInt8(ascii: "{") else {
            throw bad("the header does not begin with {")
        }
        let header = try unsafe JSONDocument(
            UnsafeRawBufferPointer(rebasing: bytes[8..<start]), name: path)
        guard let members = header.members else { throw bad("the header is not a JSON object") }
        guard members.count <= Self.tensorLimit else {
            throw bad("\(members.count) tensors exceed \(Self.tensorLimit)")
        }
        var entries: [String: TensorEntry] = [:]
        for (key, value) in members {
            let name = key.text
            if name == "__metadata__" {
                guard value.members?.allSatisfy({ $0.value.string != nil }) == true else {
                    throw bad("__metadata__ is not an object of strings")
                }
                continue
            }
            let entry = try Self.entry(name, value, file, dataStart: start)
            guard entries.updateValue(entry, forKey: name) == nil else {
                throw bad("has tensor \(name.prefix(200)) twice")
            }
        }
        var end = start
        for entry in entries.values.sorted(by: {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }) {
            guard entry.range.lowerBound == end else {
                throw bad(
                    "tensor \(entry.name) begins at byte \(entry.range.lowerBound - start) of the data, expected \(end - start): tensors overlap or leave a hole"
                )
            }
            end = entry.range.upperBound
        }
        guard end == bytes.count else {
            throw bad("tensors end at byte \(end), the file at \(bytes.count)")
        }
        try file.checkUnchanged()
        self.entries = entries
    }

    private static let widths = [
        "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
        "BF16": 2,
        "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
    ]

    private static func entry(
        _ name: String, _ value: JSONDocument, _ file: MappedFile, dataStart: Int
    ) throws(ModelError) -> TensorEntry {
        func bad(_ what: String) -> ModelError {
            ModelError("\(file.path): tensor \(name.prefix(200)) \(what)")
        }
        guard value.members?.count == 3, let dtype = value["dtype"]?.string,
            let dimensions = value["shape"]?.array,
            let offsets = value["data_offsets"]?.array, offsets.count == 2,
            let begin = offsets[0].int, let end = offsets[1].int
        else { throw bad("is not described by dtype, shape and two data_offsets") }
        guard let width = widths[dtype] else { throw bad("has the unknown dtype \(dtype)") }
        guard dimensions.count <= 8 else {
            throw bad("has \(dimensions.count) dimensions, at most 8")
        }
        var shape: [Int] = []
        var size = width
        for dimension in dimensions {
            guard let dimension = dimension.int, dimension >= 0 else {
                throw bad("has a dimension that is no size")
            }
            let (product, overflow) = size.multipliedReportingOverflow(by: dimension)
            guard !overflow else { throw bad("has a shape whose size does not fit 63 bits") }
            size = product
            shape.append(dimension)
        }
        let available = unsafe file.bytes.count - dataStart
        guard begin >= 0, begin <= end, end <= available else {
            throw bad(
                "has data_offsets \(begin)..\(end), the data has \(available) bytes: the file is cut short or lies"
            )
        }
        guard end - begin == size else {
            throw bad("has \(end - begin) bytes, its shape and dtype need \(size)")
        }
        return TensorEntry(
            name: name, shape: shape, dtypeName: dtype, bytes: file,
            range: dataStart + begin..<dataStart + end)
    }
}

/// Several safetensors files under one index (`model.safetensors.index.json`).
package struct ShardedSafetensors: NamedTensors {
    package let entries: [String: TensorEntry]
    package let files: [MappedFile]

    /// Maps every file that the index names.
    ///
    /// - Throws: ``ModelError`` naming the file or the tensor on which index and files differ.
    package init(directory: String, index: String) throws(ModelError) {
        let index = try WeightIndex(directory: directory, name: index, suffix: ".safetensors")
        var entries: [String: TensorEntry] = [:]
        var files: [MappedFile] = []
        for shard in index.files {
            let file = try SafetensorsFile(path: "\(directory)/\(shard)")
            files += file.files
            for (name, entry) in file.entries {
                try index.check(name, liesIn: shard)
                entries[name] = entry
            }
        }
        try index.checkComplete(entries)
        self.entries = entries
        self.files = files
    }
}
