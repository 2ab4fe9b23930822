internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLedger
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Usage: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Count the use of experts on the chain.", subcommands: [UsageSettle.self])
}

struct UsageSettle: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "settle",
        abstract: "Write what was used since the last time on chain C, and pay for it by policy.",
        discussion: """
            One record holds the signed usage block and the rewards that the policy on chain gives for it. Calls count \
            for rewards only if another account than the author's paid for them: the node's own use, such as \
            `blyan chat` at home, is counted and earns nobody anything.
            """)

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let settled = try node.settleUsage(passphrase: console.nodePassphrase)
        if json {
            struct Entry: Encodable {
                let usage, reward: String
                let versions: Int
                let calls, paidCalls: Int64
                let rewardsMicroBly: [String: String]
            }
            return try console.printJSON(
                settled.map { settlement in
                    Entry(
                        usage: settlement.usage.hash.description,
                        reward: settlement.reward?.hash.description ?? "",
                        versions: settlement.document.entries.count,
                        calls: settlement.document.entries.reduce(0) { $0 + $1.calls },
                        paidCalls: settlement.document.entries.flatMap(\.paid)
                            .reduce(0) { $0 + $1.calls },
                        rewardsMicroBly: Dictionary(
                            uniqueKeysWithValues: settlement.rewards.map {
                                ($0.key.description, String($0.value))
                            }))
                })
        }
        guard !settled.isEmpty else {
            return try console.print("nothing was used since the last settlement")
        }
        for settlement in settled {
            let calls = settlement.document.entries.reduce(0) { $0 + $1.calls }
            let paid = settlement.document.entries.flatMap(\.paid).reduce(0) { $0 + $1.calls }
            try console.print("usage     \(settlement.usage.hash)")
            try console.print(
                "counted   \(settlement.document.entries.count.of("version")), \(Int(clamping: calls).of("call")), \(paid) of them paid for by others"
            )
            guard let reward = settlement.reward else {
                try console.print("rewards   none")
                continue
            }
            try console.print("reward    \(reward.hash)")
            for (account, amount) in settlement.rewards.sorted(by: { $0.key < $1.key }) {
                try console.print("paid      \(Amount.text(amount)) to \(account)")
            }
        }
    }
}

/// A version's figures as a script reads them.
private struct UseEntry: Encodable {
    let model, expert, block, version: String
    let current: Bool
    let calls, paidCalls, tokens, milliseconds, steps, loads, qualityPpm, lastUse: Int64
    let hitRatePpm: Int64?

    init(_ use: Node.VersionUse) {
        (model, expert, block) = (use.model, use.expert, use.block.description)
        (version, current) = (use.version, use.isCurrent)
        (calls, paidCalls, tokens) = (use.counts.calls, use.paidCalls, use.counts.tokens)
        (milliseconds, steps) = (use.counts.microseconds / 1000, use.counts.steps)
        (loads, hitRatePpm) = (use.counts.loads, use.counts.hitRate)
        (qualityPpm, lastUse) = (use.quality, use.counts.lastUse)
    }
}

extension Node.VersionUse {
    fileprivate static let heading = [
        "expert", "version", "calls", "paid", "tokens", "ms/call", "hit rate", "quality",
        "last use", "block",
    ]

    fileprivate var row: [String] {
        func share(_ millionths: Int64) -> String { (Double(millionths) / 1e4).formatted(2) + " %" }
        let each = counts.calls > 0 ? Double(counts.microseconds) / 1e3 / Double(counts.calls) : 0
        return [
            expert, version + (isCurrent ? "" : " (old)"), "\(counts.calls)", "\(paidCalls)",
            "\(counts.tokens)", counts.calls > 0 ? each.formatted(1) : "-",
            counts.hitRate.map(share) ?? "-", share(quality),
            counts.lastUse > 0 ? UTC.text(counts.lastUse) : "-",
            String(block.description.prefix(12)),
        ]
    }
}

