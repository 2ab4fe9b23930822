internal import BlyanLearning
internal import BlyanModel

/// Work that is none: what gates must not pay for.
enum Attack: String, CaseIterable {
    /// The parent with noise of 0.2 to 5 % of its size.
    case noise
    /// The parent as it is.
    case parentCopy = "parent_copy"
    /// The parent, larger or smaller.
    case scaledParent = "scaled_parent"
    /// The parent's neurons in another order, with factors moved from up to down.
    case reorderedParent = "reordered_parent"
    /// Another expert of the model.
    case otherExpert = "other_expert"
    /// A change of few random directions.
    case lowRank = "random_direction"
    /// Somebody's change, as it is.
    case copiedChange = "copied_change"
    /// Somebody's change, backwards.
    case flippedChange = "flipped_change"
    /// Somebody's change with its numbers at other places.
    case shuffledChange = "shuffled_change"
    /// A training on one, two or a dozen documents of text that is public, until it knows them by heart.
    case overfitted
    /// Numbers of the right size.
    case garbage

    /// - Parameter work: a real fine-tune of the part, that somebody submitted.
    func tensors(
        _ stage: GateStage, _ part: String, work: [ExpertFile.Tensor], seed: Int
    ) throws -> [ExpertFile.Tensor] {
        var random = SplitMix64(seed: UInt64(seed) &* 77 &+ 5)
        let parent = try stage.tensors(part)
        func size(_ tensor: ExpertFile.Tensor) -> Float {
            let square = tensor.values.reduce(Float(0)) { $0 + $1 * $1 }
            return (square / Float(tensor.values.count)).squareRoot()
        }
        switch self {
        case .noise:
            let share: Float = [0.002, 0.005, 0.01, 0.02, 0.05][seed % 5]
            return parent.map { tensor in
                let size = size(tensor) * share
                return tensor.with(tensor.values.map { $0 + size * random.nextNormal() })
            }
        case .parentCopy: return parent
        case .scaledParent:
            let factor = Float.random(in: 0.8...1.25, using: &random)
            return parent.map { tensor in tensor.with(tensor.values.map { $0 * factor }) }
        case .reorderedParent:
            return Copies.reordered(Copies.rescaled(parent, &random), &random)
        case .otherExpert:
            let others = stage.experts.filter { $0 != part }
            return try stage.tensors(others[Int(random.next(below: UInt64(others.count)))])
        case .lowRank:
            let share: Float = [0.005, 0.02, 0.05][seed % 3]
            return parent.map { tensor in
                let left = (0..<tensor.rows).map { _ in random.nextNormal() }
                let right = (0..<tensor.columns).map { _ in random.nextNormal() }
                let size = size(tensor) * share
                return tensor.with(
                    tensor.values.enumerated().map {
                        $1 + size * left[$0 / tensor.columns] * right[$0 % tensor.columns]
                    })
            }
        case .copiedChange: return work
        case .flippedChange: return Copies(of: work, over: parent).stronger(-1)
        case .shuffledChange:
            return zip(work, parent).map { own, old in
                let change = zip(own.values, old.values).map { $0 - $1 }.shuffled(using: &random)
                return own.with(zip(old.values, change).map { $0 + $1 })
            }
        case .overfitted:
            var options = TrainingOptions(steps: 30)
            options.rate = [3e-3, 2e-3, 1e-3][seed % 3]
            options.batch = 8
            options.sequence = 64
            options.seed = UInt64(seed)
            return try stage.trained(
                FineTune(
                    part: part, text: .few([1, 2, 12][seed % 3], seed: seed), options: options,
                    rehearses: false))
        case .garbage:
            return parent.map { tensor in
                let size = size(tensor)
                return tensor.with(tensor.values.map { _ in size * random.nextNormal() })
            }
        }
    }
}
