internal import ArgumentParser
internal import BlyanLearning
internal import Foundation

struct ClimbBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "climb",
        abstract:
            "A simulation: climbing held-out text by trial and error, on one set and on shards that are used up.",
        discussion: """
            One who learns nothing submits random directions, reads each receipt, and submits their sum, each with the sign of its score: \
            so leaderboards are beaten (Blum and Hardt, The Ladder, 2015, section 4). The simulated world is the worst there can be: \
            directions add up without harm at any size, documents gain nothing on average, and nobody else submits. \
            "one_set" judges all on the same documents; "shards" draws some of a shard for each, and takes the next shard after --cap \
            judgements; "filtered" is the same where the receipt has what a small sample of the draw says, as of all that quick-perplexity stops.
            """)

    @Option(help: "Documents of a shard.")
    var shard = 920

    @Option(help: "Documents that a judgement draws.")
    var draw = 300

    @Option(help: "Documents that quick-perplexity looks at.")
    var quick = 48

    @Option(help: "Judgements that a shard serves.")
    var cap = 32

    @Option(help: "Simulated climbs.")
    var climbs = 400

    @Option(help: "The standard errors that the bound lies below the mean: 3.09 for 99.9 %.")
    var errors = 3.09

    func run() throws {
        var figures: [String: Double] = [:]
        for queries in [8, 32, 128] {
            let onOne = climb(documents: draw, seen: draw, queries: queries)
            // Votes on used up shards say nothing of the next one: the last shard's are what counts.
            let last = (queries - 1) % cap + 1
            let onShards = climb(documents: shard, seen: draw, queries: last)
            let filtered = climb(documents: shard, seen: quick, queries: last)
            for (name, found) in [
                ("one_set", onOne), ("shards", onShards), ("filtered", filtered),
            ] {
                figures["\(name)_\(queries)_queries_errors_above_truth"] =
                    found.reduce(0, +) / Double(found.count)
                figures["\(name)_\(queries)_queries_accepted"] =
                    Double(found.count { $0 > errors }) / Double(found.count)
            }
        }
        try report(figures)
    }

    /// How many standard errors the sum of voted directions is above its true gain of 0, in each climb.
    ///
    /// - Parameters:
    ///   - documents: of the set that all draws are from.
    ///   - seen: documents of each draw that a receipt tells of.
    ///   - queries: submissions, the sum being the last.
    private func climb(documents: Int, seen: Int, queries: Int) -> [Double] {
        var random = SplitMix64(seed: UInt64(documents * 1_000_003 + seen * 1009 + queries))
        return (0..<climbs).map { _ in
            var sum = [Float](repeating: 0, count: documents)
            for _ in 1..<queries {
                let gains = (0..<documents).map { _ in random.nextNormal() }
                let score = sample(seen, of: documents, &random).reduce(Float(0)) { $0 + gains[$1] }
                for i in 0..<documents { sum[i] += score > 0 ? gains[i] : -gains[i] }
            }
            let judged = sample(draw, of: documents, &random).map { Double(sum[$0]) }
            let mean = judged.reduce(0, +) / Double(judged.count)
            let square = judged.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            return mean / (square / Double(judged.count * (judged.count - 1))).squareRoot()
        }
    }

    /// So many different numbers below a limit.
    private func sample(_ count: Int, of limit: Int, _ random: inout SplitMix64) -> ArraySlice<Int>
    {
        var all = Array(0..<limit)
        for i in 0..<min(count, limit) {
            all.swapAt(i, i + Int(random.next(below: UInt64(limit - i))))
        }
        return all.prefix(count)
    }
}
