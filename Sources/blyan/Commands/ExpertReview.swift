internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanLedger
internal import BlyanServer

struct ExpertReview: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "review",
        abstract:
            "Judge an expert's current version again on fresh text; revert it if it is worse.",
        discussion: """
            The current version is compared with the one that it replaced, in the model as it is now, on a shard of \
            held-out text by which it was never judged. It stays unless it is shown to be worse: then one record holds \
            the signed verdict, the version block by which the older version is current again, and the clawback of \
            what was paid for it and has not vested. Exit status 2: there was not enough fresh text, and nothing was \
            written.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Argument(help: ArgumentHelp("The expert, e.g. layer2.expert5.", valueName: "name"))
    var name: String

    @Flag(help: "Print one JSON object.")
    var json = false

    var endsCleanly: Bool { true }

    func run(_ node: Node, _ console: Console) throws {
        console.noteIfBusy(try node.judge(passphrase: console.nodePassphrase))
        let made = try node.review(
            name, model: model.model, passphrase: console.nodePassphrase)
        let taken = try made.clawback.map { try node.takenBack(by: $0) } ?? [:]
        if json {
            try console.printJSON(console.json(made, taken))
        } else {
            try console.print(made, taken)
        }
        if made.outcome == .defer { throw ExitCode(2) }
    }
}

extension Console {
    /// A review as one JSON object.
    func json(_ made: Judge.Review, _ taken: [Account: Int64]) -> JSONValue {
        .object([
            "expert": .string(made.version.header.expertName),
            "from": .string(made.version.hash.description),
            "parent": .string(made.parent.hash.description),
            "router": .string(made.router?.hash.description ?? ""),
            "verdict": .string(made.outcome.rawValue), "reason": .string(made.reason),
            "gates": .array(made.gates.map(json)),
            "verdict_block": .string(made.verdict?.hash.description ?? ""),
            "version_block": .string(made.reverted?.hash.description ?? ""),
            "clawback_block": .string(made.clawback?.hash.description ?? ""),
            "taken_back_micro_bly": .object(
                Dictionary(
                    uniqueKeysWithValues: taken.map {
                        ($0.key.description, .string(String($0.value)))
                    })),
        ])
    }

    /// A review for a person.
    func print(_ made: Judge.Review, _ taken: [Account: Int64]) throws {
        let (version, parent) = (made.version, made.parent)
        let name = version.header.expertName
        try print("version   \(version.header.version)  \(version.hash)")
        try print("parent    \(parent.header.version)  \(parent.hash)")
        if let router = made.router {
            try print("router    \(router.header.version)  \(router.hash), which came with it")
        }
        switch made.outcome {
        case .accept: try print("verdict   it stays: it was not shown to be worse than its parent")
        case .reject: try print("verdict   it is worse than its parent: \(made.reason)")
        case .defer where made.reason == Judge.Review.noFreshText:
            try print(
                "verdict   deferred: there is no fresh text, \(name) was judged on every shard that is not used up; commit another with `blyan pool add FILE`"
            )
        case .defer:
            try print("verdict   deferred: \(made.reason); nothing was written")
            try printNextStep(made.reason)
        }
        for gate in made.gates { try print(gate, isReview: true) }
        if let verdict = made.verdict { try print("receipt   \(verdict.hash)") }
        guard let reverted = made.reverted else { return }
        try print("current   \(parent.header.version), by version block \(reverted.hash)")
        guard let clawback = made.clawback else {
            return try print("clawback  none: nothing was paid for it that has not vested")
        }
        try print("clawback  \(clawback.hash)")
        for (account, amount) in taken.sorted(by: { $0.key < $1.key }) {
            try print("taken     \(Amount.text(amount)) from \(account)")
        }
    }
}
