/// A set of Unicode scalars as a regular expression's class names it.
struct ScalarSet: Sendable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0
    private var categories: UInt32 = 0
    private var hasSpace = false
    private var ranges: [ClosedRange<UInt32>] = []
    private var isNegated = false

    /// Whether the set has the scalar with this value.
    func contains(_ value: UInt32) -> Bool {
        if value < 64 { return low >> UInt64(value) & 1 == 1 }
        if value < 128 { return high >> UInt64(value - 64) & 1 == 1 }
        return has(value) != isNegated
    }

    private func has(_ value: UInt32) -> Bool {
        if categories != 0, categories & Self.category(of: value) != 0 { return true }
        if hasSpace, Self.isSpace(value) { return true }
        for range in ranges where range.contains(value) { return true }
        return false
    }

    /// Adds the scalars from one value to another.
    mutating func insert(_ range: ClosedRange<UInt32>) { ranges.append(range) }

    /// Adds white space: `\s` of Oniguruma and Rust, Unicode's White_Space.
    mutating func insertSpace() { hasSpace = true }

    /// Adds the general categories of a name: "L", "Nd", ...
    ///
    /// - Returns: false if there is no such name.
    mutating func insert(category name: String) -> Bool {
        let found = Self.names.indices.filter {
            Self.names[$0] == name || (name.count == 1 && Self.names[$0].hasPrefix(name))
        }
        for index in found { categories |= 1 << UInt32(index) }
        return !found.isEmpty
    }

    /// Adds the other case of ASCII letters, and what folds to them (U+017F to s, U+212A to k).
    ///
    /// - Returns: false if there are letters beyond ASCII, whose folding is not known here.
    mutating func insertCases() -> Bool {
        guard categories == 0 else { return false }
        for range in ranges {
            guard range.upperBound < 128 else { return false }
            for value in range where (65...90).contains(value & ~32) {
                ranges.append((value ^ 32)...(value ^ 32))
                if value & ~32 == 83 { ranges.append(0x17F...0x17F) }
                if value & ~32 == 75 { ranges.append(0x212A...0x212A) }
            }
        }
        return true
    }

    /// The set as it is tested; call once, after the last insertion.
    mutating func finish(negated: Bool) {
        isNegated = negated
        for value in UInt32(0)..<128 where has(value) != negated {
            if value < 64 { low |= 1 << UInt64(value) } else { high |= 1 << UInt64(value - 64) }
        }
    }

    static func isSpace(_ value: UInt32) -> Bool {
        switch value {
        case 9...13, 32, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F,
            0x3000:
            true
        default: false
        }
    }

    /// `\w` of Rust: Alphabetic, marks, decimal digits, connectors and joiners.
    static func isWord(_ scalar: UnicodeScalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation:
            true
        default: scalar.properties.isAlphabetic || scalar.properties.isJoinControl
        }
    }

    private static let names = [
        "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
        "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
    ]

    private static let basicPlane: [UInt8] = (0..<0x10000).map { index(of: UInt32($0)) }

    private static func category(of value: UInt32) -> UInt32 {
        let index = value < 0x10000 ? basicPlane[Int(value)] : index(of: value)
        return 1 << UInt32(index)
    }

    private static func index(of value: UInt32) -> UInt8 {
        guard let scalar = UnicodeScalar(value) else { return 27 }
        return switch scalar.properties.generalCategory {
        case .uppercaseLetter: 0
        case .lowercaseLetter: 1
        case .titlecaseLetter: 2
        case .modifierLetter: 3
        case .otherLetter: 4
        case .nonspacingMark: 5
        case .spacingMark: 6
        case .enclosingMark: 7
        case .decimalNumber: 8
        case .letterNumber: 9
        case .otherNumber: 10
        case .connectorPunctuation: 11
        case .dashPunctuation: 12
        case .openPunctuation: 13
        case .closePunctuation: 14
        case .initialPunctuation: 15
        case .finalPunctuation: 16
        case .otherPunctuation: 17
        case .mathSymbol: 18
        case .currencySymbol: 19
        case .modifierSymbol: 20
        case .otherSymbol: 21
        case .spaceSeparator: 22
        case .lineSeparator: 23
        case .paragraphSeparator: 24
        case .control: 25
        case .format: 26
        case .surrogate: 27
        case .privateUse: 28
        case .unassigned: 29
        @unknown default: 29
        }
    }
}
