internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct ModelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "List the models of a home.", subcommands: [ModelList.self])
}

struct ModelList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the models of a home.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let models = try node.catalog.models()
        if json {
            struct Entry: Encodable {
                let name, model, architecture, version: String; let parts, allParts: Int;
                let complete: Bool
            }
            return try console.printJSON(
                models.map {
                    Entry(
                        name: $0.name, model: $0.meta.hash.description,
                        architecture: $0.document.config.architecture,
                        version: $0.version?.hash.description ?? "", parts: $0.parts.count,
                        allParts: $0.partCount,
                        complete: $0.isComplete)
                })
        }
        try console.printTable(
            [["model", "architecture", "parts", "state", "meta block"]]
                + models.map {
                    [
                        $0.name, $0.document.config.architecture,
                        "\($0.parts.count) of \($0.partCount)",
                        $0.isComplete ? "served" : "incomplete",
                        String($0.meta.hash.description.prefix(12)),
                    ]
                })
    }
}

struct Expert: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "List, show, export and submit the parts of a model, judge them again, and go back.",
        subcommands: [
            ExpertList.self, ExpertShow.self, ExpertExport.self, ExpertSubmit.self,
            ExpertStats.self, ExpertTop.self, ExpertReview.self, ExpertRollback.self,
        ])
}

struct ExpertList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List a model's parts and their current blocks.")

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let found = try node.catalog.model(named: model.model)
        let usage = node.usage.figures
        struct Entry: Encodable { let name, block, format: String; let bytes, loads, tokens: Int }
        var entries: [Entry] = []
        for part in found.document.config.parts {
            guard let hash = found.parts[part.name], let block = try node.store.block(hash) else {
                continue
            }
            let used = usage["\(found.name)/\(part.name)"] ?? UsageCounter.Figures()
            entries.append(
                Entry(
                    name: part.name, block: hash.description, format: block.header.payloadType,
                    bytes: Int(block.header.payloadSize), loads: used.loads, tokens: used.tokens))
        }
        if json { return try console.printJSON(entries) }
        try console.printTable(
            [["part", "block", "format", "size", "loads", "tokens"]]
                + entries.map {
                    [
                        $0.name, String($0.block.prefix(12)), $0.format, $0.bytes.asBytes,
                        "\($0.loads)", "\($0.tokens)",
                    ]
                })
        if !found.isComplete {
            console.note(
                "blyan: \(found.name) is incomplete: \(found.parts.count) of \(found.partCount) parts; run its import again"
            )
        }
    }
}

struct ExpertShow: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show a part's versions: hashes, size, format, tensors, who signed.")

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Argument(help: ArgumentHelp("The part, e.g. layer2.expert5.", valueName: "name"))
    var name: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let found = try node.catalog.model(named: model.model)
        guard let layout = found.document.config.parts.first(where: { $0.name == name }) else {
            throw ModelError(
                "the model \(found.name) has no part \"\(name)\"",
                hint: "`blyan expert list --model \(found.name)` lists them")
        }
        struct Tensor: Encodable {
            let name: String; let rows, columns: Int; let dtype: String; let offset: UInt64
        }
        struct Version: Encodable {
            let block, payload, merkleRoot, format, version, signer: String
            let bytes: Int
            let current, signatureValid: Bool
            let timestamp: Int64
            let tensors: [Tensor]
        }
        struct Report: Encodable { let model, name: String; let versions: [Version] }
        var versions: [Version] = []
        for block in try node.catalog.versions(of: name, model: found) {
            let header = block.header
            let tensors = try node.plugins.format(for: header.payloadType).describe(
                node.store.map(block, mode: .touch))
            versions.append(
                Version(
                    block: block.hash.description, payload: header.payloadHash?.description ?? "",
                    merkleRoot: header.merkleRoot?.description ?? "", format: header.payloadType,
                    version: header.version, signer: header.miner, bytes: Int(header.payloadSize),
                    current: found.parts[name] == block.hash,
                    signatureValid: block.isSignatureValid,
                    timestamp: header.timestamp,
                    tensors: tensors.map {
                        Tensor(
                            name: $0.name, rows: $0.rows, columns: $0.columns, dtype: $0.dtypeName,
                            offset: $0.data.lowerBound)
                    }))
        }
        let report = Report(model: found.name, name: layout.name, versions: versions)
        if json { return try console.printJSON(report) }
        try console.print(
            "\(name) of \(found.name): \(versions.count) version\(versions.count == 1 ? "" : "s")")
        for version in versions {
            try console.print(
                "\nblock      \(version.block)\(version.current ? "  (current)" : "")")
            try console.print("version    \(version.version)")
            try console.print("payload    \(version.payload)")
            try console.print("merkle     \(version.merkleRoot)")
            try console.print("format     \(version.format), \(version.bytes.asBytes)")
            try console.print(
                "signed by  \(version.signer) (\(version.signatureValid ? "valid" : "NOT VALID"))")
            for tensor in version.tensors {
                try console.print(
                    "tensor     \(tensor.name)  [\(tensor.rows), \(tensor.columns)]  \(tensor.dtype)  at \(tensor.offset)"
                )
            }
        }
    }
}
