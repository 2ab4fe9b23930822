/// Reads the JSON that the chain allows, strictly: RFC 8259 grammar, no floats, no duplicate keys, no deep nesting.
struct JSONParser {
    private let bytes: [UInt8]
    fileprivate var at: Int
    /// Whether what was read is the canonical form of its value (RFC 8785).
    fileprivate var isCanonical = true

    /// Reads one value that fills `bytes`.
    ///
    /// - Throws: ``JSONError`` naming the byte.
    static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
        var parser = JSONParser(bytes: bytes)
        parser.skipSpace()
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.at == bytes.count else { throw parser.error("has bytes after the value") }
        return value
    }

    fileprivate init(bytes: [UInt8], at: Int = 0) {
        self.bytes = bytes
        self.at = at
    }

    private func error(_ what: String) -> JSONError {
        JSONError("JSON \(what) at byte \(at)")
    }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 32 || byte == 9 || byte == 10 || byte == 13 {
            at += 1
            isCanonical = false
        }
    }

    private mutating func expect(_ byte: UInt8) throws(JSONError) {
        guard next == byte else {
            throw error("lacks '\(Character(UnicodeScalar(byte)))'")
        }
        at += 1
    }

    fileprivate mutating func value(depth: Int) throws(JSONError) -> JSONValue {
        guard depth <= JSONValue.depthLimit else {
            throw JSONError(
                "JSON nests deeper than \(JSONValue.depthLimit) at byte \(at)", isLimit: true)
        }
        switch next {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return .int(try integer())
        }
    }

    private mutating func word(_ word: String, _ value: JSONValue) throws(JSONError) -> JSONValue {
        guard bytes[at...].starts(with: word.utf8) else { throw error("has an unknown word") }
        at += word.utf8.count
        return value
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSONValue {
        try expect(UInt8(ascii: "{"))
        skipSpace()
        var members: [String: JSONValue] = [:]
        var last: String?
        if next == UInt8(ascii: "}") {
            at += 1
            return .object(members)
        }
        while true {
            skipSpace()
            let key = try string()
            if let last, !last.utf16.lexicographicallyPrecedes(key.utf16) { isCanonical = false }
            last = key
            skipSpace()
            try expect(UInt8(ascii: ":"))
            skipSpace()
            let member = try value(depth: depth + 1)
            // Swift compares strings by canonical equivalence, so é in two spellings counts as one key: refused too.
            guard members.updateValue(member, forKey: key) == nil else {
                throw error("has the key \"\(key)\" twice")
            }
            skipSpace()
            if next == UInt8(ascii: "}") { break }
            try expect(UInt8(ascii: ","))
        }
        at += 1
        return .object(members)
    }

    private mutating func array(depth: Int) throws(JSONError) -> JSONValue {
        try expect(UInt8(ascii: "["))
        skipSpace()
        var items: [JSONValue] = []
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

    private mutating func integer() throws(JSONError) -> Int64 {
        let start = at
        let negative = next == UInt8(ascii: "-")
        if negative { at += 1 }
        let first = at
        var value: Int64 = 0
        while let byte = next, byte >= 48, byte <= 57 {
            value = value * 10 + Int64(byte - 48)
            guard value <= JSONValue.integers.upperBound else {
                at = start
                throw error("has an integer beyond ±(2^53 − 1)")
            }
            at += 1
        }
        guard at > first else { throw error("lacks a value") }
        guard bytes[first] != 48 || at == first + 1 else {
            throw error("has a number with a leading zero")
        }
        guard !negative || value != 0 else { throw error("has a negative zero") }
        if let byte = next,
            byte == UInt8(ascii: ".") || byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E")
        {
            throw error("has a number that is no integer")
        }
        return negative ? -value : value
    }

    private mutating func string() throws(JSONError) -> String {
        try expect(UInt8(ascii: "\""))
        let start = at
        while let byte = next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 32 {
            at += 1
        }
        if next == UInt8(ascii: "\"") {
            guard let text = String(validating: bytes[start..<at], as: UTF8.self) else {
                throw error("has text that is not UTF-8")
            }
            at += 1
            return text
        }
        var out = Array(bytes[start..<at])
        while true {
            guard let byte = next else { throw error("ends inside a string") }
            at += 1
            if byte == UInt8(ascii: "\"") { break }
            guard byte >= 32 else { throw error("has a control character in a string") }
            if byte == UInt8(ascii: "\\") {
                let (start, length) = (at - 1, out.count)
                try escape(into: &out)
                // What RFC 8785 escapes, and how, is what the writer writes for these characters.
                var written: [UInt8] = []
                Canonical.write(String(decoding: out[length...], as: UTF8.self), to: &written)
                if !written.dropFirst().dropLast().elementsEqual(bytes[start..<at]) {
                    isCanonical = false
                }
            } else {
                out.append(byte)
            }
        }
        guard let text = String(validating: out, as: UTF8.self) else {
            throw error("has text that is not UTF-8")
        }
        return text
    }

    private mutating func escape(into out: inout [UInt8]) throws(JSONError) {
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
            var code = UInt32(try hexUnit())
            if (0xD800..<0xDC00).contains(code) {
                try expect(UInt8(ascii: "\\"))
                try expect(UInt8(ascii: "u"))
                let low = UInt32(try hexUnit())
                guard (0xDC00..<0xE000).contains(low) else { throw error("has a lone surrogate") }
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
            }
            guard let scalar = UnicodeScalar(code) else { throw error("has a lone surrogate") }
            out.append(contentsOf: UTF8.encode(scalar).map { Array($0) } ?? [])
        default: throw error("has an unknown escape")
        }
    }

    private mutating func hexUnit() throws(JSONError) -> UInt16 {
        guard at + 4 <= bytes.count,
            let text = String(validating: bytes[at..<at + 4], as: UTF8.self),
            let unit = UInt16(text, radix: 16), !text.hasPrefix("+"), !text.hasPrefix("-")
        else { throw error("has a bad \\u escape") }
        at += 4
        return unit
    }
}

extension JSONValue {
    /// Reads the value that begins at byte `at`, which moves behind it.
    ///
    /// - Parameter depth: arrays and objects that it lies in.
    /// - Throws: ``JSONError`` naming the byte; also if it is not canonical.
    public init(canonicalIn bytes: [UInt8], at: inout Int, depth: Int) throws(JSONError) {
        var parser = JSONParser(bytes: bytes, at: at)
        self = try parser.value(depth: depth)
        guard parser.isCanonical else {
            throw JSONError("JSON is not canonical (RFC 8785) after byte \(at)")
        }
        at = parser.at
    }

    /// Reads JSON text that need not be canonical.
    ///
    /// - Throws: ``JSONError`` naming the byte.
    public init(parsing bytes: [UInt8]) throws(JSONError) { self = try JSONParser.parse(bytes) }

    /// Reads JSON that must be in canonical form.
    ///
    /// - Throws: ``JSONError`` naming the first byte that differs.
    public init(canonical bytes: [UInt8]) throws(JSONError) {
        self = try JSONParser.parse(bytes)
        let expected = canonical()
        guard expected != bytes else { return }
        let at =
            zip(expected, bytes).enumerated().first { $1.0 != $1.1 }?.offset
            ?? min(expected.count, bytes.count)
        throw JSONError("JSON is not canonical (RFC 8785) from byte \(at) on")
    }
}
