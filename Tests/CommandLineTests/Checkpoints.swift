import Foundation

/// The checkpoints that come with the outputs of another implementation.
enum Checkpoints {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Fixtures/checkpoints")

    /// Names of all folders that hold expected.json.
    static let names: [String] = {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        return all.sorted().filter {
            FileManager.default.fileExists(
                atPath: root.appendingPathComponent("\($0)/expected.json").path)
        }
    }()

    /// A small mixture of experts.
    static let routed = folder("mixtral-fused")

    static func folder(_ name: String) -> URL { root.appendingPathComponent(name) }

    /// What to import of a folder: its GGUF file if there is one.
    static func path(_ name: String) -> String {
        let file = folder(name).appendingPathComponent("model.gguf").path
        return FileManager.default.fileExists(atPath: file) ? file : folder(name).path
    }

    /// What the transformers library made of a checkpoint, in f32 arithmetic.
    struct Expected: Decodable {
        let prompt: String
        let tokenIDs: [Int]
        let meanNLL: Double
        let lastLogits: [Double]
        let greedy: [Int]

        private enum CodingKeys: String, CodingKey {
            case prompt
            case tokenIDs = "token_ids"
            case meanNLL = "mean_nll"
            case lastLogits = "last_logits"
            case greedy = "greedy_24"
        }
    }

    /// What `blyan eval --json` prints.
    struct Evaluation: Decodable {
        let tokenIDs: [Int]
        let meanNLL: Double
        let lastLogits: [Double]
        let greedy: [Int]

        private enum CodingKeys: String, CodingKey {
            case tokenIDs = "token_ids"
            case meanNLL = "mean_nll"
            case lastLogits = "last_logits"
            case greedy
        }
    }

    static func expected(_ folder: URL) throws -> Expected {
        try JSONDecoder().decode(
            Expected.self, from: Data(contentsOf: folder.appendingPathComponent("expected.json")))
    }
}

extension Home {
    /// Evaluates the prompt of a checkpoint's expected.json on this home's only model.
    func evaluate(_ expected: Checkpoints.Expected) throws -> Checkpoints.Evaluation {
        let prompt = scratch.appendingPathComponent("prompt.txt")
        try Data(expected.prompt.utf8).write(to: prompt)
        let text = try succeed(
            "eval", "--prompt-file", prompt.path, "--greedy", "\(expected.greedy.count)", "--json")
        return try JSONDecoder().decode(Checkpoints.Evaluation.self, from: Data(text.utf8))
    }
}
