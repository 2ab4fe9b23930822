internal import CYAML

// Safe: the parser lives for one call of `read` and is freed at its end.
/// Reads a YAML document strictly: no duplicate keys, anchors, aliases, tags or further documents.
///
/// JSON is YAML, so the same reader serves schemas. The grammar is libyaml's (https://pyyaml.org/wiki/LibYAML).
@safe public struct YAMLReader: ~Copyable {
    /// Bytes of a document, at most.
    public static let sizeLimit = 1 << 20
    /// Mappings and sequences inside one another, at most.
    public static let depthLimit = 32

    private let file: String
    private var parser = unsafe yaml_parser_t()
    private var depth = 0

    /// The document in `text`; `file` names it in errors.
    ///
    /// - Throws: ``YAMLError`` with file, line and column.
    public static func read(_ text: String, file: String) throws(YAMLError) -> YAMLNode {
        let bytes = Array(text.utf8)
        guard bytes.count <= sizeLimit else {
            throw YAMLError(
                "\(file): the document has \(bytes.count) bytes, at most \(sizeLimit) are read")
        }
        var reader = YAMLReader(file: file)
        let result = unsafe bytes.withUnsafeBufferPointer { input in
            Result { () throws(YAMLError) in try unsafe reader.document(input) }
        }
        return try result.get()
    }

    private init(file: String) { self.file = file }

    private mutating func document(
        _ input: UnsafeBufferPointer<UInt8>
    ) throws(YAMLError) -> YAMLNode {
        guard unsafe yaml_parser_initialize(&parser) == 1 else {
            throw YAMLError("\(file): libyaml could not be started")
        }
        defer { unsafe yaml_parser_delete(&parser) }
        unsafe yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING)
        unsafe yaml_parser_set_input_string(&parser, input.baseAddress, input.count)
        _ = try next()  // stream start
        let start = try next()
        guard start.type == YAML_DOCUMENT_START_EVENT else { return start.node }
        let node = try node(from: next())
        _ = try next()  // document end
        let after = try next()
        guard after.type == YAML_STREAM_END_EVENT else {
            throw after.node.error("a second document begins here, expected one", in: file)
        }
        return node
    }

    /// A value from its first event on.
    private mutating func node(from event: Event) throws(YAMLError) -> YAMLNode {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else {
            throw event.node.error("values lie more than \(Self.depthLimit) deep", in: file)
        }
        if event.isMarked || event.type == YAML_ALIAS_EVENT {
            throw event.node.error(
                "anchors, aliases and tags are not read: write the value out", in: file)
        }
        switch event.type {
        case YAML_SEQUENCE_START_EVENT:
            var nodes: [YAMLNode] = []
            while case let item = try next(), item.type != YAML_SEQUENCE_END_EVENT {
                nodes.append(try node(from: item))
            }
            return YAMLNode(value: .list(nodes), line: event.node.line, column: event.node.column)
        case YAML_MAPPING_START_EVENT:
            let entries = try entries()
            return YAMLNode(value: .map(entries), line: event.node.line, column: event.node.column)
        default: return event.node
        }
    }

    private mutating func entries() throws(YAMLError) -> [YAMLNode.Entry] {
        var entries: [YAMLNode.Entry] = []
        var lines: [String: Int] = [:]
        while case let event = try next(), event.type != YAML_MAPPING_END_EVENT {
            guard event.type == YAML_SCALAR_EVENT, !event.isMarked else {
                throw event.node.error("a key must be plain text", in: file)
            }
            let name = YAMLNode(
                value: .string(event.text), line: event.node.line, column: event.node.column)
            if let line = lines.updateValue(name.line, forKey: event.text) {
                throw name.error(
                    "key \"\(event.text)\" stands twice, first in line \(line)", in: file)
            }
            entries.append(.init(name: name, value: try node(from: next())))
        }
        return entries
    }

    /// What a plain scalar stands for.
    private static func value(of text: String) -> YAMLNode.Value {
        switch text {
        case "", "~", "null": return .null
        case "true": return .bool(true)
        case "false": return .bool(false)
        default: break
        }
        if let number = Int64(text), String(number) == text { return .integer(number) }
        // "1.2.3", "2026-01-01", "007", "nan" and a hash that happens to have digits alone are text.
        if text.utf8.allSatisfy({ "0123456789.eE+-".utf8.contains($0) }), text.contains("."),
            let number = Double(text), number.isFinite
        {
            return .number(number)
        }
        return .string(text)
    }

    /// One of libyaml's events.
    private struct Event {
        let type: yaml_event_type_t
        /// The scalar, or null, and where the event begins.
        let node: YAMLNode
        /// A scalar's text.
        var text = ""
        /// Whether it has an anchor or a tag.
        var isMarked = false
    }

    private mutating func next() throws(YAMLError) -> Event {
        var raw = unsafe yaml_event_t()
        guard unsafe yaml_parser_parse(&parser, &raw) == 1 else {
            let problem =
                unsafe parser.problem.map { unsafe String(cString: $0) } ?? "unreadable text"
            throw unsafe Self.node(.null, parser.problem_mark).error(problem, in: file)
        }
        defer { unsafe yaml_event_delete(&raw) }
        let mark = unsafe raw.start_mark
        var marks: [Bool] = []
        switch unsafe raw.type {
        case YAML_SCALAR_EVENT:
            let scalar = unsafe raw.data.scalar
            let text = unsafe String(
                decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length),
                as: UTF8.self)
            let isPlain = unsafe scalar.style == YAML_PLAIN_SCALAR_STYLE
            let node = Self.node(isPlain ? Self.value(of: text) : .string(text), mark)
            return unsafe Event(
                type: raw.type, node: node, text: text,
                isMarked: scalar.anchor != nil || scalar.tag != nil)
        case YAML_SEQUENCE_START_EVENT:
            let start = unsafe raw.data.sequence_start
            marks = unsafe [start.anchor != nil, start.tag != nil]
        case YAML_MAPPING_START_EVENT:
            let start = unsafe raw.data.mapping_start
            marks = unsafe [start.anchor != nil, start.tag != nil]
        default: break
        }
        return unsafe Event(
            type: raw.type, node: Self.node(.null, mark), isMarked: marks.contains(true))
    }

    private static func node(_ value: YAMLNode.Value, _ mark: yaml_mark_t) -> YAMLNode {
        YAMLNode(
            value: value, line: Int(clamping: mark.line) + 1, column: Int(clamping: mark.column) + 1
        )
    }
}
