/// The steps of a document, compiled: text between added tokens to words that are merged by themselves.
struct PreTokenizer: Sendable {
    private enum Step: Sendable {
        case split(SplitPattern)
        case space
        case metaspace(TokenizerDocument.Prefix)
        case bytes
    }

    private let steps: [Step]

    init(_ steps: [TokenizerDocument.Step]) throws(ModelError) {
        var compiled: [Step] = []
        for step in steps {
            switch step {
            case .split(let pattern): compiled.append(.split(try SplitPattern(pattern)))
            case .space: compiled.append(.space)
            case .metaspace(let prefix): compiled.append(.metaspace(prefix))
            case .bytes: compiled.append(.bytes)
            }
        }
        self.steps = compiled
    }

    /// Scalars, and the words among them.
    struct Words {
        var scalars: [UInt32]
        var ranges: [Range<Int>]
    }

    /// - Parameter isFirst: whether the text is where the whole text begins.
    func words(_ text: String, isFirst: Bool) -> Words {
        let scalars = text.unicodeScalars.map(\.value)
        var words = Words(scalars: scalars, ranges: scalars.isEmpty ? [] : [0..<scalars.count])
        for step in steps {
            switch step {
            case .split(let pattern):
                var ranges: [Range<Int>] = []
                ranges.reserveCapacity(words.scalars.count / 4)
                for range in words.ranges { pattern.split(words.scalars, range, into: &ranges) }
                words.ranges = ranges
            case .space:
                words = words.rewritten { word, out in
                    if word.first != 32 { out.append(32) }
                    out.append(contentsOf: word)
                }
            case .metaspace(let prefix):
                let mark: UInt32 = 0x2581
                words = words.rewritten { word, out in
                    let isWanted = prefix == .always || (prefix == .first && isFirst)
                    if isWanted, word.first != 32, word.first != mark { out.append(mark) }
                    for value in word { out.append(value == 32 ? mark : value) }
                }
            case .bytes:
                let alphabet = ByteAlphabet.characters.map(\.value)
                words = words.rewritten { word, out in
                    for value in word {
                        guard value >= 128 else {
                            out.append(alphabet[Int(value)])
                            continue
                        }
                        guard let scalar = UnicodeScalar(value) else { continue }
                        UTF8.encode(scalar)?.forEach { out.append(alphabet[Int($0)]) }
                    }
                }
            }
        }
        return words
    }
}

extension PreTokenizer.Words {
    fileprivate func rewritten(_ rewrite: (ArraySlice<UInt32>, inout [UInt32]) -> Void) -> Self {
        var out = Self(scalars: [], ranges: [])
        out.scalars.reserveCapacity(scalars.count + ranges.count)
        out.ranges.reserveCapacity(ranges.count)
        for range in ranges {
            let start = out.scalars.count
            rewrite(scalars[range], &out.scalars)
            out.ranges.append(start..<out.scalars.count)
        }
        return out
    }
}
