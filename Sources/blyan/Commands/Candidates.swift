internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanServer

struct CandidateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "candidate", abstract: "List candidates that wait, and have them judged.",
        subcommands: [CandidateList.self, CandidateJudge.self])
}

struct CandidateList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the candidates that wait for a verdict, first come first.",
        discussion: """
            State: waits; fault, after a gate failed; stopped, if a gate ended the node again and again while it judged \
            this candidate, which is then judged only on request.
            """)

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge()
        let queue = judge.candidates.queue
        func state(_ entry: CandidateStore.Entry) -> String {
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
                            "deaths": .array(entry.deaths.map(json)),
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

    private func json(_ death: GateDeath) -> JSONValue {
        .object([
            "gate": .string(death.gate), "version": .string(death.version),
            "library": .string(death.library.description), "count": .int(death.count),
            "asked": .int(death.asked),
        ])
    }
}

struct CandidateJudge: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "judge",
        abstract: "Judge candidates that wait: after a fault, or what was deferred.",
        discussion: """
            Without CANDIDATE all that wait, but those at which a gate ended the node again and again. Exit status 1: a \
            gate failed. Exit status 2: all were judged, and not all accepted.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp(
            "Hashes, or their beginnings; whatever happened to them before.",
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
        for entry in chosen {
            do {
                let made = try judge.judge(entry.block.hash)
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

struct Pool: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Commit held-out text, which candidates are judged on, and list it.",
        subcommands: [PoolAdd.self, PoolList.self])
}

struct PoolAdd: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Commit a shard of held-out text to chain A.",
        discussion: """
            FILE has one JSON object a line: {"slice": "plays", "text": "..."}. Its hash is signed now; candidates that \
            come later meet documents of it that nobody could choose. It stays hidden for as long as its file does.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp("The shard; several are used one after the other.", valueName: "file"))
    var files: [String]

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge(passphrase: console.nodePassphrase)
        for file in files {
            let block = try judge.addShard(console.read(file))
            try console.print(
                "committed \(file): \(block.header.metadata["documents"]?.int ?? 0) documents, block \(block.hash)"
            )
        }
    }
}

struct PoolList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the shards of held-out text and what they have served."
    )

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge()
        let limit = try judge.currentPolicy()?.policy.judgementsPerShard ?? 0
        let shards = try judge.shardBlocks()
        func used(_ block: Block) -> Int64 {
            block.header.payloadHash.map { judge.judgements(on: $0) } ?? 0
        }
        if json {
            return try console.printJSON(
                .array(
                    shards.map {
                        .object([
                            "shard": .string($0.header.payloadHash?.description ?? ""),
                            "block": .string($0.hash.description),
                            "documents": $0.header.metadata["documents"] ?? .null,
                            "slices": $0.header.metadata["slices"] ?? .null,
                            "judgements": .int(used($0)), "limit": .int(limit),
                        ])
                    }))
        }
        try console.printTable(
            [["shard", "documents", "judgements", "state"]]
                + shards.map {
                    [
                        String(($0.header.payloadHash?.description ?? "").prefix(12)),
                        "\($0.header.metadata["documents"]?.int ?? 0)", "\(used($0)) of \(limit)",
                        limit > 0 && used($0) >= limit ? "used up" : "hidden",
                    ]
                })
    }
}
