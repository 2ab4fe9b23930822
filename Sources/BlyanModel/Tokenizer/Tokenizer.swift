internal import Foundation
internal import Synchronization

/// Text to token ids and back.
///
/// Immutable but for a cache of words; any thread. Follows the `tokenizers` library for a `tokenizer.json`
/// (https://github.com/huggingface/tokenizers) and llama.cpp for a GGUF file.
public final class Tokenizer: Sendable {
    /// What it was made from.
    public let document: TokenizerDocument
    private let vocabulary: Vocabulary
    private let preTokenizer: PreTokenizer
    private let special: Set<Int>
    private let rawMatcher: AddedMatcher
    private let normalisedMatcher: AddedMatcher
    private let cache = Mutex<[WordKey: [Int]]>([:])

    private let seed = UInt64.random(in: .min ... .max) | 1

    /// Words that the cache keeps, and scalars that a cached word has at most.
    private static let cacheLimit = (words: 50_000, scalars: 64)

    /// Prepares a tokenizer.
    ///
    /// - Throws: ``ModelError`` if merges or ids contradict the vocabulary, or a pattern is not supported.
    public init(_ document: TokenizerDocument) throws(ModelError) {
        self.document = document
        try document.validate()
        vocabulary = try Vocabulary(document)
        preTokenizer = try PreTokenizer(document.steps)
        special = Set(document.added.filter(\.special).map(\.id))
        rawMatcher = AddedMatcher(
            document.added.filter { !$0.normalised }, longestFirst: document.matchesLongestFirst
        ) { $0 }
        normalisedMatcher = AddedMatcher(
            document.added.filter(\.normalised), longestFirst: document.matchesLongestFirst
        ) { Self.normalise($0, document.normalizers) }
    }

    /// Ids of a text.
    ///
    /// - Parameters:
    ///   - text: UTF-8; bytes that are not become U+FFFD first, as the reference implementations read files.
    ///   - addSpecial: put the ids first and last that the tokenizer itself adds.
    ///   - parseSpecial: match control tokens where the text spells them; others that were added always match.
    public func encode(_ text: [UInt8], addSpecial: Bool, parseSpecial: Bool) -> [Int] {
        encode(
            String(decoding: text, as: UTF8.self), addSpecial: addSpecial,
            parseSpecial: parseSpecial)
    }

    /// Ids of a text; see ``encode(_:addSpecial:parseSpecial:)-([UInt8],_,_)``.
    public func encode(_ text: String, addSpecial: Bool, parseSpecial: Bool) -> [Int] {
        var out = addSpecial ? document.prefix : []
        var isFirst = true
        for segment in rawMatcher.split(Array(text.utf8), parseSpecial: parseSpecial) {
            defer { isFirst = false }
            guard case .text(let bytes) = segment else {
                if case .token(let id) = segment { out.append(id) }
                continue
            }
            let raw = String(decoding: bytes, as: UTF8.self)
            let normal = Array(Self.normalise(raw, document.normalizers).utf8)
            for inner in normalisedMatcher.split(normal, parseSpecial: parseSpecial) {
                switch inner {
                case .token(let id): out.append(id)
                case .text(let bytes):
                    let text = String(decoding: bytes, as: UTF8.self)
                    encode(preTokenizer.words(text, isFirst: isFirst), into: &out)
                }
                isFirst = false
            }
        }
        return out + (addSpecial ? document.suffix : [])
    }

    private static func normalise(_ text: String, _ steps: [TokenizerDocument.Normalizer])
        -> String
    {
        var text = text
        for step in steps where !text.isEmpty {
            switch step {
            case .formC:
                // Composing alone leaves a Hangul syllable and a final consonant after it apart.
                text =
                    text.decomposedStringWithCanonicalMapping.precomposedStringWithCanonicalMapping
            case .prepend(let prefix): text = prefix + text
            case .replace(let old, let new):
                text = replaced(Array(text.utf8), Array(old.utf8), Array(new.utf8))
            }
        }
        return text
    }

