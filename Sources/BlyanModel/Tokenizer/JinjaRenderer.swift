/// A value of a template.
enum JinjaValue: Equatable {
    case undefined
    case none
    case bool(Bool)
    case int(Int)
    case string(String)
    case list([JinjaValue])
    case object([String: JinjaValue])
    case namespace(Namespace)

    /// The one value that can be changed after it was made.
    final class Namespace: Equatable {
        var fields: [String: JinjaValue]

        init(_ fields: [String: JinjaValue]) { self.fields = fields }

        static func == (a: Namespace, b: Namespace) -> Bool { a === b }
    }

    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let flag): flag
        case .int(let value): value != 0
        case .string(let text): !text.isEmpty
        case .list(let items): !items.isEmpty
        case .object(let fields): !fields.isEmpty
        case .namespace: true
        }
    }
}

/// Renders a template with a bound on its work.
struct JinjaRenderer {
    private typealias Value = JinjaValue
    private typealias Failure = JinjaTemplate.Failure

    private enum Limit {
        static let steps = 100_000
        static let output = 1 << 20
    }

    private var scopes: [[String: JinjaValue]]
    private var out = ""
    private var steps = 0

    /// The text that a template writes.
    ///
    /// - Throws: the expression, filter or function that is not known, or what the template itself raises.
    static func render(
        _ template: JinjaTemplate, _ variables: [String: JinjaValue]
    ) throws(JinjaTemplate.Failure) -> String {
        var renderer = Self(scopes: [variables])
        try renderer.run(template.nodes)
        return renderer.out
    }

    private init(scopes: [[String: JinjaValue]]) { self.scopes = scopes }

    private mutating func count() throws(Failure) {
        steps += 1
        guard steps <= Limit.steps, out.utf8.count <= Limit.output else {
            throw Failure("more than \(Limit.steps) steps")
        }
    }

    private mutating func run(_ nodes: [JinjaTemplate.Node]) throws(Failure) {
        for node in nodes {
            try count()
            switch node {
            case .text(let text): out += text
            case .output(let expression):
                out += try text(value(try JinjaExpression(expression)))
            case .set(let target, let expression):
                try assign(target, value(try JinjaExpression(expression)))
            case .capture(let name, let body):
                let before = out
                out = ""
                try run(body)
                try assign(name, .string(out))
                out = before
            case .branch(let branches):
                for (condition, body) in branches
                where try value(try JinjaExpression(condition)).isTrue {
                    try run(body)
                    break
                }
            case .loop(let variable, let source, let body):
                guard case .list(let items) = try value(try JinjaExpression(loopOver: source))
                else {
                    throw Failure("a loop over what is no list")
                }
                for (i, item) in items.enumerated() {
                    let loop: [String: Value] = [
                        "first": .bool(i == 0), "last": .bool(i == items.count - 1),
                        "index": .int(i + 1), "index0": .int(i), "length": .int(items.count),
                    ]
                    scopes.append([variable: item, "loop": .object(loop)])
                    try run(body)
                    scopes.removeLast()
                }
            case .unknown(let statement): throw Failure(statement)
            }
        }
    }

    private mutating func assign(_ target: String, _ value: Value) throws(Failure) {
        let parts = target.split(separator: ".", omittingEmptySubsequences: false)
        guard
            parts.allSatisfy({
                !$0.isEmpty && $0.allSatisfy { $0.isLetter || $0.isNumber || $0 == "_" }
            })
        else { throw Failure(target) }
        if parts.count == 1 {
            scopes[scopes.count - 1][target] = value
        } else if parts.count == 2, case .namespace(let space) = lookUp(String(parts[0])) {
            space.fields[String(parts[1])] = value
        } else {
            throw Failure(target)
        }
    }

    private func lookUp(_ name: String) -> Value {
        for scope in scopes.reversed() { if let value = scope[name] { return value } }
        return .undefined
    }

