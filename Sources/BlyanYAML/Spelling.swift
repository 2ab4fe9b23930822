/// The nearest right spelling of a word.
enum Spelling {
    /// The known word with the fewest edits from `word`, if those are at most a third of it, at least 1.
    static func nearest(to word: String, among known: [String]) -> String? {
        let best = known.map { (word: $0, edits: distance(Array(word.utf8), Array($0.utf8))) }
            .min { $0.edits < $1.edits }
        guard let best, best.edits <= max(1, word.utf8.count / 3) else { return nil }
        return best.word
    }

    /// Insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b`.
    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        // Longer words are unlike every key; the table stays small on hostile input.
        guard a.count <= 64, b.count <= 64 else { return Int.max }
        var rows = [Array(0...b.count)]
        for i in a.indices {
            var row = [i + 1]
            for j in b.indices {
                var edits = min(row[j], rows[i][j + 1]) + 1
                edits = min(edits, rows[i][j] + (a[i] == b[j] ? 0 : 1))
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
                    edits = min(edits, rows[i - 1][j - 1] + 1)
                }
                row.append(edits)
            }
            rows.append(row)
        }
        return rows[a.count][b.count]
    }
}
