internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanServer

struct CandidateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "candidate", abstract: "List candidates that wait, and have them judged.",
        subcommands: [
            CandidateList.self, CandidateJudge.self, CandidateCosign.self, CandidateEndorse.self,
        ])
}

struct CandidateList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the candidates that wait for a verdict, or the last that were judged.",
        discussion: """
            State: waits; fault, after a gate or the reward policy failed; stopped, if one of them ended the node again and \
            again while it was asked about this candidate, which is then judged only on request; signatures, if its verdict \
            lacks those of other validators. What waits is listed first come first, what was judged newest first.
            """)

    @OptionGroup var home: HomeOptions

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "List the last of those that were judged instead, as many as this.", valueName: "n"))
    var judged: Int?

    @Flag(help: "Print one JSON array.")
    var json = false

    func validate() throws {
        if let judged, judged < 1 { throw ValidationError("--judged must be above 0") }
    }

    func run(_ node: Node, _ console: Console) throws {
        if let judged { return try printJudged(judged, node, console) }
        let judge = try node.judge()
        let queue = judge.candidates.queue
        let draft = try judge.draft()
        func state(_ entry: CandidateStore.Entry) -> String {
            if draft?.block.hash == entry.block.hash { return "signatures" }
            guard judge.isDue(entry) else { return "stopped" }
            return judge.fault(of: entry) == nil ? "waits" : "fault"
        }
        if json {
            return try console.printJSON(
                .array(
                    queue.map { entry in
                        .object([
                            "candidate": .string(entry.block.hash.description),
                            "expert": .string(entry.block.header.expertName),
                            "author": .string(entry.block.header.miner),
                            "received": .int(entry.received),
                            "state": .string(state(entry)),
                            "fault": .string(judge.fault(of: entry) ?? ""),
                            "deaths": .array(entry.deaths.map(\.json)),
                        ])
                    }))
        }
        try console.printTable(
            [["candidate", "expert", "version", "state", "author"]]
                + queue.map {
                    [
                        String($0.block.hash.description.prefix(12)), $0.block.header.expertName,
                        $0.block.header.version, state($0), $0.block.header.miner,
                    ]
                })
        for entry in queue {
            guard let fault = judge.fault(of: entry) else { continue }
            let error = KernelError(
                .plugin, fault,
                hint: (entry.deaths.last(where: \.isFinal) ?? entry.deaths.last)?.hint(
                    entry.block.hash)
                    ?? "`blyan candidate judge \(entry.block.hash.description.prefix(16))` has it judged again"
            )
            console.note(Failure(error, arguments: ["--home", home.home]).text)
        }
    }

    /// The last verdicts on candidates, newest first; a review is of a version, and none of them.
    private func printJudged(_ limit: Int, _ node: Node, _ console: Console) throws {
        var verdicts: [Block] = []
        try node.store.scan(.type(chain: "A", "verdict"), reverse: true) {
            block throws(KernelError) in
            if !VerdictIndex.isReview(block) { verdicts.append(block) }
            return verdicts.count < limit
        }
        func fact(_ name: String, _ verdict: Block) -> String {
            verdict.header.metadata[name]?.string ?? ""
        }
        if json {
            let facts = ["candidate", "expert", "author", "outcome", "reason"]
            return try console.printJSON(
                .array(
                    verdicts.map { verdict in
                        var members = Dictionary(
                            uniqueKeysWithValues: facts.map {
                                ($0, JSONValue.string(fact($0, verdict)))
                            })
                        members["judged"] = .int(verdict.header.timestamp)
                        members["verdict_block"] = .string(verdict.hash.description)
                        return .object(members)
                    }))
        }
        try console.printTable(
            [["candidate", "expert", "outcome", "reason", "verdict", "author"]]
                + verdicts.map {
                    [
                        String(fact("candidate", $0).prefix(12)), fact("expert", $0),
                        fact("outcome", $0), fact("reason", $0),
                        String($0.hash.description.prefix(12)), fact("author", $0),
                    ]
                })
    }
}

struct CandidateJudge: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "judge",
        abstract: "Judge candidates that wait: after a fault, or what was deferred.",
        discussion: """
            Without CANDIDATE all that wait, but those at which a gate or the reward policy ended the node again and again. \
            Exit status 1: a gate or the policy failed. Exit status 2: all were judged, and not all accepted.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp(
            "Hashes, or their beginnings; whatever happened to them before, also anew where a verdict awaits signatures.",
            valueName: "candidate"))
    var candidates: [String] = []

    @Flag(help: "Print one JSON object a line.")
    var json = false

    var endsCleanly: Bool { true }

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge(passphrase: console.nodePassphrase)
        let queue = judge.candidates.queue
        let chosen =
            try candidates.isEmpty
            ? queue.filter(judge.isDue) : candidates.map { try entry($0, in: queue) }
        for entry in queue where candidates.isEmpty && !judge.isDue(entry) {
            console.note("blyan: left out: \(judge.fault(of: entry) ?? "")")
        }
        var failures: [any Error] = []
        var allAccepted = true
        if !chosen.isEmpty { console.noteIfBusy(judge) }
        for entry in chosen {
            do {
                let made = try judge.judge(entry.block.hash, isAnew: !candidates.isEmpty)
                if made.outcome != .accept { allAccepted = false }
                if json {
                    try console.printJSON(console.json(made))
                } else {
                    try console.print(made)
                }
            } catch let error as KernelError {
                try Cancellation.check()
                // Each for itself; what keeps all of them waiting is told once.
                if let last = failures.last, "\(last)" != "\(error)" {
                    console.note(Failure(last, arguments: ["--home", home.home]).text)
                }
                failures.append(error)
            }
        }
        if let last = failures.last { throw last }
        if !allAccepted { throw ExitCode(2) }
    }

    private func entry(_ name: String, in queue: [CandidateStore.Entry]) throws(KernelError)
        -> CandidateStore.Entry
    {
        let found = queue.filter { $0.block.hash.description.hasPrefix(name.lowercased()) }
        guard let entry = found.first, found.count == 1, name.count >= 6 else {
            throw KernelError(
                .notFound,
                found.count > 1 && name.count >= 6
                    ? "\(found.count) candidates that wait begin with \(name)"
                    : "no candidate \(name) waits for a verdict",
                hint: "`blyan candidate list` lists them; give at least six digits of the hash")
        }
        return entry
    }
}
