internal import BlyanLearning

/// A real training of one expert.
struct FineTune {
    var part: String
    /// What it is trained on.
    enum Text {
        /// One of the stage's texts.
        case whole(Int)
        /// Every domain that is judged on, in the shares that it has there.
        case domains
        /// A few documents, and which.
        case few(Int, seed: Int)
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

    /// Work that mostly gains: busy experts, and mostly texts of the domain that the model does not know.
    static func promising(_ count: Int) -> [FineTune] {
        let parts = ["layer3.expert6", "layer2.expert7", "layer1.expert5", "layer3.expert3"]
        let texts = [0, 4, 1, 0, 4, 1, 3, 2]
        return (0..<count).map { i in
            var options = TrainingOptions(steps: [10, 20, 30, 40][i / 32 % 4])
            options.rate = [2e-4, 1e-4, 5e-4][i / 128 % 3]
            options.batch = 8
            options.sequence = 64
            options.seed = UInt64(i + 1)
            return FineTune(part: parts[i % 4], text: .whole(texts[i / 4 % 8]), options: options)
        }
    }
}