    private func text(_ value: Value) throws(Failure) -> String {
        switch value {
        case .undefined: return ""
        case .string(let text): return text
        case .int(let value): return "\(value)"
        default: throw Failure("a value that is no text")
        }
    }

    private mutating func value(_ expression: JinjaExpression) throws(Failure) -> Value {
        try count()
        switch expression {
        case .literal(let value): return value
        case .name(let name): return lookUp(name)
        case .list(let items): return .list(try values(items))
        case .item(let base, let key): return try item(value(base), value(key))
        case .slice(let base, let from, let to, let step):
            return try slice(value(base), optional(from), optional(to), optional(step))
        case .call(let function, let arguments, let named):
            return try call(function, arguments, named)
        case .filter(let base, let name, let arguments):
            return try filter(value(base), name, values(arguments))
        case .test(let base, let name): return .bool(try test(value(base), name))
        case .not(let inner): return .bool(!(try value(inner).isTrue))
        case .negative(let inner):
            guard case .int(let number) = try value(inner) else {
                throw Failure("- before no number")
            }
            return .int(-number)
        case .binary("and", let left, let right):
            let first = try value(left)
            return first.isTrue ? try value(right) : first
        case .binary("or", let left, let right):
            let first = try value(left)
            return first.isTrue ? first : try value(right)
        case .binary(let mark, let left, let right):
            return try binary(mark, value(left), value(right))
        case .conditional(let then, let condition, let otherwise):
            if try value(condition).isTrue { return try value(then) }
            return try otherwise.map { other throws(Failure) in try value(other) } ?? .undefined
        }
    }

    private mutating func values(_ list: [JinjaExpression]) throws(Failure) -> [Value] {
        var out: [Value] = []
        for item in list { out.append(try value(item)) }
        return out
    }

    private mutating func optional(_ expression: JinjaExpression?) throws(Failure) -> Int? {
        guard let expression else { return nil }
        guard case .int(let number) = try value(expression) else { throw Failure("a bad slice") }
        return number
    }

    private func item(_ base: Value, _ key: Value) throws(Failure) -> Value {
        switch (base, key) {
        case (.object(let fields), .string(let name)): return fields[name] ?? .undefined
        case (.namespace(let space), .string(let name)): return space.fields[name] ?? .undefined
        case (.list(let items), .int(let index)):
            let place = index < 0 ? items.count + index : index
            return items.indices.contains(place) ? items[place] : .undefined
        case (.string, .string), (.list, .string): return .undefined
        default: throw Failure("an item of what has none")
        }
    }

    private func slice(_ base: Value, _ from: Int?, _ to: Int?, _ step: Int?) throws(Failure)
        -> Value
    {
        guard case .list(let items) = base else { throw Failure("a slice of what is no list") }
        if step == -1, from == nil, to == nil { return .list(items.reversed()) }
        guard step == nil || step == 1 else { throw Failure("a slice in steps") }
        func place(_ index: Int) -> Int {
            min(max(index < 0 ? items.count + index : index, 0), items.count)
        }
        let (start, end) = (place(from ?? 0), place(to ?? items.count))
        return .list(start < end ? Array(items[start..<end]) : [])
    }

    private func binary(_ mark: String, _ left: Value, _ right: Value) throws(Failure) -> Value {
        switch (mark, left, right) {
        case ("==", _, _): return .bool(left == right)
        case ("!=", _, _): return .bool(left != right)
        case ("~", _, _): return .string(try text(left) + text(right))
        case ("+", .string(let a), .string(let b)): return .string(a + b)
        case ("+", .list(let a), .list(let b)): return .list(a + b)
        case ("in", .string(let a), .string(let b)): return .bool(a.isEmpty || b.contains(a))
        case ("in", _, .list(let items)): return .bool(items.contains(left))
        case ("in", .string(let name), .object(let fields)): return .bool(fields[name] != nil)
        case ("in", _, .undefined): return .bool(false)
        case (_, .int(let a), .int(let b)): return try number(mark, a, b)
        default: throw Failure("\(mark) between these values")
        }
    }

