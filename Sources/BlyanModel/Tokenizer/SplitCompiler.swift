/// Turns a pattern into instructions.
struct SplitCompiler {
    private let pattern: String
    private let scalars: [UnicodeScalar]
    private var at = 0
    private var code: [SplitPattern.Instruction] = []
    private var sets: [ScalarSet] = []
    private var foldsCase = false

    private enum Limit {
        static let scalars = 16_384
        static let depth = 16
        static let repeats = 1_000
    }

    init(_ pattern: String) {
        self.pattern = pattern
        scalars = Array(pattern.unicodeScalars)
    }

    mutating func compile() throws(ModelError) -> ([SplitPattern.Instruction], [ScalarSet]) {
        guard scalars.count <= Limit.scalars else { throw refusal("its length") }
        let width = try alternatives(depth: 0)
        guard at == scalars.count else { throw refusal("a closing parenthesis too many") }
        guard width > 0 else { throw refusal("that it can match nothing") }
        code.append(.match)
        return (code, sets)
    }

    private func refusal(_ what: String) -> ModelError {
        ModelError(
            "the pre-tokenizer pattern \"\(pattern.prefix(200))\" is not one that this build computes: \(what) at character \(at)"
        )
    }

    private var next: UnicodeScalar? { at < scalars.count ? scalars[at] : nil }

    private mutating func take(_ scalar: UnicodeScalar) -> Bool {
        guard next == scalar else { return false }
        at += 1
        return true
    }

    private mutating func need(_ scalar: UnicodeScalar) throws(ModelError) {
        guard take(scalar) else { throw refusal("no \(scalar)") }
    }

    /// Alternatives to the end or a closing parenthesis; returns the fewest scalars that they match.
    private mutating func alternatives(depth: Int) throws(ModelError) -> Int {
        guard depth < Limit.depth else { throw refusal("its nesting") }
        var width = Int.max
        var jumps: [Int] = []
        while true {
            let branch = code.count
            // The last alternative falls back on nothing; one sequence needs no branch at all.
            let mayBranch = depth > 0 || hasAlternative
            if mayBranch { code.append(.jump(branch + 1)) }
            width = min(width, try sequence(depth: depth))
            guard take("|") else { break }
            jumps.append(code.count)
            code.append(.jump(0))
            code[branch] = .branch(code.count)
        }
        for jump in jumps { code[jump] = .jump(code.count) }
        return width
    }

    private var hasAlternative: Bool { scalars.contains("|") }

    private mutating func sequence(depth: Int) throws(ModelError) -> Int {
        var width = 0
        while let scalar = next, scalar != "|", scalar != ")" {
            switch scalar {
            case "(": width += try group(depth: depth)
            case "$":
                at += 1
                code.append(.lineEnd)
            case ".", "^", "*", "+", "?", "{": throw refusal("\(scalar)")
            default:
                let set = try oneScalar()
                let (least, most, isPossessive) = try quantifier()
                code.append(.run(set: set, min: least, max: most, isPossessive: isPossessive))
                width += least
            }
        }
        return width
    }

    private mutating func group(depth: Int) throws(ModelError) -> Int {
        at += 1
        let outer = foldsCase
        if take("?") {
            switch next {
            case ":": at += 1
            case "i":
                at += 1
                try need(":")
                foldsCase = true
            case "!", "=":
                let expected = next == "="
                at += 1
                code.append(.look(set: try oneScalar(), expected: expected))
                try need(")")
                return 0
            default: throw refusal("a group of an unknown kind")
            }
        }
        let slot = code.count
        code.append(.jump(slot + 1))
        let width = try alternatives(depth: depth + 1)
        try need(")")
        foldsCase = outer
        switch next {
        case "?":
            at += 1
            code[slot] = .branch(code.count)
            if next == "?" || next == "+" { throw refusal("a group's quantifier") }
            return 0
        case "*", "+", "{": throw refusal("a repeated group")
        default: return width
        }
    }

