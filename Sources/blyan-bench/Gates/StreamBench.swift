internal import ArgumentParser
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
            asked about every candidate, also about those that others stop. What is a real gain is not taken from a name: honest \
            work, an attack that may gain, and all that the last gate accepts are evaluated on all documents of another shard.
            """)

    @OptionGroup var stage: GateStageOptions

    @Option(help: "Attacks.")
    var attacks = 1090

    @Option(help: "Honest fine-tunes.")
    var honest = 260

    @Option(help: "Attacks that only the second half has, separated by commas.")
    var late = "shuffled_change,random_direction"

    @Option(help: "A file that gets one line of JSON for each candidate.")
    var details: String?

    func run() throws {
        let stage = try stage.make()
        let sink = try details.map { path in
            try Data().write(to: URL(fileURLWithPath: path))
            return try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        }
        let names = ["structure", "similarity", "immune", "quick-perplexity"]
        let gates = try (names + ["proof-of-learning"]).map(stage.gate)
        let lateKinds = late.split(separator: ",").map(String.init)
        let tunes = FineTune.promising(honest + 1)
        let keys = try (0..<24).map { _ in try SigningKey() }
        var works: [(part: String, tensors: [ExpertFile.Tensor])] = []
        var records: [StreamRecord] = []
        var random = SplitMix64(seed: 99)
        let total = attacks + honest
        for i in 0..<total {
            let isLate = i >= total / 2
            var record = StreamRecord(number: i, kind: "honest", isLate: isLate)
            let (part, tensors, key): (String, [ExpertFile.Tensor], SigningKey)
            // Honest work is spread evenly, and comes first: attacks copy it.
            if works.isEmpty || (i + 1) * honest / total > i * honest / total {
                let tune = tunes[works.count % tunes.count]
                (part, tensors) = (tune.part, try stage.trained(tune))
                key = keys[(isLate ? 4 : 0) + works.count % 4]
                works.append((part, tensors))
            } else {
                let kinds = Attack.allCases.filter { isLate || !lateKinds.contains($0.rawValue) }
                let kind = kinds[Int(random.next(below: UInt64(kinds.count)))]
                let work = works[Int(random.next(below: UInt64(works.count)))]
                record.kind = kind.rawValue
                (part, tensors) = (
                    work.part, try kind.tensors(stage, work.part, work: work.tensors, seed: i)
                )
                key = keys[(isLate ? 16 : 8) + Int(random.next(below: 8))]
            }
            let block = try stage.block(part, tensors, by: key, at: Int64(i) * 60_000)
            try judge(block, stage, gates, &record)
            if record.mayGain {
                record.truth = try stage.truth(of: block, draw: i)
            }
            records.append(record)
            if let sink {
                try sink.write(contentsOf: JSONEncoder().encode(record) + [10])
            }
        }
        try report(StreamFigures(records, delta: delta(records)).all)
    }

    /// Asks the gates in their order, and of those behind the one that refuses some on their own.
    private func judge(
        _ block: Block, _ stage: GateStage, _ gates: [GatePlugin], _ record: inout StreamRecord
    ) throws {
        let answer = try stage.judge(block, by: gates, draw: record.number)
        for (gate, seconds) in zip(answer.gates, answer.seconds) { record.add(gate, seconds) }
        // Numbers that are none are evaluated by nobody.
        guard answer.outcome != "accept", let refusing = answer.gates.last?.name,
            refusing != "structure", refusing != "proof-of-learning"
        else { return }
        for gate in refusing == "immune" ? gates[3...] : gates[4...] {
            let alone = try stage.judge(block, by: [gate], draw: record.number, isKept: false)
            record.add(alone.gates[0], alone.seconds[0], isAlone: true)
        }
    }

    private func delta(_ records: [StreamRecord]) -> Int64 {
        records.lazy.compactMap { $0.last?.delta }.first ?? 0
    }
}
