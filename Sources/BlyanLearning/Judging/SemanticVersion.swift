/// MAJOR.MINOR.PATCH, compared by number (https://semver.org, without pre-releases).
package struct SemanticVersion: Comparable, CustomStringConvertible {
    private let numbers: [Int]

    /// - Returns: nil for what is not three numbers.
    package init?(_ text: String) {
        numbers = text.split(separator: ".", omittingEmptySubsequences: false).compactMap {
            Int($0)
        }
        guard numbers.count == 3, text.split(separator: ".").count == 3,
            numbers.allSatisfy({ $0 >= 0 && $0 < 1 << 31 })
        else { return nil }
    }

    /// The next version that changes weights and nothing else.
    package var nextMinor: SemanticVersion { SemanticVersion([numbers[0], numbers[1] + 1, 0]) }
    private init(_ numbers: [Int]) { self.numbers = numbers }

    package var description: String { numbers.map(String.init).joined(separator: ".") }

    package static func < (a: Self, b: Self) -> Bool {
        a.numbers.lexicographicallyPrecedes(b.numbers)
    }
}
