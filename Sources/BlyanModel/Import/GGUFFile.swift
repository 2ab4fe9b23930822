/// A value of GGUF metadata.
enum GGUFValue: Sendable {
    case int(Int)
    case double(Double)
    case bool(Bool)
    case string(String)
    case strings([String])
    case ints([Int])
    case doubles([Double])
}

/// A tensor of a GGUF file; dimensions innermost first, as the file has them.
struct GGUFTensor: Sendable {
    let name: String
    let dimensions: [Int]
    let type: GGUFType
    let range: Range<Int>
}

/// A GGUF file, versions 2 and 3, read strictly: the specification of ggml, docs/gguf.md.
struct GGUFFile: Sendable {
    let file: MappedFile
    let metadata: [String: GGUFValue]
    let tensors: [String: GGUFTensor]

    private enum Limit {
        static let keys = 100_000
        static let tensors = 65_536
        static let text = 16 << 20
        static let items = 4_000_000
        static let dimensions = 4
    }

    init(path: String) throws(ModelError) {
        file = try MappedFile(path: path)
        var reader = Reader(file: file)
        guard try reader.take(4) == Array("GGUF".utf8) else {
            throw ModelError("\(path) is not a GGUF file: it does not begin with GGUF")
        }
        let version = try reader.integer(UInt32.self)
        guard version == 2 || version == 3 else {
            throw ModelError(
                version == 0x0300_0000 || version == 0x0200_0000
                    ? "\(path) is a big-endian GGUF file, expected little-endian"
                    : "\(path) has GGUF version \(version), this build reads 2 and 3")
        }
        let tensorCount = try reader.count(limit: Limit.tensors, "tensors")
        let keyCount = try reader.count(limit: Limit.keys, "metadata keys")
        var metadata: [String: GGUFValue] = [:]
        for _ in 0..<keyCount {
            let key = try reader.text(limit: 65_535)
            let value = try reader.value()
            guard metadata.updateValue(value, forKey: key) == nil else {
                throw reader.bad("has the metadata key \(key) twice")
            }
        }
        self.metadata = metadata
        var alignment = 32
        if case .int(let value) = metadata["general.alignment"] {
            guard value > 0, value % 8 == 0, value & (value - 1) == 0, value <= 1 << 20 else {
                throw reader.bad("has alignment \(value)")
            }
            alignment = value
        }
        tensors = try Self.readTensors(&reader, count: tensorCount, alignment: alignment)
        try file.checkUnchanged()
    }

    private static func readTensors(
        _ reader: inout Reader, count: Int, alignment: Int
    ) throws(ModelError) -> [String: GGUFTensor] {
        var described: [(name: String, dimensions: [Int], type: GGUFType, offset: Int, size: Int)] =
            []
        for _ in 0..<count {
            let name = try reader.text(limit: 255)
            let rank = Int(try reader.integer(UInt32.self))
            guard rank >= 1, rank <= Limit.dimensions else {
                throw reader.bad(
                    "has tensor \(name) of \(rank) dimensions, expected 1 to \(Limit.dimensions)")
            }
            var dimensions: [Int] = []
            var elements = 1
            for _ in 0..<rank {
                let dimension = try reader.integer(UInt64.self)
                guard let size = Int(exactly: dimension), size > 0 else {
                    throw reader.bad("has tensor \(name) with a dimension of \(dimension)")
                }
                let (product, overflow) = elements.multipliedReportingOverflow(by: size)
                guard !overflow, product <= 1 << 48 else {
                    throw reader.bad("has tensor \(name), whose size does not fit")
                }
                elements = product
                dimensions.append(size)
            }
            let code = try reader.integer(UInt32.self)
            guard let type = GGUFType(rawValue: code) else {
                throw reader.bad(
                    "has tensor \(name) of type \(code); known: \(GGUFType.allCases.map(\.name).joined(separator: ", "))"
                )
            }
            guard dimensions[0] % type.blockElements == 0 else {
                throw reader.bad(
                    "has tensor \(name) whose rows of \(dimensions[0]) are no whole blocks")
            }
            let offset = try reader.integer(UInt64.self)
            guard let start = Int(exactly: offset), start % alignment == 0 else {
                throw reader.bad("has tensor \(name) at the unaligned offset \(offset)")
            }
            described.append(
                (name, dimensions, type, start, elements / type.blockElements * type.blockBytes))
        }
        let dataStart = (reader.at + alignment - 1) / alignment * alignment
        var tensors: [String: GGUFTensor] = [:]
        var end = 0
        for tensor in described.sorted(by: { ($0.offset, $0.size) < ($1.offset, $1.size) }) {
            guard tensor.offset >= end else {
                throw reader.bad("has tensor \(tensor.name) that overlaps another")
            }
            guard tensor.offset - end < alignment else {
                throw reader.bad(
                    "has a hole of \(tensor.offset - end) bytes before tensor \(tensor.name)")
            }
            let (last, overflow) = tensor.offset.addingReportingOverflow(tensor.size)
            guard !overflow, last <= reader.size - dataStart else {
                throw reader.bad(
                    "has tensor \(tensor.name) at bytes \(tensor.offset)..<\(last) of the data, which has \(max(0, reader.size - dataStart)): the file is cut short or lies"
                )
            }
            end = last
            let range = dataStart + tensor.offset..<dataStart + last
            let entry = GGUFTensor(
                name: tensor.name, dimensions: tensor.dimensions, type: tensor.type, range: range)
            guard tensors.updateValue(entry, forKey: tensor.name) == nil else {
                throw reader.bad("has tensor \(tensor.name) twice")
            }
        }
        guard reader.size - dataStart - end < alignment else {
            throw reader.bad("has \(reader.size - dataStart - end) bytes after its last tensor")
        }
        return tensors
    }

