/// An expression of a template, parsed.
indirect enum JinjaExpression {
    case literal(JinjaValue)
    case name(String)
    case list([JinjaExpression])
    case item(JinjaExpression, JinjaExpression)
    case slice(
        JinjaExpression, from: JinjaExpression?, to: JinjaExpression?, step: JinjaExpression?)
    case call(JinjaExpression, [JinjaExpression], named: [String: JinjaExpression])
    case filter(JinjaExpression, String, [JinjaExpression])
    case test(JinjaExpression, String)
    case not(JinjaExpression)
    case negative(JinjaExpression)
    case binary(String, JinjaExpression, JinjaExpression)
    case conditional(then: JinjaExpression, condition: JinjaExpression, otherwise: JinjaExpression?)

    /// Parses all of a text.
    init(_ text: String) throws(JinjaTemplate.Failure) {
        var parser = JinjaExpressionParser(tokens: try JinjaExpressionParser.tokens(text))
        self = try parser.whole()
    }

    /// Parses what a loop goes over, where `if` would begin a filter.
    init(loopOver text: String) throws(JinjaTemplate.Failure) {
        var parser = JinjaExpressionParser(tokens: try JinjaExpressionParser.tokens(text))
        self = try parser.wholeWithoutCondition()
    }
}

/// Reads expressions by Jinja's precedence; filters and tests bind tighter than operators.
struct JinjaExpressionParser {
    enum Token: Equatable {
        case string(String)
        case int(Int)
        case name(String)
        case mark(String)
    }

    // Bounds the depth of what is parsed, and with it the stack that evaluation needs.
    private static let tokenLimit = 400
    private static let depthLimit = 40

    private typealias Expression = JinjaExpression
    private typealias Failure = JinjaTemplate.Failure

    private let tokens: [Token]
    private var at = 0
    private var depth = 0

    init(tokens: [Token]) { self.tokens = tokens }

    static func tokens(_ text: String) throws(JinjaTemplate.Failure) -> [Token] {
        var rest = Array(text.unicodeScalars)[...]
        var tokens: [Token] = []
        while let scalar = rest.first {
            guard tokens.count < tokenLimit else { throw Failure("an expression too long") }
            if scalar.properties.isWhitespace {
                rest.removeFirst()
            } else if scalar == "'" || scalar == "\"" {
                tokens.append(.string(try string(&rest)))
            } else if ("0"..."9").contains(scalar) {
                let digits = String(
                    String.UnicodeScalarView(rest.prefix { ("0"..."9").contains($0) }))
                guard let value = Int(digits), value < 1 << 31 else { throw Failure(digits) }
                tokens.append(.int(value))
                rest.removeFirst(digits.count)
            } else if scalar.properties.isAlphabetic || scalar == "_" {
                let name = rest.prefix {
                    $0.properties.isAlphabetic || $0 == "_" || ("0"..."9").contains($0)
                }
                tokens.append(.name(String(String.UnicodeScalarView(name))))
                rest.removeFirst(name.count)
            } else {
                let two = String(String.UnicodeScalarView(rest.prefix(2)))
                let mark = ["==", "!=", "<=", ">="].contains(two) ? two : String(scalar)
                tokens.append(.mark(mark))
                rest.removeFirst(mark.unicodeScalars.count)
            }
        }
        return tokens
    }

    private static func string(
        _ rest: inout ArraySlice<UnicodeScalar>
    ) throws(JinjaTemplate.Failure) -> String {
        var out = String.UnicodeScalarView()
        let quote = rest.removeFirst()
        let escapes: [UnicodeScalar: UnicodeScalar] = [
            "n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", "\"": "\"",
        ]
        while let scalar = rest.popFirst() {
            if scalar == quote { return String(out) }
            guard scalar == "\\", let next = rest.popFirst() else {
                out.append(scalar)
                continue
            }
            guard let escape = escapes[next] else { throw Failure("\\\(next)") }
            out.append(escape)
        }
        throw Failure("text without end")
    }

    private var next: Token? { at < tokens.count ? tokens[at] : nil }

    private mutating func take(_ mark: String) -> Bool {
        guard next == .mark(mark) else { return false }
        at += 1
        return true
    }

    private mutating func take(word: String) -> Bool {
        guard next == .name(word) else { return false }
        at += 1
        return true
    }

    private mutating func need(_ mark: String) throws(Failure) {
        guard take(mark) else { throw Failure("no \(mark)") }
    }

    private mutating func need() throws(Failure) -> String {
        guard case .name(let name) = next else { throw Failure("no name") }
        at += 1
        return name
    }

    fileprivate mutating func whole() throws(JinjaTemplate.Failure) -> JinjaExpression {
        let expression = try conditional()
        guard at == tokens.count else { throw Failure("more than an expression") }
        return expression
    }

