internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanServer

struct Pool: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Commit held-out text, which candidates are judged on, and list it.",
        subcommands: [PoolAdd.self, PoolList.self, PoolRetire.self])
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

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge(passphrase: console.nodePassphrase)
        var committed: [JSONValue] = []
        // What was committed is told, also where a later file is refused.
        let all = Result {
            for file in files {
                let block = try add(file, judge, console)
                committed.append(json(file, block))
                guard !json else { continue }
                try console.print(
                    "committed \(file): \(block.header.metadata["documents"]?.int ?? 0) documents, block \(block.hash)"
                )
            }
        }
        if json { try console.printJSON(.array(committed)) }
        try all.get()
    }

    private func add(_ file: String, _ judge: Judge, _ console: Console) throws -> Block {
        let others = try judge.shardBlocks().last
        let block: Block
        do { block = try judge.addShard(console.read(file)) } catch let error as KernelError {
            throw KernelError(error.code, "\(file): \(error.message)", hint: error.hint)
        }
        let slices = names(block)
        if let others = others.map(names), others != slices {
            console.note(
                "blyan: the slices of \(file) are \(slices.joined(separator: ", ")), and those of the shard before are \(others.joined(separator: ", ")): what was accepted by one may be reviewed by the other, so that shards should be alike"
            )
        }
        return block
    }

    private func json(_ file: String, _ shard: Block) -> JSONValue {
        .object([
            "file": .string(file), "block": .string(shard.hash.description),
            "shard": .string(shard.header.payloadHash?.description ?? ""),
            "documents": shard.header.metadata["documents"] ?? .null,
            "slices": shard.header.metadata["slices"] ?? .null,
        ])
    }

    private func names(_ shard: Block) -> [String] {
        guard case .object(let slices)? = shard.header.metadata["slices"] else { return [] }
        return slices.keys.sorted()
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
        let limit =
            try judge.currentPolicy()?.policy.judgementsPerShard
            ?? JudgingPolicy.usualJudgementsPerShard
        let shards = try judge.shardBlocks()
        let retired = try judge.retiredShards()
        func state(_ block: Block) -> String {
            if block.header.payloadHash.map(retired.contains) ?? false { return "retired" }
            return used(block) >= limit ? "used up" : "hidden"
        }
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
                            "state": .string(state($0)),
                        ])
                    }))
        }
        try console.printTable(
            [["shard", "documents", "judgements", "state"]]
                + shards.map {
                    [
                        String(($0.header.payloadHash?.description ?? "").prefix(12)),
                        "\($0.header.metadata["documents"]?.int ?? 0)", "\(used($0)) of \(limit)",
                        state($0),
                    ]
                })
    }
}

struct PoolRetire: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "retire",
        abstract: "Say on chain A that a shard serves no judgement any more.",
        discussion: """
            For a shard that became known, or has too few documents for a gate: candidates that it kept waiting are judged \
            on the next one. What was judged on it stays.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp(
            "The shard's hash, or its beginning, by `blyan pool list`.", valueName: "shard"))
    var shard: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let judge = try node.judge(passphrase: console.nodePassphrase)
        let found = try judge.shardBlocks().filter {
            $0.header.payloadHash?.description.hasPrefix(shard.lowercased()) ?? false
        }
        guard let block = found.first, found.count == 1, shard.count >= 6 else {
            throw KernelError(
                .notFound,
                found.count > 1 && shard.count >= 6
                    ? "\(found.count) shards begin with \(shard)" : "there is no shard \(shard)",
                hint: "`blyan pool list` lists them; give at least six digits of the hash")
        }
        let retired = try judge.retireShard(block)
        let hash = block.header.payloadHash?.description ?? ""
        if json {
            return try console.printJSON(
                .object([
                    "shard": .string(hash), "block": .string(retired.hash.description),
                ]))
        }
        try console.print("retired   \(hash), block \(retired.hash)")
    }
}
