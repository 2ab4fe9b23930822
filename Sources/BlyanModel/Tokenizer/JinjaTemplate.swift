/// A Jinja template, read as chat templates are rendered: blocks take the line break after them and the blanks before.
///
/// Expressions are read when they are reached, so that branches which are not taken may say what this build cannot.
struct JinjaTemplate {
    /// What a template is made of.
    enum Node {
        case text(String)
        case output(String)
        case set(target: String, expression: String)
        case capture(name: String, body: [Node])
        case branch([(condition: String, body: [Node])])
        case loop(variable: String, source: String, body: [Node])
        /// A statement that is an error where it is reached.
        case unknown(String)
    }

    /// Why a template cannot be rendered.
    struct Failure: Error {
        let what: String

        init(_ what: String) { self.what = what }
    }

    private enum Limit {
        static let size = 1 << 20
        static let depth = 32
    }

    let nodes: [Node]

    init(_ source: String) throws(Failure) {
        guard source.utf8.count <= Limit.size else { throw Failure("a template of over 1 MiB") }
        var parser = Parser(tokens: try Self.tokens(source))
        nodes = try parser.body(depth: 0, until: [])
    }

    private enum Token {
        case text(String)
        case output(String)
        case statement(String)
    }

    /// Cuts a template at its tags and strips white space around them.
    private static func tokens(_ source: String) throws(Failure) -> [Token] {
        var rest = Array(source.unicodeScalars)[...]
        // The last line break of a template is not written.
        if rest.last == "\n" { rest.removeLast() }
        var tokens: [Token] = []
        var text: [UnicodeScalar] = []
        var isLineStart = true
        while let scalar = rest.first {
            guard scalar == "{", let kind = rest.dropFirst().first,
                "{%#".unicodeScalars.contains(kind)
            else {
                text.append(scalar)
                rest.removeFirst()
                continue
            }
            rest.removeFirst(2)
            var inner = try content(&rest, closing: kind == "{" ? "}" : kind)
            if inner.first == "-" {
                while let last = text.last, last.properties.isWhitespace { text.removeLast() }
                inner.removeFirst()
            } else if inner.first == "+" {
                inner.removeFirst()
            } else if kind != "{" {
                var kept = text
                while let last = kept.last, last == " " || last == "\t" { kept.removeLast() }
                if kept.last == "\n" || (kept.isEmpty && isLineStart) { text = kept }
            }
            if !text.isEmpty { tokens.append(.text(string(text))) }
            text = []
            isLineStart = false
            if inner.last == "-" {
                inner.removeLast()
                while let next = rest.first, next.properties.isWhitespace { rest.removeFirst() }
            } else if inner.last == "+" {
                inner.removeLast()
            } else if kind != "{", rest.first == "\n" {
                rest.removeFirst()
                isLineStart = true
            }
            if kind == "{" { tokens.append(.output(string(inner))) }
            if kind == "%" { tokens.append(.statement(trimmed(string(inner)))) }
        }
        if !text.isEmpty { tokens.append(.text(string(text))) }
        return tokens
    }

    /// What stands in a tag up to its end, which does not count within quotes.
    private static func content(
        _ rest: inout ArraySlice<UnicodeScalar>, closing: UnicodeScalar
    ) throws(Failure) -> [UnicodeScalar] {
        var inner: [UnicodeScalar] = []
        var quote: UnicodeScalar?
        while let scalar = rest.popFirst() {
            if let open = quote {
                inner.append(scalar)
                if scalar == "\\", let next = rest.popFirst() { inner.append(next) }
                if scalar == open { quote = nil }
                continue
            }
            if scalar == closing, rest.first == "}" {
                rest.removeFirst()
                return inner
            }
            if closing != "#", scalar == "'" || scalar == "\"" { quote = scalar }
            inner.append(scalar)
        }
        throw Failure("a tag without end")
    }

    private static func string(_ scalars: [UnicodeScalar]) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    /// Without white space at both ends.
    static func trimmed(_ text: some StringProtocol) -> String {
        var text = Substring(text).unicodeScalars
        while let first = text.first, first.properties.isWhitespace { text.removeFirst() }
        while let last = text.last, last.properties.isWhitespace { text.removeLast() }
        return String(Substring(text))
    }

    /// Puts statements and their ends together.
    private struct Parser {
        let tokens: [Token]
        var at = 0

        /// The nodes up to a statement that begins with one of `ends`, which is not taken.
        mutating func body(depth: Int, until ends: Set<String>) throws(Failure) -> [Node] {
            guard depth < Limit.depth else { throw Failure("blocks over \(Limit.depth) deep") }
            var nodes: [Node] = []
            while at < tokens.count {
                switch tokens[at] {
                case .text(let text): nodes.append(.text(text))
                case .output(let expression): nodes.append(.output(expression))
                case .statement(let statement):
                    if ends.contains(Self.keyword(statement)) { return nodes }
                    if let node = try block(statement, depth: depth) { nodes.append(node) }
                }
                at += 1
            }
            guard ends.isEmpty else { throw Failure("a block without end") }
            return nodes
        }

        private static func keyword(_ statement: String) -> String {
            String(statement.prefix { $0.isLetter || $0 == "_" })
        }

        private func rest(_ after: String) -> String {
            guard case .statement(let statement) = tokens[at] else { return "" }
            return trimmed(statement.dropFirst(after.count))
        }

        private mutating func block(_ statement: String, depth: Int) throws(Failure) -> Node? {
            switch Self.keyword(statement) {
            case "if":
                var branches: [(condition: String, body: [Node])] = []
                var condition = rest("if")
                while true {
                    at += 1
                    let body = try body(depth: depth + 1, until: ["elif", "else", "endif"])
                    branches.append((condition, body))
                    guard case .statement(let next) = tokens[at] else { break }
                    if Self.keyword(next) == "endif" { break }
                    condition = Self.keyword(next) == "else" ? "true" : rest("elif")
                }
                return .branch(branches)
            case "for":
                let parts = rest("for").split(separator: " in ", maxSplits: 1)
                at += 1
                let body = try body(depth: depth + 1, until: ["endfor", "else"])
                guard case .statement("endfor") = tokens[at], parts.count == 2 else {
                    throw Failure(statement)
                }
                return .loop(variable: trimmed(parts[0]), source: String(parts[1]), body: body)
            case "macro":
                // A call of it is a call of an unknown function.
                at += 1
                _ = try body(depth: depth + 1, until: ["endmacro"])
                return nil
            case "generation", "endgeneration": return nil
            case "set":
                let assignment = rest("set")
                guard let equals = assignment.firstIndex(of: "=") else {
                    at += 1
                    let body = try body(depth: depth + 1, until: ["endset"])
                    return .capture(name: assignment, body: body)
                }
                return .set(
                    target: trimmed(assignment[..<equals]),
                    expression: String(assignment[assignment.index(after: equals)...]))
            default: return .unknown(statement)
            }
        }
    }
}
