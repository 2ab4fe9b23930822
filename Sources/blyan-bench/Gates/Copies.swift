internal import BlyanLearning
internal import BlyanModel
internal import Foundation

/// Somebody's work, made to look like one's own.
struct Copies {
    private let tensors: [ExpertFile.Tensor]
    private let parent: [ExpertFile.Tensor]

    init(of tensors: [ExpertFile.Tensor], over parent: [ExpertFile.Tensor]) {
        self.tensors = tensors
        self.parent = parent
    }

    /// All kinds, by name.
    func all(_ random: inout SplitMix64) throws -> [(String, [ExpertFile.Tensor])] {
        [
            ("copy", tensors), ("stronger_copy", stronger(1.5)),
            ("reordered_copy", Self.reordered(tensors, &random)),
            ("rescaled_copy", Self.rescaled(tensors, &random)),
            ("noisy_copy", noisy(0.1, &random)),
        ]
    }

    /// The change times a factor.
    func stronger(_ factor: Float) -> [ExpertFile.Tensor] {
        zip(tensors, parent).map { own, old in
            own.with(zip(own.values, old.values).map { $1 + factor * ($0 - $1) })
        }
    }

    /// Noise of a share of the change's size on top.
    func noisy(_ share: Float, _ random: inout SplitMix64) -> [ExpertFile.Tensor] {
        zip(tensors, parent).map { own, old in
            let square = zip(own.values, old.values).reduce(Float(0)) {
                $0 + ($1.0 - $1.1) * ($1.0 - $1.1)
            }
            let size = share * (square / Float(own.values.count)).squareRoot()
            return own.with(own.values.map { $0 + size * random.nextNormal() })
        }
    }

    /// Neurons in another order, which computes the same.
    static func reordered(_ tensors: [ExpertFile.Tensor], _ random: inout SplitMix64)
        -> [ExpertFile.Tensor]
    {
        guard let neurons = tensors.first(where: { $0.name == "gate" })?.rows else {
            return tensors
        }
        let order = (0..<neurons).shuffled(using: &random)
        return tensors.map { tensor in
            if tensor.name == "down" {
                tensor.with(
                    tensor.values.indices.map {
                        tensor.values[
                            $0 / tensor.columns * tensor.columns + order[$0 % tensor.columns]]
                    })
            } else if tensor.rows == neurons {
                tensor.with(
                    order.flatMap {
                        tensor.values[$0 * tensor.columns..<($0 + 1) * tensor.columns]
                    })
            } else {
                tensor
            }
        }
    }

    /// A factor from each neuron's up row to its down column, which computes the same.
    static func rescaled(_ tensors: [ExpertFile.Tensor], _ random: inout SplitMix64)
        -> [ExpertFile.Tensor]
    {
        guard let neurons = tensors.first(where: { $0.name == "up" })?.rows else { return tensors }
        let factors = (0..<neurons).map { _ in
            Float.random(in: 0.5...2, using: &random) * (Bool.random(using: &random) ? 1 : -1)
        }
        return tensors.map { tensor in
            switch tensor.name {
            case "up":
                tensor.with(
                    tensor.values.enumerated().map { $1 * factors[$0 / tensor.columns] })
            case "down":
                tensor.with(
                    tensor.values.enumerated().map { $1 / factors[$0 % tensor.columns] })
            default: tensor
            }
        }
    }
}

extension ExpertFile.Tensor {
    /// The same tensor with other numbers.
    func with(_ values: [Float]) -> ExpertFile.Tensor {
        ExpertFile.Tensor(name: name, rows: rows, columns: columns, values: values)
    }
}

extension SplitMix64 {
    /// A number of the normal distribution (Box and Muller).
    mutating func nextNormal() -> Float {
        let u = Float.random(in: Float.leastNormalMagnitude..<1, using: &self)
        return (-2 * log(u)).squareRoot() * cos(2 * .pi * Float.random(in: 0..<1, using: &self))
    }
}
