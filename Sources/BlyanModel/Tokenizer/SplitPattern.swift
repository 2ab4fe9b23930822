/// A regular expression of a pre-tokenizer, compiled: what tokenizers use of Oniguruma's syntax; the rest is refused.
///
/// Alternatives are tried in order and repeats are greedy, with backtracking, as that engine does.
/// https://github.com/kkos/oniguruma/blob/master/doc/RE
struct SplitPattern: Sendable {
    enum Instruction: Sendable {
        /// As many scalars of a set as there are, `max` at most; gives back down to `min` unless possessive.
        case run(set: Int, min: Int, max: Int, isPossessive: Bool)
        /// Goes on; if that fails, goes on at the target.
        case branch(Int)
        case jump(Int)
        /// Whether the next scalar is in a set must be as expected.
        case look(set: Int, expected: Bool)
        /// The end, or a line feed next.
        case lineEnd
        case match
    }

    private let code: [Instruction]
    private let sets: [ScalarSet]

    /// Compiles a pattern.
    ///
    /// - Throws: ``ModelError`` naming the construct that is not supported.
    init(_ pattern: String) throws(ModelError) {
        var compiler = SplitCompiler(pattern)
        (code, sets) = try compiler.compile()
    }

    /// Appends the ranges of the matches within `range`, and of what lies between them, in order.
    func split(_ text: [UInt32], _ range: Range<Int>, into out: inout [Range<Int>]) {
        var start = range.lowerBound
        var at = start
        var stack: [Retry] = []
        while at < range.upperBound {
            guard let stop = match(text, from: at, to: range.upperBound, &stack), stop > at else {
                at = afterFailure(text, from: at, to: range.upperBound)
                continue
            }
            if start < at { out.append(start..<at) }
            out.append(at..<stop)
            at = stop
            start = stop
        }
        if start < range.upperBound { out.append(start..<range.upperBound) }
    }

    /// Where to try next: a pattern that fails after a leading run fails everywhere within the run.
    private func afterFailure(_ text: [UInt32], from at: Int, to end: Int) -> Int {
        guard case .run(let set, _, .max, false) = code[0] else { return at + 1 }
        var next = at
        while next < end, sets[set].contains(text[next]) { next += 1 }
        return max(next, at + 1)
    }

    private struct Retry {
        let code: Int
        let least: Int
        var at: Int
    }

    private func match(_ text: [UInt32], from start: Int, to end: Int, _ stack: inout [Retry])
        -> Int?
    {
        stack.removeAll(keepingCapacity: true)
        var pc = 0
        var at = start
        while true {
            var isFailure = false
            switch code[pc] {
            case .run(let set, let min, let max, let isPossessive):
                let members = sets[set]
                let limit = max < end - at ? at + max : end
                var stop = at
                while stop < limit, members.contains(text[stop]) { stop += 1 }
                if stop - at < min {
                    isFailure = true
                } else {
                    pc += 1
                    if stop - at > min, !isPossessive {
                        stack.append(Retry(code: pc, least: at + min, at: stop - 1))
                    }
                    at = stop
                }
            case .branch(let other):
                pc += 1
                stack.append(Retry(code: other, least: at, at: at))
            case .jump(let target): pc = target
            case .look(let set, let expected):
                isFailure = (at < end && sets[set].contains(text[at])) != expected
                pc += 1
            case .lineEnd:
                isFailure = at < end && text[at] != 10
                pc += 1
            case .match: return at
            }
            guard isFailure else { continue }
            guard var retry = stack.popLast() else { return nil }
            pc = retry.code
            at = retry.at
            if retry.at > retry.least {
                retry.at -= 1
                stack.append(retry)
            }
        }
    }
}
