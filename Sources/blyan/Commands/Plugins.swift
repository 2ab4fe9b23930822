internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Plugin: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List, inspect, reload and trust plugins.",
        subcommands: [PluginList.self, PluginInspect.self, PluginReload.self, PluginTrust.self])
}

struct PluginList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the plugins that the node manifest enables, and whether each loads.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        struct Entry: Encodable { let name, kind, version, sha256, state: String }
        var entries: [Entry] = []
        for name in node.manifest.plugins {
            do {
                let plugin = try node.plugins.plugin(name)
                entries.append(
                    Entry(
                        name: name, kind: plugin.manifest.kind.rawValue,
                        version: plugin.manifest.version,
                        sha256: plugin.sha256.description, state: "loaded"))
            } catch {
                entries.append(
                    Entry(name: name, kind: "", version: "", sha256: "", state: error.description))
            }
        }
        if json { return try console.printJSON(entries) }
        try console.printTable(
            [["plugin", "kind", "version", "sha256", "state"]]
                + entries.map {
                    [$0.name, $0.kind, $0.version, String($0.sha256.prefix(12)), $0.state]
                })
    }
}

struct PluginInspect: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show a plugin's manifest, library, abilities and figures.")

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The plugin.", valueName: "name"))
    var name: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let plugin = try node.plugins.plugin(name)
        let manifest = plugin.manifest
        struct Report: Encodable {
            let name, kind, version, abi, manifest, library, sha256: String
            let abilities, payloadTypes, fileExtensions: [String]
            let calls, faults, overruns: Int
        }
        let figures = plugin.figures
        let report = Report(
            name: manifest.name, kind: manifest.kind.rawValue, version: manifest.version,
            abi: manifest.abi.description,
            manifest: manifest.path, library: manifest.library, sha256: plugin.sha256.description,
            abilities: plugin.abilityIDs, payloadTypes: manifest.payloadTypes,
            fileExtensions: manifest.fileExtensions,
            calls: figures.calls, faults: figures.faults, overruns: figures.overruns)
        if json { return try console.printJSON(report) }
        try console.print(
            "plugin     \(report.name) \(report.version) (\(report.kind)), plugin ABI \(report.abi)"
        )
        try console.print("manifest   \(report.manifest)")
        try console.print("library    \(report.library), sha256 \(report.sha256)")
        try console.print("abilities  \(report.abilities.joined(separator: ", "))")
        if !report.payloadTypes.isEmpty {
            try console.print("reads      \(report.payloadTypes.joined(separator: ", "))")
        }
        if !report.fileExtensions.isEmpty {
            try console.print(
                "files      \(report.fileExtensions.map { "." + $0 }.joined(separator: ", "))")
        }
        try console.print(
            "figures    \(report.calls) calls, \(report.faults) faults, \(report.overruns) over their time"
        )
    }
}

struct PluginTrust: ConsoleCommand {
    static let configuration = CommandConfiguration(
        commandName: "trust",
        abstract:
            "Write the sha256 of plugin libraries, as they are now, into the home's manifests.",
        discussion:
            "After a rebuild: `blyan plugin trust --all`. Running processes keep what they loaded.")

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The plugins.", valueName: "name"))
    var names: [String] = []

    @Flag(help: "All plugins of the home.")
    var all = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        guard all != !names.isEmpty else { throw ValidationError("name plugins, or give --all") }
    }

    func run(_ console: Console) throws {
        let folder = console.url(home.home)
        let path =
            home.manifest.map { console.url($0) } ?? folder.appendingPathComponent("node.yaml")
        let (trusted, missing) = try HomeSetup.trust(
            all ? nil : names, in: NodeManifest(path: path.path))
        if json {
            return try console.printJSON(["trusted": trusted, "missing": missing])
        }
        try console.print("trusted   \(trusted.joined(separator: ", "))")
        if !missing.isEmpty {
            console.note("blyan: no library was found for \(missing.joined(separator: ", "))")
        }
    }
}

struct PluginReload: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "reload",
        abstract: "Let the process that holds the home read its node manifest again.",
        discussion: """
            New requests get the plugins that the manifest names now; requests under way keep theirs. \
            A plugin that does not load changes nothing.
            """)

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let plugins = try node.reloadPlugins()
        if json {
            struct Report: Encodable { let generation: Int; let plugins: [String] }
            return try console.printJSON(
                Report(generation: plugins.generation, plugins: plugins.node.plugins))
        }
        try console.print(
            "generation \(plugins.generation): \(plugins.node.plugins.joined(separator: ", "))")
    }
}
