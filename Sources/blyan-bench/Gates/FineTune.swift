internal import BlyanLearning

/// A real training of one expert.
struct FineTune {
    var part: String
    /// What it is trained on.
    enum Text {
        /// One of the stage's texts.
        case whole(Int)
        /// A dozen documents.
        case few(Int)
    }

    var text: Text
    var options: TrainingOptions
    /// Whether half of each batch is the model's own text.
    var rehearses = true

    /// Honest work of all kinds: experts, texts, lengths from 10 steps on, rates and seeds.
    static func honest(_ count: Int) -> [FineTune] {
        let parts = ["layer3.expert6", "layer2.expert7", "layer1.expert2", "layer0.expert3"]
        return (0..<count).map { i in
            var options = TrainingOptions(steps: [10, 20, 40, 60][i / 20 % 4])
            options.rate = [2e-4, 1e-4, 5e-4][i / 80 % 3]
            options.batch = [8, 16][i / 4 % 2]
            options.sequence = 64
            options.seed = UInt64(i + 1)
            return FineTune(part: parts[i % 4], text: .whole(i / 4 % 5), options: options)
        }
    }
}
