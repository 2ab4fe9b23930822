internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Import: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a model into the chains: every expert and shared part a signed block.",
        discussion: """
            PATH is a Hugging Face directory (config.json, safetensors or pytorch_model.bin, tokenizer.json) or a \
            GGUF file. \
            An import that was stopped goes on where it was when it is run again; what is stored is not stored twice.
            """)

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The checkpoint.", valueName: "path"))
    var path: String

    @Option(
        help: ArgumentHelp(
            "The model's name here; otherwise that of the folder or file.", valueName: "name"))
    var name: String?

    @Option(
        help: ArgumentHelp(
            "Store matrices as per-row int8; routers, norms and biases keep their dtype.",
            valueName: "int8"))
    var quantize: String?

    @Option(
        help: ArgumentHelp(
            "The format to write; otherwise the first of the node manifest.", valueName: "format"))
    var format: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    var afterHolderEnds: String? { "run the command again: it goes on where it stopped" }

    func validate() throws {
        guard quantize == nil || quantize == "int8" else {
            throw ValidationError("--quantize knows only int8")
        }
        if let name, name.isEmpty || name.utf8.count > 200 {
            throw ValidationError("--name must have 1 to 200 bytes")
        }
        if let name, name.unicodeScalars.contains(where: Self.isControl) {
            throw ValidationError("--name must not have control characters")
        }
    }

    func run(_ node: Node, _ console: Console) throws {
        let source = console.url(path)
        try check(source)
        let clock = ContinuousClock()
        let start = clock.now
        let payloadType = format ?? node.manifest.formats.first ?? ""
        let plugins = node.plugins
        let plugin = try plugins.format(for: payloadType)
        let checkpoint = try openCheckpoint(at: source.path, plugins: plugins)
        let base =
            source.pathExtension == "gguf"
            ? source.deletingPathExtension().lastPathComponent : source.lastPathComponent
        let title = name ?? (quantize.map { "\(base)-\($0)" } ?? base)
        guard !title.unicodeScalars.contains(where: Self.isControl) else {
            throw ModelError(
                "the name of \(source.path) has control characters, and models are named in terminals",
                hint: "give another name with --name")
        }
        let importer = Importer(
            store: node.store, key: try node.signingKey(passphrase: console.nodePassphrase),
            format: plugin, payloadType: payloadType, clock: now,
            onStored: { [messages = node.messages] in
                messages.publish(BlockStored($0), to: .blockStored)
            })
        var known: Set<Digest> = []
        try node.store.scan(.arrival) { (block) throws(KernelError) in
            if let payload = block.header.payloadHash { known.insert(payload) }
            return true
        }
        let bar = ProgressBar(console)
        var bytes = 0
        let result = try node.holdingPayloads {
            try importer.run(checkpoint, name: title, quantisation: quantize ?? "") { progress in
                try Cancellation.check()
                bytes = progress.bytes
                bar.update(
                    progress.parts, of: progress.allParts, bytes: progress.bytes,
                    allBytes: progress.allBytes, label: progress.part)
            }
        }
        bar.end()
        if result.restored > 0 { node.forgetPayloads() }
        let seconds = (clock.now - start).seconds
        let payloads = try payloads(of: result.model, in: node)
        let present = payloads.filter { known.contains($0.key) }.values.reduce(0, +)
        let stored = payloads.values.reduce(0, +) - present
        if json {
            struct Report: Encodable {
                let model, name: String
                let blocks, restoredPayloads, payloadBytes, presentBytes, weightBytes: Int
                let seconds: Double
            }
            return try console.printJSON(
                Report(
                    model: result.model.description, name: title, blocks: result.blocks,
                    restoredPayloads: result.restored, payloadBytes: stored, presentBytes: present,
                    weightBytes: bytes,
                    seconds: seconds))
        }
        guard result.blocks > 0 else {
            return try console.print(
                "\(title) is here already: "
                    + (result.restored > 0
                        ? "\(result.restored.of("payload")), gone or damaged, written again"
                        : "nothing was stored"))
        }
        let rate = Int(Double(bytes) / max(seconds, 1e-9)).asBytes
        let shared = present > 0 ? " beside \(present.asBytes) that were here" : ""
        try console.print(
            "\(title)  \(result.blocks.of("block")), \(stored.asBytes) of payloads\(shared) in \(seconds.formatted(2)) s (\(rate)/s)"
        )
        try console.print("model     \(result.model)")
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        [.control, .lineSeparator, .paragraphSeparator].contains(scalar.properties.generalCategory)
    }

    /// What is nothing to import is said before anything is read of it.
    private func check(_ source: URL) throws {
        var isFolder: ObjCBool = false
        let exists = unsafe FileManager.default.fileExists(
            atPath: source.path, isDirectory: &isFolder)
        let config = source.appendingPathComponent("config.json").path
        guard
            !exists
                || !(isFolder.boolValue
                    ? FileManager.default.fileExists(atPath: config)
                    : isGGUF(source))
        else { return }
        throw ModelError(
            exists
                ? "\(source.path) is neither a folder with config.json nor a GGUF file"
                : "there is no file or folder \(source.path)",
            hint:
                "give a folder with config.json, tokenizer.json and the weights as safetensors or pytorch_model.bin, or a GGUF file"
        )
    }

    private func isGGUF(_ file: URL) -> Bool {
        let start = try? FileHandle(forReadingFrom: file).read(upToCount: 4)
        return file.pathExtension == "gguf" || start == Data("GGUF".utf8)
    }

    /// Bytes by payload of a model's blocks: equal parts share one.
    private func payloads(of model: Digest, in node: Node) throws -> [Digest: Int] {
        guard let meta = try node.store.block(model) else { return [:] }
        let found = try node.catalog.model(meta)
        let parts = try Set(found.parts.values).compactMap { try node.store.block($0) }
        return Dictionary(
            ([meta, found.version].compactMap(\.self) + parts).compactMap { block in
                block.header.payloadHash.map { ($0, Int(block.header.payloadSize)) }
            }, uniquingKeysWith: { first, _ in first })
    }
}