    private mutating func quantifier() throws(ModelError) -> (Int, Int, Bool) {
        var bounds = (1, 1)
        switch next {
        case "?": bounds = (0, 1)
        case "*": bounds = (0, Int.max)
        case "+": bounds = (1, Int.max)
        case "{":
            at += 1
            let least = try number()
            bounds = (least, least)
            if take(",") { bounds.1 = next == "}" ? Int.max : try number() }
            guard next == "}", bounds.0 <= bounds.1 else { throw refusal("a bad count") }
            at += 1
            if next == "?" || next == "+" { throw refusal("a quantifier after a count") }
            return (bounds.0, bounds.1, false)
        default: return (1, 1, false)
        }
        at += 1
        if next == "?" { throw refusal("a lazy quantifier") }
        return (bounds.0, bounds.1, take("+"))
    }

    private mutating func number() throws(ModelError) -> Int {
        var value = 0
        let start = at
        while let digit = next?.properties.numericType == .decimal ? next : nil, digit.isASCII {
            value = value * 10 + Int(digit.value - 48)
            at += 1
            guard value <= Limit.repeats else { throw refusal("a count beyond \(Limit.repeats)") }
        }
        guard at > start else { throw refusal("no count") }
        return value
    }

    /// A literal, an escape or a class; returns its set.
    private mutating func oneScalar() throws(ModelError) -> Int {
        var set = ScalarSet()
        var isNegated = false
        guard let scalar = next else { throw refusal("its end") }
        at += 1
        switch scalar {
        case "[": isNegated = try members(of: &set)
        case "\\":
            if take("S") {
                set.insertSpace()
                isNegated = true
            } else if let literal = try escape(&set) {
                set.insert(literal.value...literal.value)
            }
        default: set.insert(scalar.value...scalar.value)
        }
        if foldsCase, !set.insertCases() { throw refusal("folded case beyond ASCII") }
        set.finish(negated: isNegated)
        sets.append(set)
        return sets.count - 1
    }

    /// What stands between brackets; returns whether it is negated.
    private mutating func members(of set: inout ScalarSet) throws(ModelError) -> Bool {
        let isNegated = take("^")
        var isFirst = true
        while let scalar = next, scalar != "]" || isFirst {
            isFirst = false
            at += 1
            guard scalar != "[" else { throw refusal("a class within a class") }
            if scalar == "&", next == "&" { throw refusal("an intersection") }
            var first = scalar
            if scalar == "\\" {
                guard let literal = try escape(&set) else { continue }
                first = literal
            }
            var last = first
            if next == "-", at + 1 < scalars.count, scalars[at + 1] != "]" {
                at += 1
                last = scalars[at]
                at += 1
                if last == "\\" {
                    guard let literal = try escape(&set) else { throw refusal("a bad range") }
                    last = literal
                }
            }
            guard first <= last else { throw refusal("a range backwards") }
            set.insert(first.value...last.value)
        }
        try need("]")
        return isNegated
    }

    /// After a backslash: a literal to return, or scalars added to the set.
    private mutating func escape(_ set: inout ScalarSet) throws(ModelError) -> UnicodeScalar? {
        guard let scalar = next else { throw refusal("its end") }
        at += 1
        switch scalar {
        case "r": return "\r"
        case "n": return "\n"
        case "t": return "\t"
        case "f": return "\u{0C}"
        case "v": return "\u{0B}"
        case "s": set.insertSpace()
        case "d": _ = set.insert(category: "Nd")
        case "p":
            try need("{")
            var name = ""
            while let letter = next, letter != "}" {
                name.unicodeScalars.append(letter)
                at += 1
            }
            try need("}")
            guard set.insert(category: name) else { throw refusal("\\p{\(name)}") }
        default:
            guard scalar.isASCII, !scalar.properties.isAlphabetic,
                scalar.properties.numericType == nil
            else { throw refusal("\\\(scalar)") }
            return scalar
        }
        return nil
    }
}
