internal import ArgumentParser
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Chat: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract: "Generate text from a prompt; several prompts are the turns of one conversation.",
        discussion: """
            A model with a chat template answers as an assistant; one without continues the text. \
            --raw continues the text in either case. Text streams as it is made.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions

    @Argument(
        help: ArgumentHelp(
            "What to say; more than one are turns of one conversation.", valueName: "prompt"))
    var prompts: [String]

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Tokens to make at most in an answer.", valueName: "n"))
    var maxTokens = 256

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "0 picks the likeliest token each time; above 0 samples.", valueName: "t"))
    var temperature: Float = 0.7

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Sample from the k likeliest tokens; 0 = all.", valueName: "k"))
    var topK = 40

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Sample from the likeliest tokens that together reach this probability.", valueName: "p"
        ))
    var topP: Float = 0.95

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("The same seed gives the same text; random if absent.", valueName: "n"))
    var seed: UInt64?

    @Option(
        help: ArgumentHelp("Instructions that come first in a conversation.", valueName: "text"))
    var system: String?

    @Flag(help: "Continue the prompt as it stands, without a chat template.")
    var raw = false

    @Flag(help: "Print speed, expert cache and memory figures to standard error afterwards.")
    var stats = false

    func validate() throws {
        guard !prompts.isEmpty else { throw ValidationError("say something") }
        guard maxTokens > 0 else { throw ValidationError("--max-tokens must be above 0") }
        guard temperature >= 0, temperature.isFinite else {
            throw ValidationError("--temperature must be a finite number of at least 0")
        }
        guard topK >= 0 else { throw ValidationError("--top-k must not be negative") }
        guard topP > 0, topP <= 1 else {
            throw ValidationError("--top-p must be above 0 and at most 1")
        }
    }

    func run(_ node: Node, _ console: Console) throws {
        let loaded = try node.model(model.model)
        var sampler = try Sampler(
            temperature: temperature, topK: topK, topP: topP,
            seed: seed ?? UInt64.random(in: .min ... .max))
        let conversation = try Conversation(loaded, template: !raw, system: system)
        for (turn, prompt) in prompts.enumerated() {
            if prompts.count > 1 { try console.print("\(turn == 0 ? "" : "\n")> \(prompt)") }
            let statistics = try conversation.answer(
                prompt, sampler: &sampler, limit: maxTokens
            ) { bytes in try console.print(bytes: bytes) }
            try console.print("")
            if stats { console.note(report(statistics, loaded)) }
        }
    }

    private func report(_ statistics: ModelRunner.Statistics, _ loaded: LoadedModel) -> String {
        func rate(_ count: Int, _ seconds: Double) -> String {
            seconds > 0 ? (Double(count) / seconds).formatted(1) : "-"
        }
        let memory = ProcessMemory.current
        return """
            prompt     \(statistics.promptTokens) tokens, \(rate(statistics.promptTokens, statistics.promptSeconds)) a second
            answer     \(statistics.tokens) tokens, \(rate(statistics.tokens, statistics.seconds)) a second
            \(loaded.figures.lines.joined(separator: "\n"))
            process    \(memory.line)
            kernels    \(Kernels.name), \(loaded.runner.threads) threads
            """
    }
}
