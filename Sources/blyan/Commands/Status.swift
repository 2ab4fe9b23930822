internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Status: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what holds the home and how it fares: plugins, models, cache, memory.",
        discussion: """
            While `blyan run` holds the home, the figures are those of that process since it began; \
            otherwise this command holds it, and figures of use are zero.
            """)

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    private struct PluginEntry: Encodable {
        let name, kind, version, state: String
        var calls = 0, faults = 0, overruns = 0
    }

    private struct ModelEntry: Encodable {
        let name, version: String
        /// Parts that were mapped since the process began, shared ones included.
        let loads: Int
        let cache: LoadedModel.Figures
    }

    private struct Report: Encodable {
        let version, home, manifest, verify, kernels: String
        /// The process that holds the home for others, or nil.
        let holder: Int32?
        let network: String
        let blocks: [String: Int]
        let generation, threads: Int
        let plugins: [PluginEntry]
        let models: [ModelEntry]
        let memory: ProcessMemory
        /// Nil without a holder, or if the node manifest turns it off.
        let scrub: ScrubState?
        let deadLetters: [String: Int]
    }

    func run(_ node: Node, _ console: Console) throws {
        let plugins = node.plugins
        let usage = node.usage.figures
        let report = Report(
            version: Blyan.version, home: node.home.path, manifest: plugins.node.path,
            verify: plugins.node.verify.text, kernels: Kernels.name,
            // A client asks for passphrases, a process that holds the home for itself does not.
            holder: console.passphrase == nil ? nil : getpid(),
            network: node.store.genesis?.description ?? "", blocks: blocks(of: node.store),
            generation: plugins.generation, threads: node.threads,
            plugins: plugins.node.plugins.map { entry($0, plugins) },
            models: node.loadedModels.map { loaded in
                let name = loaded.model.name
                return ModelEntry(
                    name: name, version: loaded.model.version?.hash.description ?? "",
                    loads: usage.reduce(0) { sum, item in
                        sum + (item.key.hasPrefix("\(name)/") ? item.value.loads : 0)
                    }, cache: loaded.figures)
            }, memory: .current,
            scrub: console.passphrase == nil ? nil : node.scrubState(),
            deadLetters: node.messages.deadLetters)
        if json { return try console.printJSON(report) }
        try print(report, console)
    }

    private func entry(_ name: String, _ plugins: PluginSet) -> PluginEntry {
        do {
            let plugin = try plugins.plugin(name)
            let figures = plugin.figures
            return PluginEntry(
                name: name, kind: plugin.manifest.kind.rawValue, version: plugin.manifest.version,
                state: "loaded", calls: figures.calls, faults: figures.faults,
                overruns: figures.overruns)
        } catch {
            return PluginEntry(name: name, kind: "", version: "", state: error.message)
        }
    }

    /// Without reading a block: a linear chain's next index is its length, and B alone is a graph.
    private func blocks(of store: ChainStore) -> [String: Int] {
        var counts: [String: Int] = [:]
        for spec in store.specs.values where spec.shape == .linear {
            counts[spec.id] = Int(store.next(on: spec.id).index)
        }
        let linear = counts.values.reduce(0, +)
        for spec in store.specs.values where spec.shape == .graph {
            counts[spec.id] = max(0, store.blockCount - linear)
        }
        return counts
    }

    private func print(_ report: Report, _ console: Console) throws {
        let blocks = report.blocks.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        let letters = report.deadLetters.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        try console.print(
            """
            blyan      \(report.version)
            home       \(report.home), held by \(report.holder.map { "process \($0)" } ?? "nobody")
            network    \(report.network)
            blocks     \(blocks.joined(separator: ", "))
            manifest   \(report.manifest), verify: \(report.verify)
            kernels    \(report.kernels), \(report.threads) threads
            process    \(report.memory.line)
            scrub      \(report.scrub?.line ?? "not running")
            dead       \(letters.isEmpty ? "no letters" : letters.joined(separator: ", "))
            plugins    generation \(report.generation)

            """)
        try console.printTable(
            [["plugin", "kind", "version", "calls", "faults", "overruns", "state"]]
                + report.plugins.map {
                    [
                        $0.name, $0.kind, $0.version, "\($0.calls)", "\($0.faults)",
                        "\($0.overruns)", $0.state,
                    ]
                })
        for model in report.models {
            try console.print(
                """

                model      \(model.name), version \(model.version.prefix(12)), \(model.loads) parts loaded
                \(model.cache.lines.joined(separator: "\n"))
                """)
        }
    }
}

extension LoadedModel.Figures {
    /// For a person.
    var lines: [String] {
        let rate = hitRate.map { "\($0.formatted(1)) %" } ?? "-"
        return [
            "experts    \(experts) mapped, \(hits) hits, \(misses) misses, \(dropped) dropped, hit rate \(rate), budget \(budget.asBytes)",
            "weights    \(bytesMapped.asBytes) mapped, \(bytesResident.asBytes) of it resident, \(bytesDecoded.asBytes) decoded",
        ]
    }
}

extension ScrubState {
    /// For a person.
    fileprivate var line: String {
        "\(payloads) of \(allPayloads) payloads read, \(passes == 1 ? "1 pass" : "\(passes) passes") done, \(damaged) damaged"
    }
}

extension ProcessMemory {
    /// For a person.
    var line: String {
        "\(resident.asBytes) resident: \(file.asBytes) of files, \(anonymous.asBytes) private"
    }
}

extension NodeManifest.Verify {
    /// As a manifest says it.
    fileprivate var text: String {
        switch self {
        case .always: "always"
        case .touch: "touch"
        case .remember(let seconds): "remember, for \(seconds) s"
        }
    }
}