    fileprivate mutating func wholeWithoutCondition() throws(JinjaTemplate.Failure)
        -> JinjaExpression
    {
        let expression = try either()
        guard at == tokens.count else { throw Failure("more than an expression") }
        return expression
    }

    private mutating func conditional() throws(Failure) -> Expression {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw Failure("an expression too deep") }
        let value = try either()
        guard take(word: "if") else { return value }
        let condition = try either()
        let otherwise = take(word: "else") ? try conditional() : nil
        return .conditional(then: value, condition: condition, otherwise: otherwise)
    }

    private mutating func either() throws(Failure) -> Expression {
        var left = try both()
        while take(word: "or") { left = .binary("or", left, try both()) }
        return left
    }

    private mutating func both() throws(Failure) -> Expression {
        var left = try negated()
        while take(word: "and") { left = .binary("and", left, try negated()) }
        return left
    }

    private mutating func negated() throws(Failure) -> Expression {
        guard take(word: "not") else { return try comparison() }
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw Failure("an expression too deep") }
        return .not(try negated())
    }

    private mutating func comparison() throws(Failure) -> Expression {
        let left = try sum()
        let before = at
        if take(word: "in") { return .binary("in", left, try sum()) }
        if take(word: "not") {
            guard take(word: "in") else {
                at = before
                return left
            }
            return .not(.binary("in", left, try sum()))
        }
        guard case .mark(let mark) = next, ["==", "!=", "<", ">", "<=", ">="].contains(mark) else {
            return left
        }
        at += 1
        return .binary(mark, left, try sum())
    }

    private mutating func sum() throws(Failure) -> Expression {
        var left = try product()
        while case .mark(let mark) = next, ["+", "-", "~"].contains(mark) {
            at += 1
            left = .binary(mark, left, try product())
        }
        return left
    }

    private mutating func product() throws(Failure) -> Expression {
        var left = try unary()
        while case .mark(let mark) = next, ["*", "%"].contains(mark) {
            at += 1
            left = .binary(mark, left, try unary())
        }
        return left
    }

    private mutating func unary() throws(Failure) -> Expression {
        guard take("-") else { return try postfix() }
        return .negative(try postfix())
    }

    private mutating func postfix() throws(Failure) -> Expression {
        var value = try primary()
        while true {
            if take(".") {
                value = .item(value, .literal(.string(try need())))
            } else if take("[") {
                value = try subscripted(value)
            } else if take("(") {
                let (arguments, named) = try arguments()
                value = .call(value, arguments, named: named)
            } else if take("|") {
                let name = try need()
                let arguments = take("(") ? try arguments().0 : []
                value = .filter(value, name, arguments)
            } else if take(word: "is") {
                let isNegated = take(word: "not")
                let test = Expression.test(value, try need())
                value = isNegated ? .not(test) : test
            } else {
                return value
            }
        }
    }

    private mutating func subscripted(_ value: Expression) throws(Failure) -> Expression {
        var parts: [Expression?] = []
        while parts.count < 3 {
            let isOpen = next == .mark(":") || next == .mark("]")
            parts.append(isOpen ? nil : try conditional())
            if !take(":") { break }
        }
        try need("]")
        guard parts.count > 1 else {
            guard let index = parts[0] else { throw Failure("no index") }
            return .item(value, index)
        }
        return .slice(value, from: parts[0], to: parts[1], step: parts.count > 2 ? parts[2] : nil)
    }

    private mutating func arguments() throws(Failure) -> ([Expression], [String: Expression]) {
        var values: [Expression] = []
        var named: [String: Expression] = [:]
        while !take(")") {
            if case .name(let name) = next, at + 1 < tokens.count, tokens[at + 1] == .mark("=") {
                at += 2
                named[name] = try conditional()
            } else {
                values.append(try conditional())
            }
            guard take(",") || next == .mark(")") else { throw Failure("no )") }
        }
        return (values, named)
    }

    private mutating func primary() throws(Failure) -> Expression {
        guard let token = next else { throw Failure("no value") }
        at += 1
        switch token {
        case .string(let text): return .literal(.string(text))
        case .int(let value): return .literal(.int(value))
        case .name(let name):
            switch name {
            case "true", "True": return .literal(.bool(true))
            case "false", "False": return .literal(.bool(false))
            case "none", "None": return .literal(.none)
            default: return .name(name)
            }
        case .mark("("):
            let value = try conditional()
            try need(")")
            return value
        case .mark("["):
            var items: [Expression] = []
            while !take("]") {
                items.append(try conditional())
                guard take(",") || next == .mark("]") else { throw Failure("no ]") }
            }
            return .list(items)
        case .mark(let mark): throw Failure(mark)
        }
    }
}
