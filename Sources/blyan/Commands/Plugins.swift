internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLedger
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
        abstract: "List the plugins of a home, and whether each that is enabled loads.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        struct Entry: Encodable {
            let name, kind, version, sha256, state: String
            var error: Failure?
        }
        let plugins = node.plugins
        var entries: [Entry] = []
        for name in plugins.node.plugins {
            do {
                let plugin = try plugins.plugin(name)
                entries.append(
                    Entry(
                        name: name, kind: plugin.manifest.kind.rawValue,
                        version: plugin.manifest.version,
                        sha256: plugin.sha256.description, state: "loaded"))
            } catch {
                entries.append(
                    Entry(
                        name: name, kind: "", version: "", sha256: "", state: "broken",
                        error: Failure(error, arguments: ["--home", home.home])))
            }
        }
        for name in plugins.node.installed where !plugins.node.plugins.contains(name) {
            let manifest = try? PluginManifest(path: plugins.node.manifestPath(of: name))
            entries.append(
                Entry(
                    name: name, kind: manifest?.kind.rawValue ?? "",
                    version: manifest?.version ?? "",
                    sha256: manifest?.sha256?.description ?? "", state: "not enabled"))
        }
        if json {
            try console.printJSON(entries)
        } else {
            try console.printTable(
                [["plugin", "kind", "version", "sha256", "state"]]
                    + entries.map {
                        [$0.name, $0.kind, $0.version, String($0.sha256.prefix(12)), $0.state]
                    })
            for failure in entries.compactMap(\.error) { console.note(failure.text) }
        }
        if entries.contains(where: { $0.error != nil }) { throw ExitCode(1) }
    }
}

struct PluginInspect: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show a plugin's manifest, library, abilities and figures.",
        discussion: "No code runs of a plugin that is not enabled.")

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The plugin.", valueName: "name"))
    var name: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let plugins = node.plugins
        let isEnabled = plugins.node.plugins.contains(name)
        guard isEnabled || plugins.node.installed.contains(name) else {
            throw KernelError(
                .notFound, "there is no plugin \"\(name)\" in \(plugins.node.pluginFolder)",
                hint: "there are: \(plugins.node.installed.joined(separator: ", "))")
        }
        let plugin = isEnabled ? try plugins.plugin(name) : nil
        let manifest =
            try plugin?.manifest ?? PluginManifest(path: plugins.node.manifestPath(of: name))
        struct Report: Encodable {
            let name, kind, version, abi, manifest, library, sha256: String
            let enabled: Bool
            let abilities, payloadTypes, fileExtensions: [String]
            let generation, calls, faults, overruns: Int
            let fault: String
        }
        let fault = plugins.fault(of: name)
        let figures = plugin?.figures ?? (calls: 0, faults: 0, overruns: 0)
        let report = Report(
            name: manifest.name, kind: manifest.kind.rawValue, version: manifest.version,
            abi: manifest.abi.description, manifest: manifest.path,
            library: plugins.node.library(of: manifest) ?? manifest.library,
            sha256: (plugin?.sha256 ?? manifest.sha256)?.description ?? "", enabled: isEnabled,
            abilities: plugin?.abilityIDs ?? [], payloadTypes: manifest.payloadTypes,
            fileExtensions: manifest.fileExtensions, generation: plugins.generation,
            calls: figures.calls, faults: figures.faults, overruns: figures.overruns,
            fault: fault?.message ?? "")
        if json { return try console.printJSON(report) }
        try console.print(
            "plugin     \(report.name) \(report.version) (\(report.kind)), plugin ABI \(report.abi)"
        )
        try console.print("manifest   \(report.manifest)")
        try console.print("library    \(report.library), sha256 \(report.sha256)")
        if !report.payloadTypes.isEmpty {
            try console.print("reads      \(report.payloadTypes.joined(separator: ", "))")
        }
        if !report.fileExtensions.isEmpty {
            try console.print(
                "files      \(report.fileExtensions.map { "." + $0 }.joined(separator: ", "))")
        }
        if isEnabled {
            try console.print("abilities  \(report.abilities.joined(separator: ", "))")
            try console.print(
                "figures    generation \(report.generation), \(report.calls) calls, \(report.faults) faults, \(report.overruns) over their time"
            )
        } else {
            try console.print("state      not enabled in \(plugins.node.path)")
        }
        // Also of a policy that the chain asks for and the manifest does not list.
        if let fault {
            console.note(Failure(fault, arguments: ["--home", home.home]).text)
        }
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
            all ? nil : names, in: NodeManifest(path: path.path, home: folder.path))
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
            A plugin that does not load changes nothing. Where candidates have been judged, gates or a router that differ from \
            those of the policy on chain A become the policy; another reward policy is written on chain A with the first block \
            of chain C that it governs. This returns when that is durable.
            """)

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let plugins = try node.reloadPlugins(passphrase: console.nodePassphrase)
        let policy = try node.adoptPolicy(passphrase: console.nodePassphrase)
        let governing = try RewardTerms.governing(node.store)
        if json {
            struct Report: Encodable {
                let generation: Int; let plugins: [String]
                let policyBlock, rewards, rewardsPolicy: String
            }
            return try console.printJSON(
                Report(
                    generation: plugins.generation, plugins: plugins.node.plugins,
                    policyBlock: policy?.hash.description ?? "",
                    rewards: governing?.terms.name ?? "",
                    rewardsPolicy: governing?.block.hash.description ?? ""))
        }
        if let policy { try console.print("policy     \(policy.hash)") }
        try console.print(
            "generation \(plugins.generation): \(plugins.node.plugins.joined(separator: ", "))")
        if let (block, terms) = governing {
            try console.print(
                "rewards   \(terms.summary), from block \(terms.first) of chain C on; policy block \(block.hash)"
            )
        }
    }
}