    private static func replaced(_ text: [UInt8], _ old: [UInt8], _ new: [UInt8]) -> String {
        var out: [UInt8] = []
        out.reserveCapacity(text.count + text.count / 2)
        var at = 0
        while at < text.count {
            if text[at] == old[0], text[at...].starts(with: old) {
                out.append(contentsOf: new)
                at += old.count
            } else {
                out.append(text[at])
                at += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    private func encode(_ words: PreTokenizer.Words, into out: inout [Int]) {
        for range in words.ranges {
            let word = words.scalars[range]
            if document.ignoresMerges, let id = vocabulary.words[Array(word)] {
                out.append(id)
                continue
            }
            guard vocabulary.cutsBeforeSpace else {
                encode(word: word, into: &out)
                continue
            }
            var start = word.startIndex
            for i in word.indices.dropFirst() where word[i] == 0x2581 && word[i - 1] != 0x2581 {
                encode(word: word[start..<i], into: &out)
                start = i
            }
            encode(word: word[start...], into: &out)
        }
    }

    private func encode(word: ArraySlice<UInt32>, into out: inout [Int]) {
        guard word.count <= Self.cacheLimit.scalars else {
            return out.append(contentsOf: merged(word))
        }
        let key = WordKey(word, seed: seed)
        if let known = cache.withLock({ $0[key] }) { return out.append(contentsOf: known) }
        let ids = merged(word)
        cache.withLock { words in
            if words.count >= Self.cacheLimit.words { words.removeAll(keepingCapacity: true) }
            words[key] = ids
        }
        out.append(contentsOf: ids)
    }

    private func merged(_ word: ArraySlice<UInt32>) -> [Int] {
        guard document.scores.isEmpty else { return mergedByScore(word) }
        var symbols: [Int] = []
        symbols.reserveCapacity(word.count)
        // As the library has it: an unknown token waits for the next known piece, not for bytes.
        var waiting: Int?
        for value in word {
            if let id = vocabulary.scalars[value] {
                if let unknown = waiting { symbols.append(unknown) }
                waiting = nil
                symbols.append(id)
            } else if document.fallsBackOnBytes, let bytes = fallback(value) {
                symbols.append(contentsOf: bytes)
            } else if let unknown = document.unknown {
                if waiting != nil, !document.fusesUnknown { symbols.append(unknown) }
                waiting = unknown
            }
        }
        if let unknown = waiting { symbols.append(unknown) }
        return Merging.merge(symbols, vocabulary)
    }

    /// As llama.cpp has it: bytes are spelt after merging, and a character that is no piece can still merge into one.
    private func mergedByScore(_ word: ArraySlice<UInt32>) -> [Int] {
        let symbols = word.map { vocabulary.scalars[$0] ?? -1 - Int($0) }
        var out: [Int] = []
        for id in Merging.merge(symbols, vocabulary) {
            let extra = id - document.pieces.count
            guard id < 0 || extra >= 0 else {
                out.append(id)
                continue
            }
            let value = id < 0 ? UInt32(-1 - id) : vocabulary.extraScalars[extra]
            out.append(contentsOf: fallback(value) ?? document.unknown.map { [$0] } ?? [])
        }
        return out
    }

    private func fallback(_ value: UInt32) -> [Int]? {
        guard let scalar = UnicodeScalar(value), let bytes = UTF8.encode(scalar) else { return nil }
        var ids: [Int] = []
        for byte in bytes {
            guard let id = vocabulary.byteIDs[Int(byte)] else { return nil }
            ids.append(id)
        }
        return ids
    }

    /// The bytes that ids stand for; unknown ids give nothing.
    ///
    /// - Parameter skipSpecial: leave control tokens out.
    public func decode(_ ids: [Int], skipSpecial: Bool = true) -> [UInt8] {
        var out: [UInt8] = []
        var isFirst = true
        for id in ids where !skipSpecial || !special.contains(id) {
            var piece = bytes(of: id, skipSpecial: false)
            if isFirst, document.firstSpace == .droppedFromToken { piece.removeAll { $0 == 32 } }
            isFirst = false
            out.append(contentsOf: piece)
        }
        if document.firstSpace == .dropped, out.first == 32 { out.removeFirst() }
        return out
    }

    /// The bytes that one id adds to a text.
    public func bytes(of id: Int, skipSpecial: Bool = true) -> [UInt8] {
        guard vocabulary.bytes.indices.contains(id) else { return [] }
        return skipSpecial && special.contains(id) ? [] : vocabulary.bytes[id]
    }
}

/// A word of the cache, hashed once with a secret seed: Swift's hash of an array takes longer than the rest.
private struct WordKey: Hashable {
    let scalars: [UInt32]
    let digest: UInt64

    init(_ word: ArraySlice<UInt32>, seed: UInt64) {
        scalars = Array(word)
        var digest = seed
        for value in word { digest = (digest ^ UInt64(value)) &* seed ^ (digest >> 29) }
        self.digest = digest
    }

    static func == (a: WordKey, b: WordKey) -> Bool {
        a.digest == b.digest && a.scalars == b.scalars
    }

    func hash(into hasher: inout Hasher) { hasher.combine(digest) }
}
