/// A tokenizer as it stands in the meta block: all that is needed to turn text into ids and back.
public struct TokenizerDocument: Codable, Sendable, Equatable {
    /// The algorithm.
    public enum Kind: String, Codable, Sendable {
        /// BPE over bytes, by merges (GPT-2, Llama 3, Qwen2, SmolLM).
        case byteLevelBPE = "byte-bpe"
        /// BPE over characters, by merges (`tokenizer.json` of Mixtral, Llama 2).
        case piecesBPE = "pieces-bpe"
        /// The same by scores instead of merges (GGUF `llama`).
        case piecesScores = "pieces-scores"
    }

    /// A change to the text between added tokens.
    public enum Normalizer: Codable, Sendable, Equatable {
        /// Unicode normal form C.
        case formC
        /// Puts a string before text that is not empty.
        case prepend(String)
        /// Replaces each occurrence.
        case replace(String, with: String)
    }

    /// Which texts begin with a space of the tokenizer's own.
    public enum Prefix: String, Codable, Sendable {
        /// None.
        case never
        /// The one at the very beginning.
        case first
        /// Each stretch between added tokens.
        case always
    }

    /// What decoding does with a space at the beginning, which encoding may have put there.
    public enum FirstSpace: String, Codable, Sendable {
        /// It stays.
        case kept
        /// One is dropped.
        case dropped
        /// All spaces of the first token are dropped, as `Metaspace` decodes.
        case droppedFromToken = "dropped-from-token"
    }

    /// A step of pre-tokenization: no merge crosses the pieces that it makes.
    public enum Step: Codable, Sendable, Equatable {
        /// Cuts around the matches of a pattern; see ``SplitPattern``.
        case split(String)
        /// Puts a space before pieces that do not begin with one.
        case space
        /// Spells spaces `▁` and puts one before text that does not begin with one.
        case metaspace(Prefix)
        /// Spells bytes in GPT-2's alphabet.
        case bytes
    }

    /// The algorithm.
    public var kind: Kind
    /// Changes to text, in order.
    public var normalizers: [Normalizer] = []
    /// Pre-tokenization, in order.
    public var steps: [Step] = []
    /// Pieces by id, as the source spells them (byte-level alphabet or `▁`).
    public var pieces: [String]
    /// Merges in order, "left right"; empty for scores.
    public var merges: [String] = []
    /// Scores by id; empty for merges.
    public var scores: [Float] = []
    /// Tokens that are matched in text before anything else.
    public var added: [Added] = []
    /// Whether longer added tokens are matched before shorter ones that begin further left (llama.cpp's order).
    public var matchesLongestFirst = false
    /// Whether characters without a piece are spelt `<0xXX>`.
    public var fallsBackOnBytes = false
    /// Whether a word found whole in the vocabulary skips the merges.
    public var ignoresMerges = false
    /// Ids that encoding puts first by itself.
    public var prefix: [Int] = []
    /// Ids that encoding puts last by itself.
    public var suffix: [Int] = []
    /// The unknown token, or nil.
    public var unknown: Int?
    /// Whether unknown characters in a row make one unknown token.
    public var fusesUnknown = false
    /// What decoding does with a space at the beginning.
    public var firstSpace = FirstSpace.kept
    /// Ids that end a generation.
    public var endTokens: [Int] = []
    /// How a conversation is written, or nil.
    public var chat: ChatTemplate?
    /// The beginning of a chat template that this build does not know, or nil.
    public var unknownChat: String?

    /// Whether spaces are spelt `▁`.
    public var replacesSpaces: Bool { kind != .byteLevelBPE }

    /// Makes a document of an algorithm and its pieces.
    public init(kind: Kind, pieces: [String]) {
        self.kind = kind
        self.pieces = pieces
    }

    /// A token that is matched in text as it stands.
    public struct Added: Codable, Sendable, Equatable {
        /// Its id.
        public var id: Int
        /// Its text.
        public var text: String
        /// Whether it is a control token, left out of decoded text.
        public var special: Bool
        /// Whether white space to its left is swallowed.
        public var stripsLeft = false
        /// Whether white space to its right is swallowed.
        public var stripsRight = false
        /// Whether it matches only where no word character adjoins.
        public var singleWord = false
        /// Whether it is matched in normalised text, and after those that are not.
        public var normalised = false
        /// Whether its text is a piece of the model too, which merges can make.
        public var isPiece = true
    }

    /// Checks everything that ``Tokenizer`` takes for granted: an importer's result, and what was read from a chain.
    ///
    /// - Throws: ``ModelError`` naming what contradicts the vocabulary.
    package func validate() throws(ModelError) {
        guard pieces.count <= 1 << 24 else {
            throw ModelError("the tokenizer has \(pieces.count) pieces, at most 16777216")
        }
        for id in added.map(\.id) + prefix + suffix + [unknown ?? 0]
        where !pieces.indices.contains(id) {
            throw ModelError("the tokenizer names token \(id), its vocabulary has \(pieces.count)")
        }
        guard scores.isEmpty || scores.count == pieces.count else {
            throw ModelError("the tokenizer has \(scores.count) scores for \(pieces.count) pieces")
        }
        for case .replace("", let new) in normalizers {
            throw ModelError("the tokenizer replaces empty text with \"\(new)\"")
        }
        // Replacements one after the other multiply: forty of "a" by "aa" make a text a billion times as long.
        var growth = 1.0
        for case .replace(let old, let new) in normalizers {
            growth *= max(1, Double(new.utf8.count) / Double(old.utf8.count))
        }
        guard growth <= 256 else {
            throw ModelError("the tokenizer's replacements can make a text over 256 times as long")
        }
    }

    mutating func setChat(jinja: String?, begin: String?, end: String?) {
        let end = end ?? endTokens.first.flatMap { pieces.indices.contains($0) ? pieces[$0] : nil }
        chat = jinja.flatMap { ChatTemplate(jinja: $0, begin: begin, end: end) }
        unknownChat = chat == nil ? jinja.map { String($0.prefix(160)) } : nil
    }
}
