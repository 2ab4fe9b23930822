internal import ArgumentParser
internal import BlyanModel
internal import BlyanServer

struct Tokenize: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the token ids of a file's text.")

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Option(help: ArgumentHelp("The text; - is standard input.", valueName: "file"))
    var file: String

    @Flag(help: "Match control tokens that the text spells.")
    var special = false

    @Flag(help: "Print one JSON array of ids.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let found = try node.catalog.model(named: model.model)
        let tokenizer = try Tokenizer(found.document.tokenizer)
        let ids = tokenizer.encode(
            try readText(file, console), addSpecial: true, parseSpecial: special)
        if json { return try console.printJSON(ids) }
        for id in ids {
            try console.print(
                "\(id)\t\(String(decoding: tokenizer.bytes(of: id, skipSpecial: false), as: UTF8.self).debugDescription)"
            )
        }
    }
}
