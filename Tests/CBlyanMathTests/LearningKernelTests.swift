import CBlyanMath
import CBlyanPlugin
import Foundation
import Testing

/// Losses and derivatives: the portable kernels beside the same in double, the others beside those bit for bit.
extension KernelTests {
    private static let lengths = [1, 2, 15, 16, 17, 64, 100, 2048]

    private func numbers(_ n: Int, _ range: ClosedRange<Float>, _ seed: Int) -> [Float] {
        var random = SeededGenerator(state: UInt64(seed * 1_000_003 + n))
        return (0..<n).map { _ in Float.random(in: range, using: &random) }
    }

    private func near(_ found: [Float], _ expected: [Double], _ what: String) {
        let scale = expected.map(abs).max() ?? 0
        for (a, b) in zip(found, expected) {
            #expect(abs(Double(a) - b) <= 4e-6 * max(scale, 1e-30), "\(what): \(a), \(b)")
        }
    }

    /// Runs `body` with every variant and compares its bits with the portable ones, which are returned.
    private func everywhere(_ what: String, _ body: () -> [Float]) -> [Float] {
        let expected = withPortable(body)
        for isa in variants {
            withVariant(isa) {
                #expect(body().map(\.bitPattern) == expected.map(\.bitPattern), "\(what), \(isa)")
            }
        }
        return expected
    }

    @Test(arguments: lengths) func lossAndItsDerivative(n: Int) {
        for (range, seed): (ClosedRange<Float>, Int) in [(-4...4, 1), (-60...60, 2), (0...0, 3)] {
            let logits = numbers(n, range, seed)
            let target = n / 2
            let top = Double(logits.max() ?? 0)
            let exponentials = logits.map { exp(Double($0) - top) }
            let sum = exponentials.reduce(0, +)
            let loss = log(sum) - (Double(logits[target]) - top)
            let found = everywhere("loss") { [blyan_math_loss(logits, UInt64(n), UInt64(target))] }
            #expect(abs(Double(found[0]) - loss) <= 2e-6 * max(1, loss))
            let back = everywhere("loss_back") {
                var copy = logits
                let same = blyan_math_loss_back(&copy, UInt64(n), UInt64(target), 0.25)
                return copy + [same]
            }
            #expect(back[n] == found[0])
            near(
                Array(back.dropLast()),
                exponentials.enumerated().map { 0.25 * ($1 / sum - ($0 == target ? 1 : 0)) },
                "loss_back of \(n)")
        }
    }

