internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import Foundation

struct SimilarityBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "similarity",
        abstract:
            "The similarity gate on real fine-tunes, on copies of them, and beside many changes.",
        discussion: """
            Honest fine-tunes are those of `FineTune.honest`: none of them may be rejected. Then each is submitted again as \
            copies: as it is, stronger, with its neurons in another order and scale, and with noise a tenth of its size. \
            Last, a candidate is compared with as many changes as --indexed says.
            """)

    @OptionGroup var stage: GateStageOptions

    @Option(help: "Fine-tunes.")
    var honest = 216

    @Option(help: "Changes that the last candidates are compared with.")
    var indexed = 100_000

    func run() throws {
        let stage = try stage.make()
        let gate = try stage.gate("similarity")
        var figures: [String: Double] = ["honest": Double(honest)]
        var nearest: [Double] = [], copies: [String: [Bool]] = [:], fresh = 0
        for (i, tune) in FineTune.honest(honest).enumerated() {
            let tensors = try stage.trained(tune)
            let own = try stage.judge(
                stage.block(tune.part, tensors, at: Int64(i)), by: [gate], draw: i)
            nearest.append(
                Double(own.gates[0].evidence["nearest_change_ppm"]?.int ?? 0) / 1e6)
            if own.outcome == "accept" { fresh += 1 }
            guard i % 4 == 0 else { continue }
            var random = SplitMix64(seed: UInt64(i))
            for (name, copy) in try Copies(of: tensors, over: stage.tensors(tune.part)).all(&random)
            {
                let found = try stage.judge(
                    stage.block(tune.part, copy, at: Int64(i)), by: [gate], draw: i, isKept: false)
                copies[name, default: []].append(found.outcome == "reject")
            }
        }
        figures["honest_rejected"] = Double(honest - fresh)
        nearest.sort()
        figures["nearest_median"] = nearest[nearest.count / 2]
        figures["nearest_99_percent"] = nearest[min(nearest.count - 1, nearest.count * 99 / 100)]
        figures["nearest_largest"] = nearest.last
        for (name, rejected) in copies {
            figures["\(name)_rejected_share"] =
                Double(rejected.count { $0 }) / Double(rejected.count)
        }
        let times = try timesBesideMany(stage, gate)
        figures["indexed"] = Double(indexed)
        figures["judge_milliseconds"] = median(times)
        figures["judge_milliseconds_largest"] = times.max()
        try report(figures)
    }

    /// Milliseconds of judgements beside many changes, after the first has read them.
    private func timesBesideMany(_ stage: GateStage, _ gate: GatePlugin) throws -> [Double] {
        guard let tune = FineTune.honest(1).first else { return [] }
        let block = try stage.block(tune.part, stage.trained(tune), at: 0)
        let own = try stage.judge(block, by: [gate], draw: 0, isKept: false)
        guard case .object(var evidence) = own.gates[0].evidence else { return [] }
        let line = String(decoding: block.line, as: UTF8.self)
        let length = evidence["change"]?.string?.utf8.count ?? 0
        let digits = Array("0123456789abcdef".utf8)
        var random = SplitMix64(seed: 1)
        let entries = (0..<indexed).map { _ -> JSONValue in
            var text: [UInt8] = []
            while text.count < length {
                let word = random.next()
                for shift in 0..<16 { text.append(digits[Int(word >> (4 * UInt64(shift)) & 15)]) }
            }
            evidence["change"] = .string(String(decoding: text, as: UTF8.self))
            return .object([
                "block": .string(line), "outcome": .string("reject"), "reason": .string("x/y"),
                "received": .int(0),
                "evidence": .array([
                    .object([
                        "gate": .string("similarity"), "part": .string(""),
                        "evidence": .object(evidence),
                    ])
                ]),
            ])
        }
        // The gate has read this stage's verdicts already; those that come are beside them.
        let history = stage.history(and: entries)
        var times: [Double] = []
        for round in 0...20 {
            let answer = try stage.judge(
                block, by: [gate], draw: 0, isKept: false, history: history)
            if round > 0 { times += answer.seconds.map { 1000 * $0 } }
        }
        return times
    }
}
