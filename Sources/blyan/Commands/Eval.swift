internal import ArgumentParser
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Eval: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Score a text and continue it greedily, for comparison with other implementations.",
        discussion: """
            The file's bytes are taken exactly, without a chat template; special tokens are added only if the \
            tokenizer itself adds them. mean_nll is in nats per token over the prompt.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Option(help: ArgumentHelp("The text to score; - is standard input.", valueName: "file"))
    var promptFile: String

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Greedy tokens to add, past any end token.", valueName: "n"))
    var greedy = 0

    @Flag(help: "Print one JSON object with token_ids, mean_nll, last_logits and greedy.")
    var json = false

    func validate() throws {
        guard greedy >= 0 else { throw ValidationError("--greedy must not be negative") }
    }

    func run(_ node: Node, _ console: Console) throws {
        let text = try readText(promptFile, console)
        let loaded = try node.model(model.model)
        let tokens = loaded.tokenizer.encode(text, addSpecial: true, parseSpecial: true)
        let result = try loaded.runner.evaluate(tokens, greedy: greedy)
        if json { return try console.printJSON(result) }
        try console.print("tokens    \(result.tokenIDs.count)")
        if let loss = result.meanNLL {
            try console.print(
                "mean nll  \(loss.formatted(6)) nats a token (perplexity \(exp(loss).formatted(3)))"
            )
        }
        if greedy > 0 {
            try console.print(
                "greedy    "
                    + String(decoding: loaded.tokenizer.decode(result.greedy), as: UTF8.self))
        }
    }
}
