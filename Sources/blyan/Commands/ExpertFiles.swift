internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct ExpertExport: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a part's current version to a file, to train it with other software.",
        discussion:
            "Numbers are f32, exactly what is stored. A safetensors file also says which block it is of."
    )

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Argument(help: ArgumentHelp("The part, e.g. layer2.expert5.", valueName: "name"))
    var name: String

    enum Format: String, ExpressibleByArgument, CaseIterable { case safetensors, pickle }

    @Option(help: "The file's format: safetensors or pickle (as torch.load reads it).")
    var format = Format.safetensors

    @Option(help: ArgumentHelp("The file to write.", valueName: "file"))
    var output: String

    @Flag(help: "Write over a file that is there already.")
    var force = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let file = console.url(output)
        guard force || !FileManager.default.fileExists(atPath: file.path) else {
            throw KernelError(
                .io, "\(file.path) is there already",
                hint: "give another file with --output, or write over it with --force")
        }
        let loaded = try node.model(model.model)
        let config = loaded.model.document.config
        guard let layout = config.parts.first(where: { $0.name == name }),
            let block = loaded.model.parts[name]
        else {
            throw ModelError(
                "the model \(loaded.model.name) has no part \"\(name)\"",
                hint: "`blyan expert list --model \(loaded.model.name)` lists them")
        }
        let decoded = try loaded.decode(name)
        let tensors = layout.tensors.compactMap { tensor in
            decoded[tensor.name].map {
                ExpertFile.Tensor(
                    name: tensor.name, rows: tensor.rows, columns: tensor.columns,
                    values: $0.array(0..<tensor.rows * tensor.columns))
            }
        }
        let bytes =
            switch format {
            case .safetensors: ExpertFile.safetensors(tensors, parent: block)
            case .pickle:
                try ExpertFile.encoded(tensors, by: node.plugins.format(forFileExtension: "pt"))
            }
        do { try Data(bytes).write(to: file, options: .atomic) } catch {
            throw KernelError(.io, "cannot write \(file.path): \(error.localizedDescription)")
        }
        if json {
            return try console.printJSON(
                .object([
                    "file": .string(file.path), "bytes": .int(Int64(bytes.count)),
                    "block": .string(block.description), "expert": .string(name),
                ]))
        }
        try console.print("wrote     \(file.path), \(bytes.count.asBytes)")
        try console.print("block     \(block)")
    }
}

struct ExpertSubmit: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "submit",
        abstract:
            "Submit a new version of a part that other software trained, and see the verdict.",
        discussion: """
            FILE has the part's tensors under the names that `blyan expert export` gave them, in f32, f16 or bf16: \
            safetensors, or what an enabled format plugin reads. They are rounded to what the current version is \
            stored as. Exit status 2: judged and not accepted.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions
    @OptionGroup var author: AuthorOptions

    @Argument(help: ArgumentHelp("The part, e.g. layer2.expert5.", valueName: "name"))
    var name: String

    @Argument(help: ArgumentHelp("The file.", valueName: "file"))
    var file: String

    @Option(
        help: ArgumentHelp(
            "The block that was trained from, where the file does not tell; otherwise the current one.",
            valueName: "hash"))
    var parent: String?

    @Option(
        help: ArgumentHelp(
            "A new version of the layer's router, judged together with the expert.",
            valueName: "file"))
    var router: String?

    @Flag(help: "Print one JSON object: verdict, reason, evidence by gate.")
    var json = false

    var walletPassphraseFile: String? { author.walletPassphraseFile }

    func validate() throws {
        guard let parent else { return }
        guard (6...64).contains(parent.utf8.count),
            parent.allSatisfy({ $0.isASCII && $0.isHexDigit })
        else {
            throw ValidationError(
                "--parent is \"\(parent)\", expected 6 to 64 hex digits of a block's hash")
        }
    }

    var endsCleanly: Bool { true }

    var afterHolderEnds: String? { AuthorOptions.afterHolderEnds }

    func run(_ node: Node, _ console: Console) throws {
        let loaded = try node.model(model.model)
        let tensors = try read(file, name, parent: parent, loaded, node, console)
        let routerName = "\(name.prefix { $0 != "." }).router"
        let routerTensors = try router.map {
            try read($0, routerName, parent: nil, loaded, node, console)
        }
        let key = try author.key(node, console, of: self)
        let judge = try node.judge(passphrase: console.nodePassphrase)
        let block = try node.submit(
            name, tensors, router: routerTensors, to: loaded, key: key, judge: judge)
        console.noteIfBusy(judge)
        let made = try judge.judge(block.hash)
        if json { try console.printJSON(console.json(made)) } else { try console.print(made) }
        if made.outcome != .accept { throw ExitCode(2) }
    }

    /// A file's tensors, if it was trained from the version that serves now.
    private func read(
        _ file: String, _ part: String, parent: String?, _ loaded: LoadedModel, _ node: Node,
        _ console: Console
    ) throws -> [ExpertFile.Tensor] {
        guard let layout = loaded.model.document.config.parts.first(where: { $0.name == part }),
            let current = loaded.model.parts[part]
        else {
            throw ModelError(
                "the model \(loaded.model.name) has no part \"\(part)\"",
                hint: "`blyan expert list --model \(loaded.model.name)` lists them")
        }
        let contents = try ExpertFile.read(
            console.url(file).path, of: layout, plugins: node.plugins)
        let from = parent ?? contents.parent?.description ?? current.description
        guard current.description.hasPrefix(from.lowercased()) else {
            throw try outdated(file, from, part, current, loaded.model, node)
        }
        return contents.tensors
    }

    /// Why a file that was not trained from the current version of a part is refused.
    private func outdated(
        _ file: String, _ from: String, _ part: String, _ current: Digest, _ model: CatalogModel,
        _ node: Node
    ) throws -> KernelError {
        let origin: Block
        do { origin = try findBlock(from, in: node.store) } catch let error as KernelError
            where error.code == .notFound
        {
            return KernelError(
                .notFound,
                "what \(file) was trained from is no block of this home: \(error.message)",
                hint: "give a version that `blyan expert show \(part)` lists")
        }
        let header = origin.header
        func wrong(_ what: String) -> KernelError {
            KernelError(
                .rule,
                "\(file) was trained from block \(from.prefix(12)), which is \(what), and no version of \(part) of the model \(model.name)",
                hint: "submit a file as a new version of the part that it was exported from")
        }
        guard header.chainID == "B", header.blockType == "parameters" else {
            return wrong("a \(header.blockType) block of chain \(header.chainID)")
        }
        guard header.dependsOn.contains(model.meta.hash) else {
            return wrong("a version of \(header.expertName) of another model")
        }
        guard header.expertName == part else {
            return wrong("a version of \(header.expertName)")
        }
        return KernelError(
            .rule,
            "\(file) was trained from \(from.prefix(12)), and the current version of \(part) is \(current.description.prefix(12)): somebody was faster",
            hint:
                "export the current version with `blyan expert export \(part)` and train from it: only a gain over what serves now counts"
        )
    }
}
