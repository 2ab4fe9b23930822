/// The part of JSON Schema (https://json-schema.org/draft/2020-12) that manifests and configurations use.
///
/// Known: `type`, `properties`, `required`, `additionalProperties` (false), `items`, `uniqueItems`, `enum`,
/// `minimum`, `maximum`, `minLength`, `maxLength`, `pattern`, and the annotations `$schema`, `$id`, `title`,
/// `description`, `default`, `examples`. A schema with any other keyword is refused, never half obeyed.
public struct JSONSchema: Sendable {
    private enum Rule: Sendable {
        case type([String])
        // One schema; in a list, since a value cannot hold itself.
        case items([JSONSchema])
        case unique
        case choice([String])
        case range(ClosedRange<Double>)
        case length(ClosedRange<Int>)
        case pattern(String)
    }

    private static let types: Set<String> = [
        "null", "boolean", "integer", "number", "string", "array", "object",
    ]

    private var rules: [Rule] = []
    private var properties: [String: JSONSchema] = [:]
    private var required: [String] = []
    private var isClosed = false

    /// The schema in `text`; `name` names it in errors.
    ///
    /// - Throws: ``YAMLError`` for text that is no JSON and keywords that are not known.
    public init(_ text: String, name: String) throws(YAMLError) {
        try self.init(YAMLReader.read(text, file: name), name: name)
    }

    private init(_ node: YAMLNode, name: String) throws(YAMLError) {
        guard case .map(let entries) = node.value else {
            throw node.error("a schema must be an object", in: name)
        }
        for entry in entries where try !obey(entry.key, entry.value, name) {
            throw entry.name.error(
                "schema keyword \"\(entry.key)\" with the value \(entry.value.json) is not known",
                in: name)
        }
    }

    /// Adds what a keyword asks for; false if this validator does not know it.
    private mutating func obey(
        _ keyword: String, _ value: YAMLNode, _ name: String
    ) throws(YAMLError) -> Bool {
        switch (keyword, value.value) {
        case ("$schema", _), ("$id", _), ("title", _), ("description", _), ("default", _),
            ("examples", _):
            break
        case ("type", .string(let type)) where Self.types.contains(type):
            rules.append(.type([type]))
        case ("type", .list(let nodes))
        where !nodes.isEmpty && nodes.allSatisfy({ Self.types.contains($0.string ?? "") }):
            rules.append(.type(value.strings))
        case ("properties", .map(let entries)):
            for entry in entries {
                properties[entry.key] = try JSONSchema(entry.value, name: name)
            }
        case ("required", .list(let nodes)) where nodes.count == value.strings.count:
            required = value.strings
        case ("additionalProperties", .bool(let isOpen)): isClosed = !isOpen
        case ("items", .map): rules.append(.items([try JSONSchema(value, name: name)]))
        case ("uniqueItems", .bool(let isUnique)): if isUnique { rules.append(.unique) }
        case ("enum", .list(let nodes)): rules.append(.choice(nodes.map(\.json)))
        case ("minLength", .integer(let count)) where count >= 0:
            rules.append(.length(Int(count)...Int.max))
        case ("maxLength", .integer(let count)) where count >= 0:
            rules.append(.length(0...Int(count)))
        case ("pattern", .string(let text)) where (try? Regex(text)) != nil:
            rules.append(.pattern(text))
        case ("minimum", _), ("maximum", _):
            guard let bound = value.number else { return false }
            rules.append(
                .range(keyword == "minimum" ? bound...Double.infinity : -Double.infinity...bound))
        default: return false
        }
        return true
    }

    /// Checks a value of the document `file`.
    ///
    /// - Throws: ``YAMLError`` with file, line, column, what is wrong, and the nearest right key.
    public func check(_ node: YAMLNode, file: String, path: String = "") throws(YAMLError) {
        for rule in rules { try check(rule, node, file, path) }
        guard case .map(let entries) = node.value else { return }
        for entry in entries {
            let inner = path.isEmpty ? entry.key : "\(path).\(entry.key)"
            if let schema = properties[entry.key] {
                try schema.check(entry.value, file: file, path: inner)
            } else if isClosed {
                throw Self.unknown(entry, known: properties.keys.sorted(), file: file)
            }
        }
        for key in required where node[key] == nil {
            throw node.error("\(Self.name(path)) lacks the key \"\(key)\"", in: file)
        }
    }

    private func check(
        _ rule: Rule, _ node: YAMLNode, _ file: String, _ path: String
    ) throws(YAMLError) {
        func refuse(_ what: String) -> YAMLError {
            node.error("\(Self.name(path)) \(what)", in: file)
        }
        switch rule {
        case .type(let names):
            guard names.contains(where: node.isOf(type:)) else {
                throw refuse("is \(node.typeName), expected \(names.joined(separator: " or "))")
            }
        case .items(let schemas):
            for (i, item) in node.elements.enumerated() {
                for schema in schemas {
                    try schema.check(item, file: file, path: "\(path)[\(i)]")
                }
            }
        case .unique:
            var seen: Set<String> = []
            for item in node.elements where !seen.insert(item.json).inserted {
                throw item.error("\(item.json) stands twice", in: file)
            }
        case .choice(let values):
            guard values.contains(node.json) else {
                throw refuse("is \(node.json), expected one of \(values.joined(separator: ", "))")
            }
        case .range(let range):
            guard let number = node.number, !range.contains(number) else { return }
            let bound =
                range.upperBound == .infinity
                ? "at least \(range.lowerBound.text)" : "at most \(range.upperBound.text)"
            throw refuse("is \(node.json), expected \(bound)")
        case .length(let range):
            guard let count = node.string?.unicodeScalars.count, !range.contains(count) else {
                return
            }
            let bound =
                range.upperBound == .max
                ? "at least \(range.lowerBound)" : "at most \(range.upperBound)"
            throw refuse("has \(count) characters, expected \(bound)")
        case .pattern(let pattern):
            guard let text = node.string else { return }
            // Compiled anew since a regex is not Sendable; that it compiles was seen when the schema was read.
            guard let regex = try? Regex(pattern), text.firstMatch(of: regex) != nil else {
                throw refuse("is \(node.json), which does not match \(pattern)")
            }
        }
    }

    private static func name(_ path: String) -> String {
        path.isEmpty ? "the document" : "\"\(path)\""
    }

    private static func unknown(
        _ entry: YAMLNode.Entry, known: [String], file: String
    ) -> YAMLError {
        let advice =
            Spelling.nearest(to: entry.key, among: known).map { "did you mean \"\($0)\"?" }
            ?? "known here: \(known.isEmpty ? "none" : known.joined(separator: ", "))"
        return entry.name.error("unknown key \"\(entry.key)\", \(advice)", in: file)
    }
}

extension Double {
    /// Without a fraction where there is none.
    fileprivate var text: String { Int64(exactly: self).map { "\($0)" } ?? "\(self)" }
}

extension YAMLNode {
    fileprivate var number: Double? {
        switch value {
        case .integer(let number): Double(number)
        case .number(let number): number
        default: nil
        }
    }

    fileprivate var typeName: String {
        switch value {
        case .null: "null"
        case .bool: "boolean"
        case .integer: "integer"
        case .number: "number"
        case .string: "string"
        case .list: "array"
        case .map: "object"
        }
    }

    fileprivate func isOf(type: String) -> Bool {
        typeName == type || (type == "number" && typeName == "integer")
    }
}
