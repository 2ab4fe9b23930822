/// JSON of a model's files: any RFC 8259 text within limits, duplicate keys refused.
package indirect enum JSONDocument: Sendable, Equatable {
    case null
    case bool(Bool)
    /// The number as it is spelt.
    case number(String)
    case string(String)
    case array([JSONDocument])
    case object([Key: JSONDocument])

    /// A member's name by its bytes: Swift counts canonically equivalent strings as equal, JSON does not.
    package struct Key: Hashable, Sendable {
        package let text: String

        package static func == (a: Key, b: Key) -> Bool { a.text.utf8.elementsEqual(b.text.utf8) }

        package func hash(into hasher: inout Hasher) {
            var text = text
            text.withUTF8 { unsafe hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        }
    }

    package subscript(key: String) -> JSONDocument? { members?[Key(text: key)] }

    /// Members by name; of canonically equivalent names one, so use ``members`` where names are any text.
    package var object: [String: JSONDocument]? {
        members.map { members in
            Dictionary(members.map { ($0.text, $1) }, uniquingKeysWith: { first, _ in first })
        }
    }

    package var members: [Key: JSONDocument]? {
        guard case .object(let members) = self else { return nil }
        return members
    }

    package var array: [JSONDocument]? {
        guard case .array(let items) = self else { return nil }
        return items
    }

    package var string: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    package var bool: Bool? {
        guard case .bool(let flag) = self else { return nil }
        return flag
    }

    /// The number if it is a whole one.
    package var int: Int? {
        guard case .number(let text) = self else { return nil }
        if let value = Int(text) { return value }
        guard let value = Double(text), value == value.rounded(), abs(value) < 1e15 else {
            return nil
        }
        return Int(value)
    }

    package var double: Double? {
        guard case .number(let text) = self else { return nil }
        return Double(text)
    }

    /// Whether this is null: the same as an absent field in a `config.json`.
    var isNull: Bool { self == .null }

    /// As a person would write it, shortened.
    var summary: String {
        switch self {
        case .null: "null"
        case .bool(let flag): "\(flag)"
        case .number(let text): text
        case .string(let text): "\"\(text.prefix(80))\""
        case .array(let items): "[\(items.count) items]"
        case .object(let members):
            "{\(members.keys.map(\.text).sorted().prefix(6).joined(separator: ", "))}"
        }
    }

    /// Reads a value that fills `bytes`.
    ///
    /// - Parameter name: what errors call the text.
    init(_ bytes: UnsafeRawBufferPointer, name: String) throws(ModelError) {
        var reader = unsafe Reader(bytes: bytes, name: name)
        reader.skipSpace()
        self = try reader.value(depth: 0)
        reader.skipSpace()
        guard reader.isAtEnd else { throw reader.error("has bytes after the value") }
    }

    /// Reads a value that fills `bytes`.
    ///
    /// - Throws: ``ModelError`` naming `name`, what is wrong and at which byte.
    package init(_ bytes: [UInt8], name: String) throws(ModelError) {
        let result = unsafe bytes.withUnsafeBytes { bytes in
            Result { () throws(ModelError) in try unsafe JSONDocument(bytes, name: name) }
        }
        self = try result.get()
    }

    /// Reads a file.
    init(file path: String) throws(ModelError) {
        let file = try MappedFile(path: path)
        guard unsafe file.bytes.count <= 256 << 20 else {
            throw ModelError(
                "\(path) has \(unsafe file.bytes.count) bytes, a JSON file has at most 268435456")
        }
        try unsafe self.init(file.bytes, name: file.path)
        try file.checkUnchanged()
    }

    // Safe: reads are bounded by `bytes.count`, and a reader lives only during init.
    @safe private struct Reader {
        private let bytes: UnsafeRawBufferPointer
        private let name: String
        private var at = 0
        private static let depthLimit = 128

        init(bytes: UnsafeRawBufferPointer, name: String) {
            unsafe self.bytes = bytes
            self.name = name
        }

        var isAtEnd: Bool { unsafe at == bytes.count }
        private var next: UInt8? { unsafe at < bytes.count ? bytes[at] : nil }

        func error(_ what: String) -> ModelError {
            ModelError("\(name): JSON \(what) at byte \(at)")
        }

        mutating func skipSpace() {
            while let byte = next, byte == 32 || byte == 10 || byte == 13 || byte == 9 { at += 1 }
        }

        private mutating func expect(_ byte: UInt8) throws(ModelError) {
            guard next == byte else { throw error("lacks '\(Character(UnicodeScalar(byte)))'") }
            at += 1
        }

        mutating func value(depth: Int) throws(ModelError) -> JSONDocument {
            guard depth < Self.depthLimit else {
                throw error("nests deeper than \(Self.depthLimit)")
            }
            switch next {
            case UInt8(ascii: "{"): return try object(depth: depth)
            case UInt8(ascii: "["): return try array(depth: depth)
            case UInt8(ascii: "\""): return .string(try string())
            case UInt8(ascii: "t"): return try word("true", .bool(true))
            case UInt8(ascii: "f"): return try word("false", .bool(false))
            case UInt8(ascii: "n"): return try word("null", .null)
            default: return .number(try number())
            }
        }

        private mutating func word(_ word: StaticString, _ value: JSONDocument) throws(ModelError)
            -> JSONDocument
        {
            for i in 0..<word.utf8CodeUnitCount {
                guard next == (unsafe word.utf8Start[i]) else { throw error("has an unknown word") }
                at += 1
            }
            return value
        }

        private mutating func object(depth: Int) throws(ModelError) -> JSONDocument {
            at += 1
            skipSpace()
            var members: [Key: JSONDocument] = [:]
            if next == UInt8(ascii: "}") {
                at += 1
                return .object(members)
            }
            while true {
                skipSpace()
                let key = try string()
                skipSpace()
                try expect(UInt8(ascii: ":"))
                skipSpace()
                let member = try value(depth: depth + 1)
                guard members.updateValue(member, forKey: Key(text: key)) == nil else {
                    throw error("has the key \"\(key.prefix(80))\" twice")
                }
                skipSpace()
                if next == UInt8(ascii: "}") { break }
                try expect(UInt8(ascii: ","))
            }
            at += 1
            return .object(members)
        }

        private mutating func array(depth: Int) throws(ModelError) -> JSONDocument {
            at += 1
            skipSpace()
            var items: [JSONDocument] = []
            if next == UInt8(ascii: "]") {
                at += 1
                return .array(items)
            }
            while true {
                skipSpace()
                items.append(try value(depth: depth + 1))
                skipSpace()
                if next == UInt8(ascii: "]") { break }
                try expect(UInt8(ascii: ","))
            }
            at += 1
            return .array(items)
        }

        /// The grammar of RFC 8259, section 6, which is narrower than what `Double` reads.
        private mutating func number() throws(ModelError) -> String {
            let start = at
            if next == UInt8(ascii: "-") { at += 1 }
            if next == UInt8(ascii: "0") { at += 1 } else { try digits() }
            if next == UInt8(ascii: ".") {
                at += 1
                try digits()
            }
            if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
                at += 1
                if next == UInt8(ascii: "-") || next == UInt8(ascii: "+") { at += 1 }
                try digits()
            }
            guard at - start < 64 else { throw error("has a number of over 63 characters") }
            return unsafe String(
                decoding: UnsafeRawBufferPointer(rebasing: bytes[start..<at]), as: UTF8.self)
        }

        private mutating func digits() throws(ModelError) {
            let start = at
            while let byte = next, (48...57).contains(byte) { at += 1 }
            guard at > start else { throw error("lacks a value or a digit") }
        }

        private mutating func string() throws(ModelError) -> String {
            try expect(UInt8(ascii: "\""))
            let start = at
            while let byte = next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"),
                byte >= 32
            { at += 1 }
            var out = unsafe [UInt8](bytes[start..<at])
            while let byte = next, byte != UInt8(ascii: "\"") {
                guard byte >= 32 else { throw error("has a control character in a string") }
                at += 1
                if byte == UInt8(ascii: "\\") { try escape(into: &out) } else { out.append(byte) }
            }
            try expect(UInt8(ascii: "\""))
            guard let text = String(validating: out, as: UTF8.self) else {
                throw error("has text that is not UTF-8")
            }
            return text
        }

        private mutating func escape(into out: inout [UInt8]) throws(ModelError) {
            guard let byte = next else { throw error("ends inside an escape") }
            at += 1
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
            case UInt8(ascii: "b"): out.append(8)
            case UInt8(ascii: "t"): out.append(9)
            case UInt8(ascii: "n"): out.append(10)
            case UInt8(ascii: "f"): out.append(12)
            case UInt8(ascii: "r"): out.append(13)
            case UInt8(ascii: "u"):
                var code = try hexUnit()
                if (0xD800..<0xDC00).contains(code) {
                    try expect(UInt8(ascii: "\\"))
                    try expect(UInt8(ascii: "u"))
                    let low = try hexUnit()
                    guard (0xDC00..<0xE000).contains(low) else {
                        throw error("has a lone surrogate")
                    }
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                }
                guard let scalar = UnicodeScalar(code) else { throw error("has a lone surrogate") }
                out.append(contentsOf: Array(String(Character(scalar)).utf8))
            default: throw error("has an unknown escape")
            }
        }

        private mutating func hexUnit() throws(ModelError) -> UInt32 {
            var value: UInt32 = 0
            for _ in 0..<4 {
                guard let byte = next, let digit = Character(UnicodeScalar(byte)).hexDigitValue
                else {
                    throw error("has a bad \\u escape")
                }
                value = value << 4 | UInt32(digit)
                at += 1
            }
            return value
        }
    }
}

extension JSONDocument {
    /// A member that must be true or false where it is given.
    func flag(_ key: String, default value: Bool) throws(ModelError) -> Bool {
        guard let member = self[key], !member.isNull else { return value }
        guard let flag = member.bool else { throw wrong(key, member, "true or false") }
        return flag
    }

    /// A member that must be text where it is given.
    func text(_ key: String) throws(ModelError) -> String? {
        guard let member = self[key], !member.isNull else { return nil }
        guard let text = member.string else { throw wrong(key, member, "text") }
        return text
    }

    /// A member that must be an array where it is given.
    func list(_ key: String) throws(ModelError) -> [JSONDocument] {
        guard let member = self[key], !member.isNull else { return [] }
        guard let items = member.array else { throw wrong(key, member, "an array") }
        return items
    }

    private func wrong(_ key: String, _ found: JSONDocument, _ expected: String) -> ModelError {
        ModelError("\(key) is \(found.summary), expected \(expected)")
    }
}
