internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

/// The command line.
@main
struct Blyan: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "blyan",
        abstract:
            "Keep the weights of mixture-of-experts models on signed chains, and serve them from there.",
        discussion: """
            Begin with `blyan init`, then `blyan import PATH`, then `blyan chat "hello"`.
            While `blyan run` (or any other command) holds a home, all commands reach it by its control socket.
            """,
        version: version,
        subcommands: [
            Init.self, Import.self, Chat.self, Eval.self, Tokenize.self, ModelCommand.self,
            Expert.self, Chain.self,
            Mine.self, CandidateCommand.self, Pool.self, AuditCommand.self,
            BlockCommand.self, Wallet.self, Usage.self, Plugin.self, Run.self, Status.self,
        ])

    static let version = "0.1.0 (plugin ABI \(PluginABI.host), chain format 1)"

    static func main() {
        StandardStreams.ensure()
        signal(SIGPIPE, SIG_IGN)
        // A file that may not grow is told as an error of writing it.
        signal(SIGXFSZ, SIG_IGN)
        let status = execute(
            Array(CommandLine.arguments.dropFirst()), console: .process, node: nil)
        // What libraries do at exit would pull the ground from under a plugin that does not return.
        if PluginCall.areUnderWay { _exit(status) }
        Foundation.exit(status)
    }

    /// Runs one command line and gives its exit status.
    ///
    /// - Parameter node: the home that this process holds already, for commands that came by the control socket.
    static func execute(_ arguments: [String], console: Console, node: Node?) -> Int32 {
        do {
            var command = try parseAsRoot(arguments)
            if let command = command as? any NodeCommand {
                return try Dispatch(arguments: arguments, console: console).run(command, on: node)
            }
            if let command = command as? any ConsoleCommand {
                try command.run(console)
            } else {
                try command.run()
            }
            return 0
        } catch let error as ExitCode {
            return error.rawValue
        } catch is BrokenPipe {
            // As if by SIGPIPE: whoever read has seen enough.
            return 128 + SIGPIPE
        } catch let error where error is KernelError || error is ModelError {
            Failure.note(error, arguments: arguments, console)
            return 1
        } catch {
            // Help, version and usage errors of the argument parser.
            let status = exitCode(for: error).rawValue
            if status == 0 {
                try? console.print(fullMessage(for: error))
            } else {
                Failure.note(
                    unknownCommand(arguments) ?? error, arguments: arguments, console)
            }
            return status
        }
    }

    /// That a command line names a command which its group has not: the parser complains of the first option instead.
    private static func unknownCommand(_ arguments: [String]) -> ValidationError? {
        var group: any ParsableCommand.Type = Self.self
        var path = "blyan"
        for word in arguments {
            let commands = group.configuration.subcommands
            guard !commands.isEmpty, !word.hasPrefix("-"), word != "help" else { return nil }
            guard let next = commands.first(where: { $0._commandName == word }) else {
                let names = commands.map { $0._commandName }.joined(separator: ", ")
                return ValidationError("`\(path)` has no command \"\(word)\": it has \(names)")
            }
            group = next
            path += " \(word)"
        }
        return nil
    }
}

/// A command that needs no home held.
protocol ConsoleCommand: ParsableCommand {
    func run(_ console: Console) throws
}

/// A command that works on a held home: in this process, or in the one that holds it.
protocol NodeCommand: ParsableCommand {
    var home: HomeOptions { get }
    /// Whether this process itself must hold the home, and ends the commands that it serves when it ends.
    var mustHold: Bool { get }
    /// Whether a signal asks the command to stop where it may go on later, instead of ending the process.
    var endsCleanly: Bool { get }
    /// Whether opening the home builds its index again.
    var rebuildsIndex: Bool { get }
    /// What to do if the process that holds the home ends while it runs the command.
    var afterHolderEnds: String? { get }
    /// The file with the passphrase of the wallet that the command opens or makes.
    var walletPassphraseFile: String? { get }
    func run(_ node: Node, _ console: Console) throws
    /// What is left to do in a home that does not open: most commands throw the reason.
    func run(unopened home: URL, _ reason: KernelError, _ console: Console) throws
}

extension NodeCommand {
    var mustHold: Bool { false }
    var endsCleanly: Bool { false }
    var rebuildsIndex: Bool { false }
    var afterHolderEnds: String? { nil }
    var walletPassphraseFile: String? { nil }
    func run(unopened home: URL, _ reason: KernelError, _ console: Console) throws { throw reason }
}

