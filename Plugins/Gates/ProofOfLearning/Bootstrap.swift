internal import BlyanPluginKit

/// Whether a candidate is better than its baseline, from losses of both on the same documents.
///
/// The improvement is 1 - (sum of the candidate's losses) / (sum of the baseline's). Its lower bound is the percentile
/// of a paired bootstrap over documents (Efron and Tibshirani, 1993, chapter 13), which are drawn within each slice,
/// so that every resample has the slices' sizes. Integers throughout: the same seed gives the same bound everywhere.
struct Bootstrap {
    /// Losses in micro-nats, by document.
    let baseline: [Int64]
    let candidate: [Int64]
    /// Places of each slice's documents, by the slice's name.
    let slices: [(name: String, documents: [Int])]
    let seed: UInt64
    let resamples: Int

    /// 1 - candidate / baseline in billionths over some documents.
    func improvement(_ documents: some Sequence<Int>) -> Int64 {
        var (before, after) = (Int64(0), Int64(0))
        for document in documents {
            before += baseline[document]
            after += candidate[document]
        }
        return Self.share(before - after, of: before)
    }

    /// Improvements of resamples of all slices, and of each slice, sorted.
    func resampled() -> (all: [Int64], slices: [[Int64]]) {
        var random = SplitMix64(state: seed)
        var all: [Int64] = []
        var bySlice = [[Int64]](repeating: [], count: slices.count)
        for _ in 0..<resamples {
            var (before, after) = (Int64(0), Int64(0))
            for (i, slice) in slices.enumerated() {
                var (sliceBefore, sliceAfter) = (Int64(0), Int64(0))
                let count = UInt64(slice.documents.count)
                for _ in 0..<slice.documents.count {
                    let document = slice.documents[Int(random.next(below: count))]
                    sliceBefore += baseline[document]
                    sliceAfter += candidate[document]
                }
                bySlice[i].append(Self.share(sliceBefore - sliceAfter, of: sliceBefore))
                before += sliceBefore
                after += sliceAfter
            }
            all.append(Self.share(before - after, of: before))
        }
        return (all.sorted(), bySlice.map { $0.sorted() })
    }

    /// The value that a share of `confidence` millionths of the sorted samples is not below.
    static func lowerBound(_ sorted: [Int64], confidence: Int64) -> Int64 {
        let below = Int64(sorted.count) * (1_000_000 - confidence) / 1_000_000
        return sorted[min(Int(below), sorted.count - 1)]
    }

    private static func share(_ part: Int64, of whole: Int64) -> Int64 {
        whole > 0 ? Int64(clamping: Int128(part) * 1_000_000_000 / Int128(whole)) : 0
    }
}

/// Random numbers that repeat (Steele, Lea, Flood, OOPSLA 2014).
struct SplitMix64 {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A number below `limit`, all equally likely (Lemire, arXiv 1805.10941).
    mutating func next(below limit: UInt64) -> UInt64 {
        var (high, low) = next().multipliedFullWidth(by: limit)
        if low < limit {
            let threshold = (0 &- limit) % limit
            while low < threshold { (high, low) = next().multipliedFullWidth(by: limit) }
        }
        return high
    }
}
