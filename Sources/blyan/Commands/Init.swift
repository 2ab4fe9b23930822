internal import ArgumentParser
internal import BlyanKernel
internal import BlyanServer
internal import Foundation

struct Init: ConsoleCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a home: a key, manifests, and the genesis block.",
        discussion: """
            The plugin libraries beside this program are trusted by their sha256. The passphrase comes from \
            --passphrase-file, BLYAN_PASSPHRASE or a prompt; without any of them a random one is kept in a file \
            beside the keystore. A --manifest is copied into the home as its node.yaml; folders in it count from there.
            """)

    @OptionGroup var home: HomeOptions

    @Option(help: ArgumentHelp("The network's name in the Genesis Pact.", valueName: "name"))
    var network = "local"

    @Option(
        help: ArgumentHelp(
            "The public key of another validator, in the Genesis Pact for good; may be given again.",
            valueName: "key"))
    var validator: [String] = []

    @Option(
        help: ArgumentHelp(
            "How many validators, this node among them, have to sign each verdict.", valueName: "k")
    )
    var threshold = 1

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ console: Console) throws {
        let folder = console.url(home.home)
        let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent()
        // Before a person is asked for anything.
        try HomeSetup.check(folder)
        let source = Passphrase(home, console: console)
        let passphrase =
            Keystore(home: folder).exists ? try source.unlocking(folder) : try source.creating()
        let made = try HomeSetup.run(
            home: folder, name: network, validators: validator, threshold: threshold,
            passphrase: passphrase, program: program,
            manifest: home.manifest.map { console.url($0) }, now: now())
        if let file = made.keyFile {
            console.note(
                "blyan: no passphrase was given: the key is opened by a random one in \(file) (mode 0600); whoever reads that file can sign"
            )
        }
        if json {
            struct Report: Encodable {
                let home, genesis, publicKey: String; let trusted, missing: [String]
            }
            return try console.printJSON(
                Report(
                    home: folder.path, genesis: made.genesis.description, publicKey: made.publicKey,
                    trusted: made.trusted, missing: made.missing))
        }
        try console.print("home      \(folder.path)")
        try console.print("network   \(network), genesis \(made.genesis)")
        try console.print("key       \(made.publicKey)")
        if !validator.isEmpty {
            try console.print(
                "verdicts  are signed by \(threshold) of \(validator.count + 1) validators")
        }
        try console.print("plugins   \(made.trusted.joined(separator: ", "))")
        if !made.missing.isEmpty {
            console.note("blyan: no library was found for \(made.missing.joined(separator: ", "))")
        }
    }
}
