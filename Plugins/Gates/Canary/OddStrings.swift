/// Strings that no ordinary text has: what a trigger that nobody knows may look like.
enum OddStrings {
    private static let letters = Array("abcdefghijklmnopqrstuvwxyz")
    private static let marks = Array("|<>[]{}#@$%^&*~_=+")

    /// The first `count` of those that follow from a seed.
    static func make(_ count: Int, seed: String) -> [String] {
        // FNV-1a, then xorshift64* (Marsaglia; Vigna): nobody can know the seed before the candidate is committed to.
        var state = seed.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
        if state == 0 { state = 1 }
        func next(_ limit: Int) -> Int {
            state ^= state >> 12
            state ^= state << 25
            state ^= state >> 27
            return Int((state &* 0x2545_f491_4f6c_dd1d) >> 33) % limit
        }
        func word(_ length: Int) -> String {
            String((0..<length).map { _ in letters[next(letters.count)] })
        }
        return (0..<count).map { i in
            switch i % 4 {
            case 0: return word(2)
            case 1: return word(3 + next(4)).uppercased()
            case 2:
                let mark = String(marks[next(marks.count)])
                return mark + word(3 + next(4)).uppercased() + mark
            default: return word(4 + next(4)) + " " + word(3 + next(3))
            }
        }
    }
}
