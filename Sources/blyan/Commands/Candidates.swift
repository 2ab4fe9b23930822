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
        abstract: "List the candidates that wait for a verdict, first come first.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let queue = try node.judge().candidates.queue
        if json {
            return try console.printJSON(
                .array(
                    queue.map {
                        .object([
                            "candidate": .string($0.block.hash.description),
                            "expert": .string($0.block.header.expertName),
                            "author": .string($0.block.header.miner),
                            "received": .int($0.received),
                        ])
                    }))
        }
        try console.printTable(
            [["candidate", "expert", "version", "author"]]
                + queue.map {
                    [
                        String($0.block.hash.description.prefix(12)), $0.block.header.expertName,
                        $0.block.header.version, $0.block.header.miner,
                    ]
                })
    }
}

struct CandidateJudge: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "judge",
        abstract: "Judge all candidates that wait: after a fault, or what was deferred.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON object a line.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge(passphrase: console.nodePassphrase)
        for entry in judge.candidates.queue {
            let made = try judge.judge(entry.block.hash)
            if json { try console.printJSON(console.json(made)) } else { try console.print(made) }
        }
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
