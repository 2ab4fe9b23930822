internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct BackgroundBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "background",
        abstract: "A chat beside a miner, and a miner beside a chat: what each loses by the other.",
        discussion: """
            In each round, in turn: a chat alone, beside a miner in the same process, and beside one in a process of \
            its own; the miner on the idle machine, at normal priority and in the background. A chat generates without \
            pause, answer after answer; time to first token is that of chats that begin after a pause, in which the \
            miner has the machine. A round in which other processes took more than a tenth of a core is measured again.
            """)

    @Option(help: "The home; it is copied for the other process.")
    var home: String

    @Option(help: "The model.")
    var model: String?

    @Option(help: "The expert that is trained.")
    var part = "layer2.expert7"

    @Option(help: "Threads that decode.")
    var threads = 2

    @Option(help: "Threads that train.")
    var minerThreads = 2

    @Option(help: "Rounds; medians are reported.")
    var rounds = 5

    @Option(help: "Seconds of each measurement.")
    var seconds = 4.0

    @Option(help: "Sequences a step of training.")
    var batch = 16

    @Option(help: "Tokens a sequence of training.")
    var sequence = 128

    @Option(help: "Tokens of a chat's prompt.")
    var prompt = 32

    @Option(help: "Tokens of an answer.")
    var tokens = 400

    func run() throws {
        let folder = try TemporaryFolder(in: nil)
        let other = folder.url.appendingPathComponent("home")
        try FileManager.default.copyItem(at: URL(fileURLWithPath: home), to: other)
        let node = try Node(
            home: URL(fileURLWithPath: home), threads: threads,
            passphrase: { throw KernelError(.key, "benchmarks do not sign") }, log: { _ in })
        defer { node.close() }
        let loaded = try node.model(model)
        let work = MinerLoad.Work(
            model: loaded, part: part, threads: minerThreads, batch: batch, sequence: sequence)
        var figures: [String: [Double]] = [:]
        var (round, tries, others) = (0, 0, [Double]())
        while round <= rounds {
            var found: [String: Double] = [:]
            let start = (clock: ContinuousClock.now, all: busySeconds(), own: ownSeconds())
            try with(MinerLoad(work, isBackground: false)) { miner in
                found["normal_miner_tokens_per_s"] = try pace(miner, work)
            }
            try chat(loaded, beside: nil, "alone", &found)
            try with(MinerLoad(work, isBackground: true)) { miner in
                found["idle_miner_tokens_per_s"] = try pace(miner, work)
                try chat(loaded, beside: miner, "beside", &found)
                found["beside_miner_tokens_per_s", default: 0] *= Double(work.tokensPerStep)
            }
            try chat(loaded, beside: nil, "again", &found)
            try with(MinerLoad(work, home: other)) { miner in
                try chat(loaded, beside: miner, "other_process", &found)
                found["other_process_miner_tokens_per_s", default: 0] *= Double(work.tokensPerStep)
            }
            let share =
                (busySeconds() - start.all - (ownSeconds() - start.own))
                / (ContinuousClock.now - start.clock).seconds
            tries += 1
            // Work of others is what background work yields to: such a round says nothing about an idle machine.
            guard share < Self.disturbance || tries > 8 * rounds else { continue }
            round += 1
            // The first round maps and verifies.
            guard round > 1 else { continue }
            others.append(share)
            for (name, figure) in found { figures[name, default: []].append(figure) }
        }
        var out = figures.mapValues(median)
        func ratio(_ name: String, _ a: String, _ b: String) {
            // Each pair met the same machine: its ratio says more than two medians.
            guard let above = figures[a], let below = figures[b] else { return }
            out[name] = median(zip(above, below).map { $0 / $1 })
        }
        // Against the mean of before and after: a machine whose speed drifts favours neither side.
        figures["both_tokens_per_s"] = zip(
            figures["alone_tokens_per_s"] ?? [], figures["again_tokens_per_s"] ?? []
        ).map { ($0 + $1) / 2 }
        ratio("chat_ratio", "beside_tokens_per_s", "both_tokens_per_s")
        ratio("chat_ratio_other_process", "other_process_tokens_per_s", "both_tokens_per_s")
        ratio("idle_miner_ratio", "idle_miner_tokens_per_s", "normal_miner_tokens_per_s")
        ratio("beside_miner_share", "beside_miner_tokens_per_s", "normal_miner_tokens_per_s")
        out["other_processes_cores"] = median(others)
        out["rounds_measured_again"] = Double(tries - rounds - 1)
        out["threads"] = Double(threads)
        out["miner_threads"] = Double(minerThreads)
        try report(out)
    }

    /// Cores that other processes may have taken in a round.
    private static let disturbance = 0.1

    /// Processor time of all processes of the machine.
    private func busySeconds() -> Double {
        let text = (try? String(contentsOfFile: "/proc/stat", encoding: .utf8)) ?? ""
        // "cpu", user, nice and system time, idle time, time waiting for a disk, time of interrupts.
        let fields = text.prefix { $0 != "\n" }.split(separator: " ").compactMap { Double($0) }
        return fields.prefix(3).reduce(0, +) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Processor time of this process and of those that it has started and seen end.
    private func ownSeconds() -> Double {
        [RUSAGE_SELF, RUSAGE_CHILDREN].reduce(0) { sum, who in
            var usage = rusage()
            unsafe getrusage(__rusage_who_t(who.rawValue), &usage)
            return [usage.ru_utime, usage.ru_stime].reduce(sum) {
                $0 + Double($1.tv_sec) + 1e-6 * Double($1.tv_usec)
            }
        }
    }

    private func with(_ miner: MinerLoad, _ body: (MinerLoad) throws -> Void) throws {
        let result = Result { try body(miner) }
        try miner.stop()
        try result.get()
    }

    /// Tokens that a miner trains on in a second, by its middle step: one that something else held up tells of that.
    private func pace(_ miner: MinerLoad, _ work: MinerLoad.Work) throws -> Double {
        let before = miner.steps.steps
        usleep(UInt32(1e6 * seconds))
        let steps = miner.steps.each.dropFirst(before)
        guard !steps.isEmpty else { return 0 }
        return Double(work.tokensPerStep) / median(Array(steps))
    }

    /// A chat without pause, then chats that begin after pauses.
    private func chat(
        _ model: LoadedModel, beside miner: MinerLoad?, _ name: String,
        _ found: inout [String: Double]
    ) throws {
        let clock = ContinuousClock()
        let begin = clock.now
        let stepsBefore = miner?.steps
        var (made, taken, longest) = (0, 0.0, 0.0)
        while (clock.now - begin).seconds < seconds {
            let answer = try Background<Answer> { try self.answer(model, tokens) }.value()
            made += answer.tokens
            taken += answer.seconds
            longest = max(longest, answer.longest)
        }
        found["\(name)_tokens_per_s"] = Double(made) / taken
        found["\(name)_longest_gap_ms"] = 1000 * longest
        if let miner, let stepsBefore {
            let after = miner.steps
            found["\(name)_miner_tokens_per_s"] =
                Double(after.steps - stepsBefore.steps) / (clock.now - begin).seconds
        }
        var firsts: [Double] = []
        for _ in 0..<20 {
            usleep(50_000)
            let asked = clock.now
            // As a request does: on a thread of its own.
            firsts.append(
                (try Background<Answer> { try self.answer(model, 1) }.value().first - asked)
                    .seconds)
        }
        found["\(name)_first_token_ms"] = 1000 * median(firsts)
    }

    private struct Answer: Sendable {
        var first = ContinuousClock.now
        var tokens = 0
        var seconds = 0.0
        /// The longest wait for a next token, in seconds.
        var longest = 0.0
    }

    private func answer(_ model: LoadedModel, _ tokens: Int) throws -> Answer {
        let session = try model.runner.makeSession(capacity: prompt + tokens + 8)
        var sampler = try Sampler()
        let vocabulary = model.runner.config.vocabularySize
        let text = (0..<prompt).map { (7 * $0 + 11) % vocabulary }
        var answer = Answer()
        var last: ContinuousClock.Instant?
        let statistics = try model.runner.generate(
            session, prompt: text, sampler: &sampler, limit: tokens, ends: []
        ) { _ in
            let now = ContinuousClock.now
            if let last {
                answer.longest = max(answer.longest, (now - last).seconds)
            } else {
                answer.first = now
            }
            last = now
            return true
        }
        answer.tokens = statistics.tokens
        answer.seconds = statistics.seconds
        return answer
    }
}
