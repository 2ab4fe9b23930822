internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation
internal import Synchronization

/// Training that goes on until it is told to stop, and counts its steps.
final class MinerLoad: Sendable {
    /// What is trained, and how.
    struct Work: Sendable {
        let model: LoadedModel
        let part: String
        let threads: Int
        let batch: Int
        let sequence: Int

        var tokensPerStep: Int { batch * sequence }

        func trainer(isBackground: Bool) throws -> (Trainer, TokenStream) {
            guard let library = GemmLibrary.openBLAS() else {
                throw KernelError(.notFound, "OpenBLAS is not installed")
            }
            let config = model.model.document.config
            let network = try Network(
                Weights(config) { try model.decode($0) },
                multiplier: Multiplier(
                    pool: WorkerPool(threads: threads, isBackground: isBackground),
                    library: library)
            ) { [model] in try model.makeRouter() }
            var options = TrainingOptions(steps: 1_000_000)
            options.batch = batch
            options.sequence = sequence
            var random = SplitMix64(seed: 1)
            let tokens = (0..<100_000).map { _ in
                Int(random.next(below: UInt64(config.vocabularySize)))
            }
            return (try Trainer(network, parts: [part], options), TokenStream(tokens: tokens))
        }
    }

    /// Steps, and when the last one ended.
    struct Count: Sendable {
        var steps = 0
        var at = ContinuousClock.now
        /// Seconds that each took.
        var each: [Double] = []
    }

    private let isOver = Mutex(false)
    private let count = Mutex(Count())
    private let training: Mutex<Background<Void>?> = Mutex(nil)
    private let child: Mutex<Process?> = Mutex(nil)

    /// Trains in this process; returns once it is in full swing.
    init(_ work: Work, isBackground: Bool) throws {
        let running = Background(yields: isBackground) { [self] in
            let (trainer, stream) = try work.trainer(isBackground: isBackground)
            while !isOver.withLock({ $0 }) {
                _ = try trainer.step(stream.batch(step: trainer.optimizer.steps, trainer.options))
                add()
            }
        }
        training.withLock { $0 = running }
        waitForSwing()
    }

    /// Has another process train on a home of its own.
    init(_ work: Work, home: URL) throws {
        let (process, pipe) = (Process(), Pipe())
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments =
            ["background-miner", "--home", home.path, "--part", work.part]
            + ["--threads", "\(work.threads)", "--batch", "\(work.batch)"]
            + ["--sequence", "\(work.sequence)", "--model", work.model.model.name]
        process.standardOutput = pipe
        try process.run()
        child.withLock { $0 = process }
        Thread.detachNewThread { [self] in
            while true {
                let lines = pipe.fileHandleForReading.availableData
                guard !lines.isEmpty else { return }
                for _ in lines { add() }
            }
        }
        waitForSwing()
    }

    private func add() {
        count.withLock {
            let now = ContinuousClock.now
            $0.steps += 1
            $0.each.append((now - $0.at).seconds)
            $0.at = now
        }
    }

    private func waitForSwing() {
        let limit = ContinuousClock.now + .seconds(60)
        while steps.steps < 3, ContinuousClock.now < limit { usleep(1000) }
    }

    var steps: Count { count.withLock { $0 } }

    /// Ends the training.
    func stop() throws {
        isOver.withLock { $0 = true }
        if let process = child.withLock({ $0 }) {
            process.terminate()
            process.waitUntilExit()
        }
        try training.withLock { $0 }?.value()
    }
}

/// What ``MinerLoad`` starts: prints one byte a step.
struct BackgroundMiner: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "background-miner",
        abstract: "The miner of another process that `background` measures; ends by a signal.",
        shouldDisplay: false)

    @Option var home: String
    @Option var model: String
    @Option var part: String
    @Option var threads: Int
    @Option var batch: Int
    @Option var sequence: Int

    func run() throws {
        let node = try Node(
            home: URL(fileURLWithPath: home), threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        let work = MinerLoad.Work(
            model: try node.model(model), part: part, threads: threads, batch: batch,
            sequence: sequence)
        try Background(yields: true) {
            let (trainer, stream) = try work.trainer(isBackground: true)
            while true {
                _ = try trainer.step(stream.batch(step: trainer.optimizer.steps, trainer.options))
                try FileHandle.standardOutput.write(contentsOf: [UInt8(ascii: ".")])
            }
        }.value()
    }
}