struct ExpertStats: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show how often, how long and when each version of an expert was used.",
        discussion: """
            Calls are requests that a version served, not tokens; the time is that of the steps in which it served. The \
            hit rate is that of the expert cache. Quality is the lower bound of the improvement by which the version \
            was accepted, 0 for an import.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Argument(help: ArgumentHelp("The expert, e.g. layer2.expert5.", valueName: "name"))
    var name: String

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let found = try node.catalog.model(named: model.model)
        guard found.document.config.parts.contains(where: { $0.name == name }) else {
            throw ModelError(
                "the model \(found.name) has no part \"\(name)\"",
                hint: "`blyan expert list --model \(found.name)` lists them")
        }
        let uses = try node.versionUses(model: found.name).filter { $0.expert == name }
        if json { return try console.printJSON(uses.map { UseEntry($0) }) }
        guard !uses.isEmpty else { return try console.print("\(name) was never used") }
        try console.printTable([Node.VersionUse.heading] + uses.map(\.row))
    }
}

struct ExpertTop: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "top", abstract: "List the versions of experts that were used most.")

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Option(
        name: .short, parsing: .unconditional,
        help: ArgumentHelp("Lines at most.", valueName: "count"))
    var n = 20

    @Flag(help: "Print one JSON array.")
    var json = false

    func validate() throws {
        guard n > 0 else { throw ValidationError("-n must be above 0") }
    }

    func run(_ node: Node, _ console: Console) throws {
        let uses = try node.versionUses(model: model.model).sorted {
            ($1.counts.calls, $1.counts.tokens, $0.expert) < (
                $0.counts.calls, $0.counts.tokens, $1.expert
            )
        }.prefix(n)
        if json { return try console.printJSON(uses.map { UseEntry($0) }) }
        guard !uses.isEmpty else { return try console.print("no expert was used yet") }
        try console.printTable([Node.VersionUse.heading] + uses.map(\.row))
    }
}

struct ExpertRollback: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback",
        abstract: "Make an older version of an expert current again, by a signed version block.",
        discussion: """
            The older version is the parent of the current one, or the one that --to names. A router that was accepted together \
            with it moves along, and so does an expert with its router, while both are current. If a later verdict shows \
            that the current version is worse than its parent, what was paid for it and has not vested is taken back in \
            the same record.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Argument(help: ArgumentHelp("The expert, e.g. layer2.expert5.", valueName: "name"))
    var name: String

    @Option(
        help: ArgumentHelp(
            "The block of the version to go back to, or the beginning of its hash.",
            valueName: "block"))
    var to: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let found = try node.catalog.model(named: model.model)
        let target = try to.map { try version($0, found, node) }
        let done = try node.rollback(
            name, model: found.name, to: target, passphrase: console.nodePassphrase)
        for block in [done.to] + done.others.map(\.to) {
            guard let review = try node.regression(of: block) else { continue }
            console.note(
                "blyan: warning: \(block.header.expertName) \(block.header.version), now current, was found worse than its parent by the review in verdict block \(review.hash)"
            )
        }
        if json {
            struct Step: Encodable { let expert, from, to: String }
            struct Report: Encodable {
                let model, expert, version, from, to, verdict, clawback: String
                let others: [Step]
            }
            return try console.printJSON(
                Report(
                    model: found.name, expert: name, version: done.version.hash.description,
                    from: done.from.hash.description, to: done.to.hash.description,
                    verdict: done.verdict?.description ?? "",
                    clawback: done.clawback?.hash.description ?? "",
                    others: done.others.map {
                        Step(
                            expert: $0.from.header.expertName, from: $0.from.hash.description,
                            to: $0.to.hash.description)
                    }))
        }
        try console.print("from      \(done.from.header.version)  \(done.from.hash)")
        try console.print("to        \(done.to.header.version)  \(done.to.hash)")
        for (from, to) in done.others {
            try console.print(
                "with      \(from.header.expertName), since both were accepted together")
            try console.print("from      \(from.header.version)  \(from.hash)")
            try console.print("to        \(to.header.version)  \(to.hash)")
        }
        try console.print("version   \(done.version.hash)")
        if let verdict = done.verdict { try console.print("verdict   \(verdict)") }
        try console.print(
            "clawback  \(done.clawback?.hash.description ?? (done.verdict == nil ? "none: no verdict shows a regression" : "none: all of it has vested"))"
        )
    }

    private func version(_ text: String, _ model: CatalogModel, _ node: Node) throws -> Digest {
        let digits = text.lowercased()
        let matching = try node.catalog.versions(of: name, model: model).filter {
            digits.utf8.count >= 6 && $0.hash.description.hasPrefix(digits)
        }
        guard matching.count == 1 else {
            throw KernelError(
                .notFound,
                "\(matching.count) versions of \(name) begin with \"\(text.prefix(64))\"",
                hint: "`blyan expert show \(name)` lists them")
        }
        return matching[0].hash
    }
}

struct WalletTrust: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "trust",
        abstract:
            "Show how far an author of candidates is trusted, and what of today's quota is left.",
        discussion: """
            It follows from the verdicts on chain A alone. Uploads a day (UTC): newbie \(Trust.Level.newbie.quota); trusted \
            \(Trust.Level.trusted.quota), after \(Trust.promotion) accepted in a row; expert \(Trust.Level.expert.quota), after \
            \(Trust.record) accepted as trusted. An accepted candidate gives its upload back, \(Trust.demotion) rejected in \
            a row lose a level.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp(
            "A wallet's name, or an account's public key (default: node).", valueName: "wallet"))
    var account: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let wallets = Wallets(home: node.home)
        let account =
            try account.map { try wallets.account(meant: $0) } ?? wallets.account(of: Wallets.node)
        let (trust, waiting) = try node.trust(of: account)
        let standing = trust.standing(now: now(), waiting: waiting)
        if json {
            struct Report: Encodable {
                let account, level: String
                let quota, used, left, waiting, refills, judged, accepted: Int64
                let acceptedInRow, rejectedInRow: Int64
            }
            return try console.printJSON(
                Report(
                    account: account.description, level: standing.level.rawValue,
                    quota: standing.quota, used: standing.used, left: standing.left,
                    waiting: waiting, refills: standing.refills, judged: trust.judged,
                    accepted: trust.accepted, acceptedInRow: trust.acceptedInRow,
                    rejectedInRow: trust.rejectedInRow))
        }
        try console.print("account   \(account)")
        try console.print("level     \(standing.level.rawValue)")
        try console.print(
            "uploads   \(standing.left) of \(standing.quota) left today, refills at \(UTC.text(standing.refills))"
        )
        try console.print(
            "record    \(trust.accepted) accepted of \(trust.judged) judged, \(waiting) waiting")
        // A newbie has no level to lose.
        let rejected =
            standing.level > .newbie
            ? "; \(trust.rejectedInRow) of the \(Trust.demotion) rejected that lose a level" : ""
        try console.print(
            "in a row  \(trust.acceptedInRow) accepted since the last rejection\(rejected)")
        switch standing.level {
        case .newbie:
            try console.print("next      trusted, after \(Trust.promotion) accepted in a row")
        case .trusted:
            try console.print(
                "next      expert, after \(Trust.record) accepted as trusted: \(trust.acceptedAtLevel) so far"
            )
        case .expert: break
        }
    }
}
