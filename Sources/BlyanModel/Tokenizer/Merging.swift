/// Byte-pair merging: the pair with the lowest rank first, the leftmost of equals.
///
/// A linked list of symbols and a heap of candidate pairs: O(n log n), so that hostile text is not quadratic.
struct Merging {
    private struct Candidate {
        let rank: Int
        let left: Int
        let leftID: Int
        let rightID: Int
        let id: Int

        static func < (a: Candidate, b: Candidate) -> Bool { (a.rank, a.left) < (b.rank, b.left) }
    }

    private var ids: [Int]
    private var next: [Int]
    private var previous: [Int]
    private var heap: [Candidate] = []
    private let vocabulary: Vocabulary

    /// Merges symbols until no pair is left.
    ///
    /// - Parameter symbols: ids; a negative one (unknown) merges with nothing.
    static func merge(_ symbols: [Int], _ vocabulary: Vocabulary) -> [Int] {
        guard symbols.count > 1 else { return symbols }
        var state = Merging(symbols, vocabulary)
        return state.run()
    }

    private init(_ symbols: [Int], _ vocabulary: Vocabulary) {
        ids = symbols
        next = symbols.indices.map { $0 + 1 }
        previous = symbols.indices.map { $0 - 1 }
        self.vocabulary = vocabulary
        for i in symbols.indices.dropLast() { push(i) }
    }

    private mutating func push(_ left: Int) {
        let right = next[left]
        guard right < ids.count, ids[left] >= 0, ids[right] >= 0,
            let merge = vocabulary.merge(ids[left], ids[right])
        else { return }
        heap.append(
            Candidate(
                rank: merge.rank, left: left, leftID: ids[left], rightID: ids[right], id: merge.id))
        var child = heap.count - 1
        while child > 0, heap[child] < heap[(child - 1) / 2] {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func pop() -> Candidate? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return first }
        heap[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && heap[child] < heap[least] {
                least = child
            }
            if least == parent { return first }
            heap.swapAt(parent, least)
            parent = least
        }
    }

    private mutating func run() -> [Int] {
        // Merged-away symbols have id Int.min.
        while let best = pop() {
            let right = next[best.left]
            guard ids[best.left] == best.leftID, right < ids.count, ids[right] == best.rightID
            else { continue }
            ids[best.left] = best.id
            ids[right] = .min
            next[best.left] = next[right]
            if next[right] < ids.count { previous[next[right]] = best.left }
            push(best.left)
            if previous[best.left] >= 0 { push(previous[best.left]) }
        }
        return ids.filter { $0 != .min }
    }
}