/// The home that a command works on.
struct HomeOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The home's folder.", valueName: "dir"))
    var home = standard

    /// The home where none is named.
    static let standard = "~/.blyan"

    @Option(help: ArgumentHelp("Another node manifest than HOME/node.yaml.", valueName: "file"))
    var manifest: String?

    @Option(
        help: ArgumentHelp(
            "Read the key's passphrase from the first line of a file.", valueName: "file"))
    var passphraseFile: String?

    func validate() throws {
        for (name, value) in [
            ("--home", home), ("--manifest", manifest), ("--passphrase-file", passphraseFile),
        ] where value?.isEmpty == true {
            throw ValidationError("\(name) is empty: give a path")
        }
    }
}

/// The model that a command works on.
struct ModelOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The model's name, or the beginning of its meta block's hash.", valueName: "name"))
    var model: String?
}

/// Where a command runs: here with the home held, or in the process that holds it.
struct Dispatch {
    let arguments: [String]
    let console: Console

    func run(_ command: some NodeCommand, on held: Node?) throws -> Int32 {
        let home = console.url(command.home.home)
        if let held {
            guard isSame(held.home, home) else {
                throw KernelError(.held, "this process holds \(held.home.path), not \(home.path)")
            }
            if let manifest = command.home.manifest.map({ console.url($0) }),
                !isSame(manifest, URL(fileURLWithPath: held.manifest.path))
            {
                throw KernelError(
                    .held,
                    "process \(getpid()) holds \(home.path) with the manifest \(held.manifest.path), not \(manifest.path)",
                    hint: "leave --manifest out, or stop that process first")
            }
            try command.run(held, console)
            return 0
        }
        // A holder that has just begun may not listen yet, one that ends may still have its lock: try for a moment.
        var refusal: KernelError?
        for _ in 0..<50 {
            var node: Node?
            do throws(KernelError) {
                node = try open(command, home)
            } catch {
                guard error.code == .held, !command.mustHold else {
                    try command.run(unopened: home, error, console)
                    return 0
                }
                refusal = error
            }
            if let node { return try serve(command, node) }
            let status = try ControlSocket.forward(
                arguments, home: home, console: console, advice: command.afterHolderEnds
            ) {
                try Passphrase(
                    command.home, walletFile: command.walletPassphraseFile, console: console
                ).answering($0, home)
            }
            if let status { return status }
            usleep(100_000)
        }
        throw refusal ?? KernelError(.held, "the home \(home.path) is held")
    }

    /// Whether two paths name one thing, whatever links lead there.
    private func isSame(_ one: URL, _ other: URL) -> Bool {
        var (a, b) = (stat(), stat())
        return unsafe stat(one.path, &a) == 0 && stat(other.path, &b) == 0
            && a.st_dev == b.st_dev && a.st_ino == b.st_ino
    }

    private func open(_ command: some NodeCommand, _ home: URL) throws(KernelError) -> Node {
        let (options, mustHold) = (command.home, command.mustHold)
        let console = console
        return try Node(
            home: home, manifest: options.manifest.map { console.url($0) },
            rebuildIndex: command.rebuildsIndex,
            passphrase: { try Passphrase(options, console: console).unlocking(home) },
            log: { console.note((mustHold ? "\(timestamp()) " : "blyan: ") + $0) })
    }

    /// Runs a command here; whoever holds a home listens for others meanwhile.
    private func serve(_ command: some NodeCommand, _ node: Node) throws -> Int32 {
        let socket = try ControlSocket(home: node.home) { arguments, console in
            Blyan.execute(arguments, console: console, node: node)
        }
        let outcome = Result {
            guard command.endsCleanly else { return try command.run(node, console) }
            let interruption = Interruption()
            try withExtendedLifetime(interruption) {
                try Cancellation.$current.withValue(interruption.cancellation) {
                    try command.run(node, console)
                }
            }
        }
        guard socket.close(cancelling: command.mustHold) else {
            // What still runs uses the store. Leaving it as it is loses nothing that was acknowledged.
            console.note("blyan: left a command that did not end when told")
            node.leave()
            _exit(1)
        }
        node.close()
        try outcome.get()
        return 0
    }
}
