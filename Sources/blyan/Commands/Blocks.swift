internal import BlyanJSON
internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct BlockCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "block", abstract: "Show and export blocks and their payloads.",
        subcommands: [BlockShow.self, BlockExport.self, BlockPayload.self])
}

/// The block that a person means by its hash or the beginning of it.
func findBlock(_ digits: String, in store: ChainStore) throws -> Block {
    let text = digits.lowercased()
    if let hash = Digest(hex: text) {
        guard let block = try store.block(hash) else {
            throw KernelError(
                .notFound, "there is no block \(text)", hint: "`blyan chain log` lists blocks")
        }
        return block
    }
    guard text.count >= 6, text.allSatisfy({ $0.isHexDigit }) else {
        throw KernelError(
            .notFound, "\"\(text)\" is no block hash: give 64 hex digits, or at least the first 6")
    }
    var found: [Block] = []
    try store.scan(.arrival) { (block) throws(KernelError) in
        if block.hash.description.hasPrefix(text) { found.append(block) }
        return found.count < 2
    }
    guard found.count == 1 else {
        throw KernelError(
            .notFound,
            found.isEmpty ? "no block begins with \(text)" : "several blocks begin with \(text)")
    }
    return found[0]
}

/// That there is such a chain.
func checkChain(_ id: String, in store: ChainStore) throws(KernelError) {
    guard store.specs[id] == nil else { return }
    throw KernelError(
        .notFound, "there is no chain \"\(id)\"",
        hint: "chains: \(store.specs.keys.sorted().joined(separator: ", "))")
}

struct BlockShow: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Print a block's header and signature.")

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The block's hash, or its first digits.", valueName: "hash"))
    var hash: String

    @Flag(help: "Print the canonical header as it was signed, with payload_sig.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let block = try findBlock(hash, in: node.store)
        if json { return try console.print(String(decoding: block.line, as: UTF8.self)) }
        try console.print("hash           \(block.hash)")
        guard case .object(let fields) = try JSONValue(parsing: block.line) else { return }
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            let text = value.string ?? String(decoding: value.canonical(), as: UTF8.self)
            try console.print(name.padding(toLength: 15, withPad: " ", startingAt: 0) + text)
        }
        try console.print("signature      " + (block.isSignatureValid ? "valid" : "NOT VALID"))
    }
}

struct BlockExport: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Print a chain, one canonical header with its signature a line.",
        discussion:
            "Examples/audit/verify_chain.py checks such files without any code of this project.")

    @OptionGroup var home: HomeOptions

    @Option(help: ArgumentHelp("The chain.", valueName: "id"))
    var chain: String

    @Flag(help: "One JSON object a line: the only form there is, and the default.")
    var jsonl = false

    func run(_ node: Node, _ console: Console) throws {
        try checkChain(chain, in: node.store)
        var failure: (any Error)?
        try node.store.scan(.chain(chain, from: 0)) { (block) throws(KernelError) in
            do { try console.print(String(decoding: block.line, as: UTF8.self)) } catch {
                failure = error
            }
            return failure == nil
        }
        if let failure { throw failure }
    }
}

struct BlockPayload: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "payload",
        abstract: "Write a block's payload to a file, every byte compared with what was signed.")

    @OptionGroup var home: HomeOptions

    @Argument(help: ArgumentHelp("The block's hash, or its first digits.", valueName: "hash"))
    var hash: String

    @Option(
        name: [.short, .long],
        help: ArgumentHelp("The file to write; it must not exist.", valueName: "file"))
    var output: String

    func run(_ node: Node, _ console: Console) throws {
        let block = try findBlock(hash, in: node.store)
        let target = console.url(output)
        let payload = try node.store.map(block, mode: .touch)
        try payload.verifyAll(threads: ProcessInfo.processInfo.activeProcessorCount)
        let file = unsafe open(target.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw failure(target) }
        let handle = FileHandle(fileDescriptor: file, closeOnDealloc: true)
        for offset in stride(from: 0, to: payload.size, by: 1 << 24) {
            let length = min(1 << 24, payload.size - offset)
            let start = try unsafe payload.read(offset: offset, length: length)
            do {
                try handle.write(contentsOf: unsafe Data(bytes: start, count: Int(length)))
            } catch {
                let reason = failure(target)
                unsafe unlink(target.path)
                throw reason
            }
        }
        try payload.checkFault()
        try console.print("\(Int(block.header.payloadSize).asBytes) written to \(target.path)")
    }

    private func failure(_ target: URL) -> KernelError {
        KernelError(
            .io, "cannot write \(target.path): \(unsafe String(cString: strerror(errno)))",
            hint: errno == EEXIST ? "remove it, or give another file with --output" : nil)
    }
}