    // Safe: reads are bounded by the file's size.
    /// Reads the header in order.
    @safe private struct Reader {
        let file: MappedFile
        private(set) var at = 0
        var size: Int { unsafe file.bytes.count }

        init(file: MappedFile) { self.file = file }

        func bad(_ what: String) -> ModelError { ModelError("\(file.path) \(what)") }

        mutating func take(_ count: Int) throws(ModelError) -> [UInt8] {
            guard count >= 0, count <= size - at else { throw bad("is cut short at byte \(at)") }
            defer { at += count }
            return unsafe Array(file.bytes[at..<at + count])
        }

        mutating func integer<I: FixedWidthInteger>(_: I.Type) throws(ModelError) -> I {
            let width = I.bitWidth / 8
            guard width <= size - at else { throw bad("is cut short at byte \(at)") }
            defer { at += width }
            return unsafe I(littleEndian: file.bytes.loadUnaligned(fromByteOffset: at, as: I.self))
        }

        mutating func count(limit: Int, _ what: String) throws(ModelError) -> Int {
            let value = try integer(UInt64.self)
            guard value <= UInt64(limit) else {
                throw bad("claims \(value) \(what), at most \(limit)")
            }
            return Int(value)
        }

        mutating func text(limit: Int) throws(ModelError) -> String {
            let length = try count(limit: limit, "bytes of text")
            guard let text = String(validating: try take(length), as: UTF8.self) else {
                throw bad("has text that is not UTF-8 before byte \(at)")
            }
            return text
        }

        mutating func value() throws(ModelError) -> GGUFValue {
            let type = try integer(UInt32.self)
            guard type == 9 else { return try scalar(type) }
            let element = try integer(UInt32.self)
            let count = try count(limit: Limit.items, "array items")
            guard element != 9 else { throw bad("has nested arrays") }
            // The smallest element has one byte: a claim beyond the file is refused before anything is reserved.
            guard count <= size - at else {
                throw bad("claims an array of \(count) items beyond its end")
            }
            var strings: [String] = []
            var ints: [Int] = []
            var doubles: [Double] = []
            for _ in 0..<count {
                switch try scalar(element) {
                case .string(let text): strings.append(text)
                case .int(let value): ints.append(value)
                case .bool(let flag): ints.append(flag ? 1 : 0)
                case .double(let value): doubles.append(value)
                default: throw bad("has an array of unknown type \(element)")
                }
            }
            if element == 8 { return .strings(strings) }
            return element == 6 || element == 12 ? .doubles(doubles) : .ints(ints)
        }

        private mutating func scalar(_ type: UInt32) throws(ModelError) -> GGUFValue {
            switch type {
            case 0: return .int(Int(try integer(UInt8.self)))
            case 1: return .int(Int(try integer(Int8.self)))
            case 2: return .int(Int(try integer(UInt16.self)))
            case 3: return .int(Int(try integer(Int16.self)))
            case 4: return .int(Int(try integer(UInt32.self)))
            case 5: return .int(Int(try integer(Int32.self)))
            case 6: return .double(Double(Float(bitPattern: try integer(UInt32.self))))
            case 7:
                let byte = try integer(UInt8.self)
                guard byte <= 1 else { throw bad("has the truth value \(byte)") }
                return .bool(byte == 1)
            case 8: return .string(try text(limit: Limit.text))
            case 10: return .int(Int(clamping: try integer(UInt64.self)))
            case 11: return .int(Int(try integer(Int64.self)))
            case 12: return .double(Double(bitPattern: try integer(UInt64.self)))
            default: throw bad("has metadata of the unknown type \(type) before byte \(at)")
            }
        }
    }
}
