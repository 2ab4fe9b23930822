package import BlyanModel
internal import CBlyanMath
internal import Foundation

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the trained parts, with clipping by the norm of all
/// derivatives; as `torch.optim.AdamW` and `clip_grad_norm_`.
package final class Optimizer {
    /// One tensor that is trained.
    package struct Tensor {
        package let part: String
        package let name: String
        package let values: Matrix
        /// Averages of the derivatives and of their squares.
        package let first, second: Matrix
        let gradient: Matrix
    }

    /// All trained tensors, by part and in the order of the layouts.
    package let tensors: [Tensor]
    /// Steps made.
    package private(set) var steps = 0
    private let pool: WorkerPool

    package init(_ weights: Weights, _ gradients: Gradients, pool: WorkerPool) throws(ModelError) {
        var tensors: [Tensor] = []
        for part in gradients.parts.sorted() {
            for (name, values) in try weights.ordered(part) {
                guard let gradient = gradients.matrix(part, name) else { continue }
                let first = Matrix(rows: values.rows, columns: values.columns)
                let second = Matrix(rows: values.rows, columns: values.columns)
                first.clear()
                second.clear()
                tensors.append(
                    Tensor(
                        part: part, name: name, values: values, first: first, second: second,
                        gradient: gradient))
            }
        }
        self.tensors = tensors
        self.pool = pool
    }

    /// Goes on after `steps` steps whose averages are in ``tensors`` already.
    package func resume(after steps: Int) { self.steps = steps }

    /// One step along the derivatives.
    ///
    /// - Returns: The norm of all derivatives before clipping.
    /// - Throws: ``ModelError`` if derivatives are not finite; then nothing has changed.
    package func step(rate: Float, _ options: TrainingOptions) throws(ModelError) -> Float {
        let norm = Float(
            tensors.reduce(0.0) { sum, tensor in
                (0..<tensor.gradient.rows).reduce(sum) {
                    $0 + Double(tensor.gradient.dot($1, tensor.gradient, $1))
                }
            }.squareRoot())
        guard norm.isFinite else {
            throw ModelError(
                "the derivatives of step \(steps + 1) are not finite",
                hint: "begin again with a lower rate")
        }
        steps += 1
        var adamw = blyan_adamw()
        adamw.rate = rate
        adamw.beta1 = options.beta1
        adamw.beta2 = options.beta2
        adamw.epsilon = options.epsilon
        adamw.weight_decay = options.weightDecay
        adamw.first_correction = Float(1 / (1 - pow(Double(options.beta1), Double(steps))))
        adamw.second_correction = Float(1 / (1 - pow(Double(options.beta2), Double(steps))))
        adamw.gradient_scale = norm > options.clip ? options.clip / (norm + 1e-6) : 1
        let work = adamw
        let pieces = tensors.indices.flatMap { tensor in
            pool.shares(tensors[tensor].values.rows).map { (tensor, $0) }
        }
        pool.run(pieces.count) { piece in
            let (at, rows) = pieces[piece]
            let tensor = tensors[at]
            var options = work
            for row in rows {
                unsafe blyan_math_adamw(
                    &options, tensor.gradient.row(row), tensor.values.row(row),
                    tensor.first.row(row), tensor.second.row(row), UInt64(tensor.values.columns))
            }
        }
        return norm
    }
}
