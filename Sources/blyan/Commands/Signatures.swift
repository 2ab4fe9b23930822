internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanServer
internal import Foundation

struct CandidateCosign: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "cosign",
        abstract:
            "Judge again, as another validator, the verdict that awaits signatures, and sign it.",
        discussion: """
            For a validator's own home, with `log`, `payloads` and `candidates` of the home that made the verdict in the \
            place of its own, and the index built again by `blyan chain reindex`. What is written goes back to \
            that home: `blyan candidate endorse FILE`. Exit status 1: the verdict does not agree, and nothing is signed.
            """)

    @OptionGroup var home: HomeOptions

    @Option(
        help: ArgumentHelp(
            "The file to write; without it the signature is printed.", valueName: "file"))
    var output: String?

    var endsCleanly: Bool { true }

    func run(_ node: Node, _ console: Console) throws {
        let (audit, signature) = try node.judge(passphrase: console.nodePassphrase).cosign()
        guard let signature else {
            for difference in audit.differences { console.note("differs   \(difference)") }
            throw KernelError(
                .integrity,
                "the verdict on \(audit.document.block.hash) does not agree with this node: nothing is signed"
            )
        }
        let text = String(decoding: signature.json.canonical(), as: UTF8.self)
        guard let output else { return try console.print(text) }
        let file = console.url(output)
        do { try Data((text + "\n").utf8).write(to: file, options: .atomic) } catch {
            throw KernelError(.io, "cannot write \(file.path): \(error.localizedDescription)")
        }
        let document = audit.document
        try console.print(
            "agrees    \(document.outcome)\(document.reason.isEmpty ? "" : " " + document.reason), candidate \(document.block.hash)"
        )
        try console.print("signed    by \(signature.key), in \(file.path)")
    }
}

struct CandidateEndorse: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "endorse",
        abstract: "Add other validators' signatures to the verdict that awaits them, and write it.",
        discussion:
            "It is written once as many validators have signed as the Genesis Pact asks for.")

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("What `blyan candidate cosign` wrote.", valueName: "file"))
    var files: [String]

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let signatures = try files.map { file in
            do { return try ValidatorSignature(parsing: console.read(file)) } catch let error
                as KernelError
            {
                throw KernelError(error.code, "\(file): \(error.message)", hint: error.hint)
            }
        }
        switch try node.judge(passphrase: console.nodePassphrase).endorse(signatures) {
        case .awaits(let reason):
            if json {
                return try console.printJSON(
                    .object(["verdict": .string("defer"), "reason": .string(reason)]))
            }
            try console.print("verdict   deferred: \(reason)")
        case .judged(let made):
            if json { try console.printJSON(console.json(made)) } else { try console.print(made) }
        case .reviewed(let made):
            let taken = try made.clawback.map { try node.takenBack(by: $0) } ?? [:]
            if json {
                try console.printJSON(console.json(made, taken))
            } else {
                try console.print(made, taken)
            }
        }
    }
}