    @Test(arguments: lengths) func softmaxAndItsDerivative(n: Int) {
        let x = numbers(n, -9...9, 4), dp = numbers(n, -2...2, 5)
        let p = everywhere("softmax") {
            var copy = x
            blyan_math_softmax(&copy, UInt64(n))
            return copy
        }
        let top = Double(x.max() ?? 0)
        let exponentials = x.map { exp(Double($0) - top) }
        let sum = exponentials.reduce(0, +)
        near(p, exponentials.map { $0 / sum }, "softmax of \(n)")
        let found = everywhere("softmax_back") {
            var copy = dp
            blyan_math_softmax_back(p, &copy, UInt64(n), 0.5)
            return copy
        }
        let mean = zip(p, dp).reduce(0) { $0 + Double($1.0) * Double($1.1) }
        let expected = zip(p, dp).map { 0.5 * Double($0) * (Double($1) - mean) }
        // A difference of numbers of size 2, which may be small itself.
        for (a, b) in zip(found, expected) { #expect(abs(Double(a) - b) < 1e-6) }
    }

    @Test(arguments: lengths) func derivativesOfTheGatedProduct(n: Int) {
        let gate = numbers(n, -8...8, 6), up = numbers(n, -2...2, 7), d = numbers(n, -1...1, 8)
        let found = everywhere("swiglu_back") {
            var (h, dgate, dup) = (d, gate, up)
            let scale = dgate.withUnsafeMutableBufferPointer { g in
                dup.withUnsafeMutableBufferPointer { u in
                    blyan_math_swiglu_back(
                        g.baseAddress, u.baseAddress, &h, 0.75, g.baseAddress, u.baseAddress,
                        UInt64(n))
                }
            }
            return h + dgate + dup + [scale]
        }
        let s = gate.map { 1 / (1 + exp(-Double($0))) }
        let silu = zip(gate, s).map { Double($0) * $1 }
        let h = zip(silu, up).map { $0 * Double($1) }
        near(Array(found[0..<n]), h, "h of \(n)")
        let dgate = (0..<n).map { k -> Double in
            let slope = s[k] * (1 + Double(gate[k]) * (1 - s[k]))
            return 0.75 * Double(d[k]) * Double(up[k]) * slope
        }
        near(Array(found[n..<2 * n]), dgate, "dgate of \(n)")
        near(
            Array(found[2 * n..<3 * n]), (0..<n).map { 0.75 * Double(d[$0]) * silu[$0] },
            "dup of \(n)")
        let scale = zip(d, h).reduce(0) { $0 + Double($1.0) * $1.1 }
        #expect(abs(Double(found[3 * n]) - scale) < 1e-5 * Double(n))
    }

    @Test(arguments: lengths) func derivativesOfTheNorm(n: Int) {
        let x = numbers(n, -3...3, 9), weight = numbers(n, 0.5...1.5, 10)
        let dy = numbers(n, -1...1, 11), before = numbers(n, -1...1, 12)
        let found = everywhere("rms_norm_back") {
            var (dx, dweight) = (before, before)
            blyan_math_rms_norm_back(x, weight, dy, UInt64(n), 1e-5, &dx, &dweight)
            var alone = before
            blyan_math_rms_norm_back(x, weight, dy, UInt64(n), 1e-5, &alone, nil)
            #expect(alone == dx)
            return dx + dweight
        }
        let square = x.reduce(0) { $0 + Double($1) * Double($1) } / Double(n) + 1e-5
        let scale = 1 / square.squareRoot()
        let along = (0..<n).reduce(0) { $0 + Double(weight[$1] * dy[$1]) * Double(x[$1]) }
        for k in 0..<n {
            let shared = along * scale * scale * scale / Double(n)
            let dx = Double(weight[k] * dy[k]) * scale - Double(x[k]) * shared
            #expect(abs(Double(found[k]) - Double(before[k]) - dx) < 5e-6, "dx of \(n)")
            let dweight = Double(dy[k]) * Double(x[k]) * scale
            #expect(abs(Double(found[n + k]) - Double(before[k]) - dweight) < 5e-6)
        }
    }

    @Test(arguments: lengths) func aStepOfAdamW(n: Int) {
        let gradient = numbers(n, -1...1, 13), start = numbers(n, -1...1, 14)
        let first = numbers(n, -0.5...0.5, 15), second = numbers(n, 0...0.5, 16)
        var options = blyan_adamw(
            rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1,
            first_correction: 1.5, second_correction: 2, gradient_scale: 0.5)
        let found = everywhere("adamw") {
            var (w, m, v) = (start, first, second)
            blyan_math_adamw(&options, gradient, &w, &m, &v, UInt64(n))
            return w + m + v
        }
        for k in 0..<n {
            let g = Double(gradient[k]) * 0.5
            let m = 0.9 * Double(first[k]) + 0.1 * g, v = 0.95 * Double(second[k]) + 0.05 * g * g
            let step = 1.5 * m / ((2 * v).squareRoot() + 1e-8)
            let w = Double(start[k]) - 0.01 * (step + 0.1 * Double(start[k]))
            #expect(abs(Double(found[k]) - w) < 1e-6)
            #expect(abs(Double(found[n + k]) - m) < 1e-6)
            #expect(abs(Double(found[2 * n + k]) - v) < 1e-6)
        }
    }
}
