internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import Foundation

struct StreamBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stream",
        abstract:
            "A stream of honest work and attacks, through the gates and without an immune one.",
        discussion: """
            Attacks and authors of --late are absent from the first half, from which the immune gate learns. The last gate is \
            asked about every attack, also about those that others stop.
            """)

    @OptionGroup var stage: GateStageOptions

    @Option(help: "Attacks.")
    var attacks = 1000

    @Option(help: "Honest fine-tunes.")
    var honest = 250

    @Option(help: "Attacks that only the second half has, separated by commas.")
    var late = "shuffled_change,random_direction"

    @Flag(help: "A line for each candidate on standard error.")
    var verbose = false

    /// What became of one kind of candidate.
    private struct Tally {
        var count = 0, cheaplyStopped = 0, stoppedWithout = 0, accepted = 0
        var immuneAsked = 0, immuneRefused = 0
        var slowest = 0.0, seconds: [Double] = []
    }

    func run() throws {
        let stage = try stage.make()
        let cheap = try ["structure", "similarity", "immune", "quick-perplexity"].map(stage.gate)
        let last = try stage.gate("proof-of-learning")
        let lateKinds = late.split(separator: ",").map(String.init)
        let tunes = FineTune.honest(honest + 1)
        let keys = try (0..<24).map { _ in try SigningKey() }
        var works: [(part: String, tensors: [ExpertFile.Tensor])] = []
        var tallies: [String: Tally] = [:]
        var random = SplitMix64(seed: 99)
        let total = attacks + honest
        var made = 0
        for i in 0..<total {
            // Honest work is spread evenly.
            let isHonest = (i + 1) * honest / total > i * honest / total
            let isLate = i >= total / 2
            var (name, tensors, part, key) = ("honest", [ExpertFile.Tensor](), "", keys[0])
            if isHonest || works.isEmpty {
                let tune = tunes[made % tunes.count]
                made += 1
                part = tune.part
                tensors = try stage.trained(tune)
                key = keys[(isLate ? 4 : 0) + made % 4]
                works.append((part, tensors))
            } else {
                let kinds = Attack.allCases.filter { isLate || !lateKinds.contains($0.rawValue) }
                let kind = kinds[Int(random.next(below: UInt64(kinds.count)))]
                let work = works[Int(random.next(below: UInt64(works.count)))]
                (name, part) = (kind.rawValue, work.part)
                tensors = try kind.tensors(stage, part, work: work.tensors, seed: i)
                key = keys[(isLate ? 16 : 8) + Int(random.next(below: 8))]
            }
            let block = try stage.block(part, tensors, by: key, at: Int64(i) * 60_000)
            let answer = try stage.judge(block, by: cheap + [last], draw: i)
            let refusing = answer.outcome == "accept" ? nil : answer.gates.last?.name
            var tally = tallies[name] ?? Tally()
            tally.count += 1
            let spent = zip(answer.gates, answer.seconds).filter {
                $0.0.name != "proof-of-learning"
            }
            .reduce(0) { $0 + $1.1 }
            tally.seconds.append(spent)
            if let refusing, refusing != "proof-of-learning" { tally.cheaplyStopped += 1 }
            if isLate, answer.gates.contains(where: { $0.name == "immune" }) {
                tally.immuneAsked += 1
                if refusing == "immune" { tally.immuneRefused += 1 }
            }
            // Without the immune gate: what the next cheap one says of it.
            var without = refusing != nil && refusing != "proof-of-learning"
            var isAccepted = refusing == nil
            if refusing == "immune" {
                without =
                    try stage.judge(block, by: [cheap[3]], draw: i, isKept: false).outcome
                    != "accept"
            }
            if refusing != nil, refusing != "proof-of-learning", refusing != "structure" {
                isAccepted =
                    try stage.judge(block, by: [last], draw: i, isKept: false).outcome == "accept"
            }
            if without { tally.stoppedWithout += 1 }
            if isAccepted { tally.accepted += 1 }
            tallies[name] = tally
            if verbose {
                let score = answer.gates.first { $0.name == "immune" }?.evidence["score"]?.int
                FileHandle.standardError.write(
                    Data(
                        "\(i) \(name) \(answer.reason) \(score ?? 0) \(isAccepted) \(spent)\n".utf8)
                )
            }
        }
        var figures: [String: Double] = [:]
        let junk = tallies.filter { $0.key != "honest" }
        func share(_ tallies: [Tally], _ count: (Tally) -> Int, of all: (Tally) -> Int) -> Double {
            let whole = tallies.reduce(0) { $0 + all($1) }
            return whole > 0 ? Double(tallies.reduce(0) { $0 + count($1) }) / Double(whole) : 0
        }
        for (name, tally) in tallies {
            figures["\(name)_count"] = Double(tally.count)
            figures["\(name)_stopped_cheaply"] = share([tally], \.cheaplyStopped, of: \.count)
            figures["\(name)_stopped_without_immune"] = share(
                [tally], \.stoppedWithout, of: \.count)
            figures["\(name)_accepted_by_the_last_gate"] = share([tally], \.accepted, of: \.count)
            figures["\(name)_refused_by_immune_late"] = share(
                [tally], \.immuneRefused, of: \.immuneAsked)
            figures["\(name)_cheap_seconds_median"] = median(tally.seconds)
            figures["\(name)_cheap_seconds_largest"] = tally.seconds.max()
        }
        figures["attacks"] = Double(junk.values.reduce(0) { $0 + $1.count })
        figures["attacks_stopped_cheaply"] = share(
            Array(junk.values), \.cheaplyStopped, of: \.count)
        figures["attacks_stopped_without_immune"] = share(
            Array(junk.values), \.stoppedWithout, of: \.count)
        figures["attacks_accepted_by_the_last_gate"] = share(
            Array(junk.values), \.accepted, of: \.count)
        try report(figures)
    }
}