    private func number(_ mark: String, _ a: Int, _ b: Int) throws(Failure) -> Value {
        let result: (partialValue: Int, overflow: Bool)
        switch mark {
        case "<": return .bool(a < b)
        case ">": return .bool(a > b)
        case "<=": return .bool(a <= b)
        case ">=": return .bool(a >= b)
        case "+": result = a.addingReportingOverflow(b)
        case "-": result = a.subtractingReportingOverflow(b)
        case "*": result = a.multipliedReportingOverflow(by: b)
        case "%" where a >= 0 && b > 0: return .int(a % b)
        default: throw Failure("\(mark) between numbers")
        }
        guard !result.overflow else { throw Failure("a number too large") }
        return .int(result.partialValue)
    }

    private func test(_ value: Value, _ name: String) throws(Failure) -> Bool {
        switch (name, value) {
        case ("defined", _): value != .undefined
        case ("undefined", _): value == .undefined
        case ("none", _): value == .none
        case ("true", _): value == .bool(true)
        case ("false", _): value == .bool(false)
        case ("string", .string), ("mapping", .object), ("number", .int): true
        case ("iterable", .string), ("iterable", .list), ("iterable", .object): true
        case ("sequence", .string), ("sequence", .list), ("sequence", .object): true
        case ("string", _), ("mapping", _), ("number", _), ("iterable", _), ("sequence", _): false
        default: throw Failure("the test \(name)")
        }
    }

    private func filter(_ value: Value, _ name: String, _ arguments: [Value]) throws(Failure)
        -> Value
    {
        switch (name, value, arguments) {
        case ("trim", .string(let text), []): return .string(JinjaTemplate.trimmed(text))
        case ("length", .string(let text), []), ("count", .string(let text), []):
            return .int(text.unicodeScalars.count)
        case ("length", .list(let items), []), ("count", .list(let items), []):
            return .int(items.count)
        case ("first", .list(let items), []): return items.first ?? .undefined
        case ("last", .list(let items), []): return items.last ?? .undefined
        case ("list", .list, []), ("string", .string, []): return value
        case ("default", _, _) where arguments.count == 1:
            return value == .undefined ? arguments[0] : value
        case ("selectattr", .list(let items), _)
        where arguments.count == 3 && [.string("equalto"), .string("==")].contains(arguments[1]):
            var chosen: [Value] = []
            for entry in items where try item(entry, arguments[0]) == arguments[2] {
                chosen.append(entry)
            }
            return .list(chosen)
        default: throw Failure("the filter \(name)")
        }
    }

    private mutating func call(
        _ function: JinjaExpression, _ arguments: [JinjaExpression],
        _ named: [String: JinjaExpression]
    ) throws(Failure) -> Value {
        if case .name("namespace") = function, arguments.isEmpty {
            var fields: [String: Value] = [:]
            for (name, expression) in named { fields[name] = try value(expression) }
            return .namespace(JinjaValue.Namespace(fields))
        }
        guard case .item(let base, .literal(.string(let name))) = function, named.isEmpty else {
            throw Failure("a function")
        }
        let given = try values(arguments)
        switch (try value(base), name, given.first ?? .undefined) {
        case (.string(let text), "startswith", .string(let start)):
            return .bool(text.utf8.starts(with: start.utf8))
        case (.string(let text), "endswith", .string(let end)):
            return .bool(text.utf8.reversed().starts(with: end.utf8.reversed()))
        case (.string(let text), "strip", .undefined): return .string(JinjaTemplate.trimmed(text))
        case (.object(let fields), "get", .string(let key)):
            return fields[key] ?? (given.count > 1 ? given[1] : .none)
        default: throw Failure("the function \(name)")
        }
    }
}
