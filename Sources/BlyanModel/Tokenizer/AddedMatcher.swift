/// Finds added tokens in text, as the `tokenizers` library or as llama.cpp does.
///
/// The library takes the leftmost, and of those at one place the longest; llama.cpp the longest wherever it is.
struct AddedMatcher: Sendable {
    enum Segment {
        case token(Int)
        case text(ArraySlice<UInt8>)
    }

    private struct Node: Sendable {
        var children: [UInt8: Int] = [:]
        var token: Int?
    }

    private let tokens: [TokenizerDocument.Added]
    private let lengths: [Int]
    private let nodes: [Node]
    /// The root's children by byte, or 0: most bytes begin no token.
    private let firsts: [Int]
    private let longestFirst: Bool

    /// - Parameter spelling: what is matched for a token's text, which normalisation may have changed.
    init(
        _ tokens: [TokenizerDocument.Added], longestFirst: Bool, spelling: (String) -> String
    ) {
        self.tokens = tokens
        self.longestFirst = longestFirst
        var nodes = [Node()]
        var lengths: [Int] = []
        for (index, token) in tokens.enumerated() {
            let utf8 = Array(spelling(token.text).utf8)
            lengths.append(utf8.count)
            guard !utf8.isEmpty else { continue }
            var node = 0
            for byte in utf8 {
                if let child = nodes[node].children[byte] {
                    node = child
                } else {
                    nodes.append(Node())
                    nodes[node].children[byte] = nodes.count - 1
                    node = nodes.count - 1
                }
            }
            if nodes[node].token == nil { nodes[node].token = index }
        }
        self.nodes = nodes
        firsts = (0..<256).map { nodes[0].children[UInt8($0)] ?? 0 }
        self.lengths = lengths
    }

    /// Cuts text at added tokens; every byte that no token swallows is in a segment of text.
    ///
    /// - Parameter parseSpecial: whether control tokens match too.
    func split(_ text: [UInt8], parseSpecial: Bool) -> [Segment] {
        guard !tokens.isEmpty else { return text.isEmpty ? [] : [.text(text[...])] }
        var segments: [Segment] = []
        var start = 0
        for (at, index) in matches(text, parseSpecial) {
            let token = tokens[index]
            var from = at
            var to = at + lengths[index]
            if token.stripsLeft {
                while let space = Self.space(endingAt: from, in: text), from - space >= start {
                    from -= space
                }
            }
            if token.stripsRight {
                while let space = Self.space(at: to, in: text) { to += space }
            }
            if start < from { segments.append(.text(text[start..<from])) }
            segments.append(.token(token.id))
            start = max(start, to)
        }
        if start < text.count { segments.append(.text(text[start...])) }
        return segments
    }

    private func matches(_ text: [UInt8], _ parseSpecial: Bool) -> [(at: Int, index: Int)] {
        var found: [(at: Int, index: Int)] = []
        var at = 0
        while at < text.count {
            var node = firsts[Int(text[at])]
            guard node > 0 else {
                at += 1
                continue
            }
            var end = at + 1
            var longest: Int?
            while true {
                if let index = nodes[node].token {
                    longest = index
                    if longestFirst, parseSpecial || !tokens[index].special {
                        found.append((at, index))
                    }
                }
                guard end < text.count, let child = nodes[node].children[text[end]] else { break }
                node = child
                end += 1
            }
            guard !longestFirst, let longest else {
                at += 1
                continue
            }
            // A match that does not count is passed over whole, as in the library.
            if parseSpecial || !tokens[longest].special, standsAlone(longest, at, text) {
                found.append((at, longest))
            }
            at += lengths[longest]
        }
        return longestFirst ? chosen(found, count: text.count) : found
    }

    /// The longest first; of equals the leftmost; none that overlaps one chosen before.
    private func chosen(_ found: [(at: Int, index: Int)], count: Int) -> [(at: Int, index: Int)] {
        var taken = [Bool](repeating: false, count: found.isEmpty ? 0 : count)
        var out: [(at: Int, index: Int)] = []
        for match in found.sorted(by: {
            (-lengths[$0.index], $0.at) < (-lengths[$1.index], $1.at)
        }) {
            let end = match.at + lengths[match.index]
            // Those chosen before are as long or longer: one that overlaps covers an end.
            guard !taken[match.at], !taken[end - 1] else { continue }
            for i in match.at..<end { taken[i] = true }
            out.append(match)
        }
        return out.sorted { $0.at < $1.at }
    }

    private func standsAlone(_ index: Int, _ at: Int, _ text: [UInt8]) -> Bool {
        guard tokens[index].singleWord else { return true }
        let end = at + lengths[index]
        let before = Self.scalar(endingAt: at, in: text).map(ScalarSet.isWord) ?? false
        let after = Self.scalar(at: end, in: text).map(ScalarSet.isWord) ?? false
        return !before && !after
    }

    private static func space(at start: Int, in text: [UInt8]) -> Int? {
        guard let scalar = scalar(at: start, in: text), ScalarSet.isSpace(scalar.value) else {
            return nil
        }
        return UTF8.width(scalar)
    }

    private static func space(endingAt end: Int, in text: [UInt8]) -> Int? {
        guard let scalar = scalar(endingAt: end, in: text), ScalarSet.isSpace(scalar.value) else {
            return nil
        }
        return UTF8.width(scalar)
    }

    private static func scalar(at start: Int, in text: [UInt8]) -> UnicodeScalar? {
        guard start < text.count else { return nil }
        return String(decoding: text[start..<min(start + 4, text.count)], as: UTF8.self)
            .unicodeScalars.first
    }

    private static func scalar(endingAt end: Int, in text: [UInt8]) -> UnicodeScalar? {
        var start = end - 1
        while start > 0, text[start] & 0xC0 == 0x80 { start -= 1 }
        return start < 0 || end <= 0
            ? nil : String(decoding: text[start..<end], as: UTF8.self).unicodeScalars.first
    }
}
