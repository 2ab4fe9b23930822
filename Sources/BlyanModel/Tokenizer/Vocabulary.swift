/// Pieces and merges by number, made once from a document.
///
/// Keys are bytes and scalars, not strings: Swift counts canonically equivalent strings as equal, a vocabulary does not.
struct Vocabulary: Sendable {
    struct Merge: Sendable {
        let rank: Int
        let id: Int
    }

    /// The bytes of each piece: what it decodes to.
    let bytes: [[UInt8]]
    /// Ids by the spelling of the whole piece, only where a document looks whole words up.
    let words: [[UInt32]: Int]
    /// Ids of pieces of one scalar; for scores also of scalars that occur within pieces, from `bytes.count` on.
    let scalars: [UInt32: Int]
    /// The scalars of the ids from `bytes.count` on.
    let extraScalars: [UInt32]
    /// Ids of `<0xXX>`, or of the byte's own piece.
    let byteIDs: [Int?]
    /// Whether no piece has `▁` after another character, so that text can be cut there without changing a merge.
    let cutsBeforeSpace: Bool
    private let merges: [UInt64: Merge]

    init(_ document: TokenizerDocument) throws(ModelError) {
        let isByteLevel = document.kind == .byteLevelBPE
        let reserved = Set(document.added.lazy.filter { !$0.isPiece }.map(\.id))
        var ids: [[UInt8]: Int] = [:]
        ids.reserveCapacity(document.pieces.count)
        for (id, piece) in document.pieces.enumerated() where !reserved.contains(id) {
            let utf8 = Array(piece.utf8)
            if !utf8.isEmpty, ids[utf8] == nil { ids[utf8] = id }
        }
        var scalars: [UInt32: Int] = [:]
        var words: [[UInt32]: Int] = [:]
        var cuts = document.kind != .byteLevelBPE && ids[Array("▁".utf8)] != nil
        for (id, piece) in document.pieces.enumerated() where ids[Array(piece.utf8)] == id {
            let values = piece.unicodeScalars.map(\.value)
            if values.count == 1 { scalars[values[0]] = id }
            if document.ignoresMerges { words[values] = id }
            guard cuts, values.count > 1 else { continue }
            for i in 1..<values.count where values[i] == 0x2581 && values[i - 1] != 0x2581 {
                cuts = false
            }
        }
        var fallback = [Int?](repeating: nil, count: 256)
        for byte in 0..<256 {
            fallback[byte] =
                isByteLevel
                ? scalars[ByteAlphabet.characters[byte].value]
                : ids[Array(ByteAlphabet.fallback(UInt8(byte)).utf8)]
        }
        var extra: [UInt32] = []
        if document.scores.isEmpty {
            merges = try Self.ranked(document.merges, ids)
        } else {
            merges = Self.scored(document, ids, &scalars, &extra)
        }
        self.scalars = scalars
        self.words = words
        extraScalars = extra
        byteIDs = fallback
        cutsBeforeSpace = cuts
        bytes = document.pieces.enumerated().map { id, piece in
            if isByteLevel { return ByteAlphabet.bytes(of: piece) ?? Array(piece.utf8) }
            if piece.utf8.count == 6, let byte = fallback.firstIndex(of: id) {
                return [UInt8(byte)]
            }
            return Array(piece.utf8).replacing([0xE2, 0x96, 0x81], with: [32])
        }
    }

    private static func ranked(_ merges: [String], _ ids: [[UInt8]: Int]) throws(ModelError)
        -> [UInt64: Merge]
    {
        var out: [UInt64: Merge] = [:]
        out.reserveCapacity(merges.count)
        for (rank, merge) in merges.enumerated() {
            let utf8 = Array(merge.utf8)
            guard let gap = utf8.dropFirst().firstIndex(of: 32) else {
                throw ModelError(
                    "merge \(rank) of the tokenizer is \"\(merge)\", expected two pieces")
            }
            let (left, right) = (Array(utf8[..<gap]), Array(utf8[(gap + 1)...]))
            guard let a = ids[left], let b = ids[right], let whole = ids[left + right] else {
                throw ModelError(
                    "merge \(rank) of the tokenizer, \"\(merge)\", names pieces that are not in its vocabulary"
                )
            }
            // The last of equal merges counts, as in the reference implementation's table.
            out[key(a, b)] = Merge(rank: rank, id: whole)
        }
        return out
    }

    /// Every way to make a piece of two: pieces, or characters that need not be pieces themselves.
    private static func scored(
        _ document: TokenizerDocument, _ ids: [[UInt8]: Int], _ scalars: inout [UInt32: Int],
        _ extra: inout [UInt32]
    ) -> [UInt64: Merge] {
        var out: [UInt64: Merge] = [:]
        for (id, piece) in document.pieces.enumerated() where ids[Array(piece.utf8)] == id {
            let values = Array(piece.unicodeScalars)
            guard values.count > 1 else { continue }
            for scalar in values where scalars[scalar.value] == nil {
                scalars[scalar.value] = document.pieces.count + extra.count
                extra.append(scalar.value)
            }
            let utf8 = Array(piece.utf8)
            var cut = 0
            for (i, scalar) in values.dropLast().enumerated() {
                cut += UTF8.width(scalar)
                let left = i == 0 ? scalars[scalar.value] : ids[Array(utf8[..<cut])]
                let isLast = i == values.count - 2
                let right =
                    isLast ? scalars[values[i + 1].value] : ids[Array(utf8[cut...])]
                guard let left, let right else { continue }
                // Higher scores first; scores are finite, and their order as integers is kept.
                out[key(left, right)] = Merge(rank: -Int(document.scores[id].rankBits), id: id)
            }
        }
        return out
    }

    private static func key(_ left: Int, _ right: Int) -> UInt64 {
        UInt64(left) << 32 | UInt64(right)
    }

    /// What two neighbours become, with a rank: lower ranks merge first.
    func merge(_ left: Int, _ right: Int) -> Merge? { merges[Self.key(left, right)] }
}

extension Float {
    /// An integer in the same order as the number.
    fileprivate var rankBits: Int32 {
        let bits = Int32(bitPattern: bitPattern)
        return bits < 0 ? Int32.min &- bits : bits
    }
}
