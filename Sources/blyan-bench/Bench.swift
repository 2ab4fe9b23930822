internal import ArgumentParser
internal import Foundation

/// The benchmarks: one subcommand a claim, JSON on standard output.
@main
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "blyan-bench",
        abstract: "Measure what the README claims; every subcommand prints one JSON object.",
        discussion:
            "Machines differ and are shared: compare only figures of one run, by their medians.",
        subcommands: [
            ChainBench.self, AppendBench.self, LoadBench.self, DecodeBench.self, MathBench.self,
            SimilarityBench.self, StreamBench.self, ClimbBench.self, CanaryBench.self,
            GemmBench.self,
            TrainBench.self,
            LedgerBench.self,
            UsageBench.self, BackgroundBench.self, BackgroundMiner.self,
        ])
}

/// Figures by name, printed with sorted keys.
func report(_ figures: [String: Double]) throws {
    let rounded = figures.mapValues { ($0 * 1000).rounded() / 1000 }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
    print(String(decoding: try encoder.encode(rounded), as: UTF8.self))
}

/// The middle of the samples.
func median(_ samples: [Double]) -> Double {
    let sorted = samples.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
}

/// Seconds that `body` takes.
func seconds(_ body: () throws -> Void) rethrows -> Double {
    let clock = ContinuousClock()
    let taken = try clock.measure(body).components
    return Double(taken.seconds) + Double(taken.attoseconds) * 1e-18
}

/// Seconds that all threads of this process spend on the processor meanwhile.
func processorSeconds(_ body: () throws -> Void) rethrows -> Double {
    func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
    let start = now()
    try body()
    return now() - start
}

/// A folder that is removed at the end.
final class TemporaryFolder {
    let url: URL

    init(in parent: String?) throws {
        let base = parent.map { URL(fileURLWithPath: $0) } ?? FileManager.default.temporaryDirectory
        url = base.appendingPathComponent("blyan-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }
}
