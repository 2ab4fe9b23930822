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

    func validate() throws {
        guard quantize == nil || quantize == "int8" else {
            throw ValidationError("--quantize knows only int8")
        }
        if let name, name.isEmpty || name.utf8.count > 200 {
            throw ValidationError("--name must have 1 to 200 bytes")
        }
    }

    func run(_ node: Node, _ console: Console) throws {
        let source = console.url(path)
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
        let importer = Importer(
            store: node.store, key: try node.signingKey(passphrase: console.passphrase),
            format: plugin, payloadType: payloadType, clock: now,
            onStored: { [messages = node.messages] in
                messages.publish(BlockStored($0), to: .blockStored)
            })
        let bar = ProgressBar(console)
        var bytes = 0
        let result = try importer.run(checkpoint, name: title, quantisation: quantize ?? "") {
            progress in
            try Cancellation.check()
            bytes = progress.bytes
            bar.update(
                progress.parts, of: progress.allParts, bytes: progress.bytes,
                allBytes: progress.allBytes, label: progress.part)
        }
        bar.end()
        let seconds = (clock.now - start).seconds
        if json {
            struct Report: Encodable {
                let model, name: String
                let blocks, payloadBytes, weightBytes: Int
                let seconds: Double
            }
            return try console.printJSON(
                Report(
                    model: result.model.description, name: title, blocks: result.blocks,
                    payloadBytes: result.payloadBytes, weightBytes: bytes, seconds: seconds))
        }
        guard result.blocks > 0 else {
            return try console.print("\(title) is here already: nothing was stored")
        }
        let rate = Int(Double(bytes) / max(seconds, 1e-9)).asBytes
        try console.print(
            "\(title)  \(result.blocks) blocks, \(result.payloadBytes.asBytes) of payloads in \(seconds.formatted(2)) s (\(rate)/s)"
        )
        try console.print("model     \(result.model)")
    }
}
