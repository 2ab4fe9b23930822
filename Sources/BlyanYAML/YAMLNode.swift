/// A value of a YAML or JSON document, and where it stands.
public struct YAMLNode: Sendable {
    /// What the value is.
    ///
    /// Plain scalars follow the YAML 1.2 core schema: `yes` and `on` are strings.
    public indirect enum Value: Sendable {
        /// `null`, `~` or nothing.
        case null
        /// `true` or `false`.
        case bool(Bool)
        /// A decimal integer.
        case integer(Int64)
        /// A finite number with a point or an exponent.
        case number(Double)
        /// Any other scalar, and every quoted one.
        case string(String)
        /// A sequence.
        case list([YAMLNode])
        /// A mapping in the order of the text; no key occurs twice.
        case map([Entry])
    }

    /// A key and its value.
    public struct Entry: Sendable {
        /// The key, and where it stands.
        public let name: YAMLNode
        /// The value.
        public let value: YAMLNode
        /// The key's text.
        public var key: String { name.string ?? "" }
    }

    /// The value.
    public let value: Value
    /// Line and column of the value's first character, from 1.
    public let line: Int, column: Int

    /// A value that stands at a line and column.
    public init(value: Value, line: Int, column: Int) {
        self.value = value
        self.line = line
        self.column = column
    }

    /// The value of a key of a mapping, or nil.
    public subscript(key: String) -> YAMLNode? {
        guard case .map(let entries) = value else { return nil }
        return entries.first { $0.key == key }?.value
    }

    /// An error about this value: file, line, column, what is wrong.
    package func error(_ what: String, in file: String) -> YAMLError {
        YAMLError("\(file):\(line):\(column): \(what)")
    }

    /// The text of a string, or nil.
    public var string: String? {
        guard case .string(let text) = value else { return nil }
        return text
    }

    /// The integer, or nil.
    public var integer: Int? {
        guard case .integer(let number) = value else { return nil }
        return Int(number)
    }

    /// The elements of a list, or nothing.
    public var elements: [YAMLNode] {
        guard case .list(let nodes) = value else { return [] }
        return nodes
    }

    /// The strings of a list, or nothing.
    public var strings: [String] { elements.compactMap(\.string) }

    /// The value as JSON on one line, keys in the order of the text.
    public var json: String {
        switch value {
        case .null: "null"
        case .bool(let flag): flag ? "true" : "false"
        case .integer(let number): String(number)
        case .number(let number): String(number)
        case .string(let text): Self.quote(text)
        case .list(let nodes): "[" + nodes.map(\.json).joined(separator: ",") + "]"
        case .map(let entries):
            "{"
                + entries.map { Self.quote($0.key) + ":" + $0.value.json }.joined(separator: ",")
                + "}"
        }
    }

    private static func quote(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\u{8}": out += "\\b"
            case "\t": out += "\\t"
            case "\n": out += "\\n"
            case "\u{C}": out += "\\f"
            case "\r": out += "\\r"
            case _ where scalar.value < 32:
                out += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
