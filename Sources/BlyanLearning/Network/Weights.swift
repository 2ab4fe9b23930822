package import BlyanModel

/// A model's weights as f32, part by part, decoded once.
package final class Weights {
    package let config: ModelConfig
    private let layouts: [String: PartLayout]
    private var parts: [String: [String: Matrix]] = [:]

    /// Decodes every part.
    ///
    /// - Parameters:
    ///   - decode: a part's tensors as f32; each has the shape that its layout names, and only optional ones are absent.
    /// - Throws: what `decode` throws; ``ModelError`` for a tensor that is missing or has another shape.
    package init(
        _ config: ModelConfig, decode: (_ part: String) throws -> [String: AlignedBuffer<Float>]
    ) throws {
        self.config = config
        layouts = Dictionary(uniqueKeysWithValues: config.parts.map { ($0.name, $0) })
        for layout in config.parts {
            parts[layout.name] = try Self.matrices(decode(layout.name), layout)
        }
    }

    private init(_ other: Weights) {
        (config, layouts, parts) = (other.config, other.layouts, other.parts)
    }

    /// The same weights with other tensors in the place of some parts'.
    ///
    /// - Throws: As init.
    func replacing(_ others: [(part: String, tensors: [String: AlignedBuffer<Float>])])
        throws(ModelError) -> Weights
    {
        let copy = Weights(self)
        for (part, tensors) in others {
            guard let layout = layouts[part] else {
                throw ModelError("the model has no part named \(part)")
            }
            copy.parts[part] = try Self.matrices(tensors, layout)
        }
        return copy
    }

    private static func matrices(_ tensors: [String: AlignedBuffer<Float>], _ layout: PartLayout)
        throws(ModelError) -> [String: Matrix]
    {
        var matrices: [String: Matrix] = [:]
        for tensor in layout.tensors {
            guard let buffer = tensors[tensor.name] else {
                if tensor.optional { continue }
                throw ModelError("\(layout.name) lacks the tensor \(tensor.name)")
            }
            guard buffer.count >= tensor.rows * tensor.columns else {
                throw ModelError(
                    "\(layout.name): tensor \(tensor.name) has \(buffer.count) numbers, expected \(tensor.rows) × \(tensor.columns)"
                )
            }
            matrices[tensor.name] = Matrix(buffer, rows: tensor.rows, columns: tensor.columns)
        }
        return matrices
    }

    /// The tensors of a part by name.
    ///
    /// - Throws: ``ModelError`` if the model has no such part.
    package func part(_ name: String) throws(ModelError) -> [String: Matrix] {
        guard let part = parts[name] else {
            throw ModelError(
                "the model has no part named \(name)",
                hint: "`blyan expert list` names those it has")
        }
        return part
    }

    /// A tensor that the part's layout requires.
    func matrix(_ part: String, _ tensor: String) -> Matrix {
        guard let matrix = parts[part]?[tensor] else {
            preconditionFailure("init checked that \(part) has \(tensor)")
        }
        return matrix
    }

    /// A tensor that a part may have.
    func optional(_ part: String, _ tensor: String) -> Matrix? { parts[part]?[tensor] }

    /// The tensors of a part in the order of its layout.
    package func ordered(_ part: String) throws(ModelError) -> [(name: String, values: Matrix)] {
        let tensors = try self.part(part)
        return (layouts[part]?.tensors ?? []).compactMap { tensor in
            tensors[tensor.name].map { (tensor.name, $0) }
        }
    }

    /// Bytes of all weights.
    package var bytes: Int {
        parts.values.reduce(0) { $1.values.reduce($0) { $0 + 4 * $1.rows * $1.columns } }
    }
}

/// Derivatives of the loss by the weights of the parts that are trained, and by no others.
package final class Gradients {
    /// The parts that are trained.
    package let parts: Set<String>
    private var tensors: [String: [String: Matrix]] = [:]

    package init(of parts: Set<String>, in weights: Weights) throws(ModelError) {
        self.parts = parts
        for part in parts {
            tensors[part] = try weights.part(part).mapValues {
                Matrix(rows: $0.rows, columns: $0.columns)
            }
        }
        clear()
    }

    /// Zero, everywhere.
    package func clear() {
        for part in tensors.values { for matrix in part.values { matrix.clear() } }
    }

    /// The derivatives by one tensor; nil = it is not trained.
    package func matrix(_ part: String, _ tensor: String) -> Matrix? { tensors[part]?[tensor] }
}
