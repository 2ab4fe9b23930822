internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation
internal import Synchronization

/// Tells a person what a miner that runs on and on does, a line a fact.
///
/// Any thread.
final class MinerLog: Sendable {
    private let bar: ProgressBar?
    private let rehearsal: Int
    private let line: @Sendable (String) throws -> Void
    private let told = Mutex(ContinuousClock.now)

    /// Seconds between two lines of progress where no bar shows it.
    private static let interval = 30.0

    /// - Parameters:
    ///   - bar: shows progress instead of lines.
    ///   - rehearsal: tokens that a model makes of itself before a training.
    init(bar: ProgressBar?, rehearsal: Int, line: @escaping @Sendable (String) throws -> Void) {
        self.bar = bar
        self.rehearsal = rehearsal
        self.line = line
    }

    /// - Throws: When nobody listens any more.
    func add(_ news: ContinuousMiner.News) throws {
        switch news {
        case .begins(let expert): try tell("mining    \(expert)")
        case .training(_, .rehearsal(let made)):
            bar?.update(min(made, rehearsal), of: rehearsal, "tokens of rehearsal")
        case .training(let expert, .resumed(let step)):
            try tell("resumed   \(expert), going on after step \(step)")
        case .training(let expert, .step(let progress)): try show(expert, progress)
        case .trained(let expert, let result):
            let perplexities = result.before.flatMap { before in
                result.after.map {
                    ", perplexity \(exp(before).formatted(2)) before, \(exp($0).formatted(2)) after"
                }
            }
            try tell(
                "trained   \(expert), \(result.tokens) tokens in \(result.seconds.formatted(1)) s, serves \((100 * result.served).formatted(1)) %\(perplexities ?? "")"
            )
        case .skipped(let expert, let reason): try tell("skipped   \(expert): \(reason)")
        case .judged(let made):
            let verdict =
                switch made.outcome {
                case .accept: "accepted"
                case .reject: "rejected: \(made.reason)"
                case .defer: "deferred: \(made.reason); the candidate waits"
                }
            try tell(
                "verdict   \(made.candidate.header.expertName) \(verdict), candidate \(made.candidate.hash)"
            )
        case .waits(let error): try tell("waits     \(error.message)")
        case .ends(let reason): try tell("ends      \(reason)")
        }
    }

    private func tell(_ text: String) throws {
        bar?.end()
        told.withLock { $0 = .now }
        try line(text)
    }

    private func show(_ expert: String, _ progress: Miner.Progress) throws {
        let text =
            "loss \(progress.loss.formatted(4))  \(Int(progress.tokensPerSecond)) tokens/s  \(Int(progress.secondsLeft.rounded())) s left"
        if let bar { return bar.update(progress.step, of: progress.steps, text) }
        let isDue = told.withLock { (ContinuousClock.now - $0).seconds > Self.interval }
        if isDue {
            try tell("step      \(progress.step) of \(progress.steps) of \(expert)  \(text)")
        }
    }
}
