internal import CBlyanMath

/// Rotary position embedding (RoFormer, arXiv 2104.09864) in the half-split layout: element i of a head turns
/// with element i + headSize / 2.
///
/// Part of the reference path: powers, logarithms, sines and cosines are our own, the same bits on every machine.
package struct RotaryEmbedding: Sendable {
    /// Radians a position, one a pair; f32 as in the reference implementation.
    package let frequencies: [Float]
    /// Cosines and sines are multiplied by this (YaRN).
    let magnitude: Float

    package init(_ rope: ModelConfig.RoPE, headSize: Int) {
        let half = headSize / 2
        let base = (0..<half).map { i in
            let exponent = Double(Float(2 * i) / Float(headSize))
            return 1 / Float(blyan_math_pow(Double(rope.theta), exponent))
        }
        switch rope.scaling {
        case .none:
            frequencies = base
            magnitude = 1
        case .linear(let factor):
            frequencies = base.map { $0 / factor }
            magnitude = 1
        case .factors(let factors):
            frequencies = zip(base, factors).map { $0 / $1 }
            magnitude = 1
        case .llama3(let factor, let low, let high, let original):
            frequencies = base.map { frequency in
                let wavelength = 2 * Float.pi / frequency
                if wavelength > Float(original) / low { return frequency / factor }
                if wavelength < Float(original) / high { return frequency }
                let smooth = (Float(original) / wavelength - low) / (high - low)
                return (1 - smooth) * frequency / factor + smooth * frequency
            }
            magnitude = 1
        case .yarn(let factor, let original, let fast, let slow, let attention, let truncate):
            func correction(_ rotations: Float) -> Double {
                Double(headSize) * blyan_math_log(Double(original) / (Double(rotations) * 2 * .pi))
                    / (2 * blyan_math_log(Double(rope.theta)))
            }
            var low = correction(fast)
            var high = correction(slow)
            if truncate {
                low = low.rounded(.down)
                high = high.rounded(.up)
            }
            low = max(low, 0)
            high = min(high, Double(headSize - 1))
            if low == high { high += 0.001 }
            frequencies = base.enumerated().map { i, frequency in
                let ramp = Float(min(max((Double(i) - low) / (high - low), 0), 1))
                return frequency / factor * ramp + frequency * (1 - ramp)
            }
            magnitude = attention
        }
    }

    /// Writes cosine and sine of each pair at a position.
    package func angles(
        at position: Int, cosines: UnsafeMutablePointer<Float>, sines: UnsafeMutablePointer<Float>
    ) {
        for (i, frequency) in frequencies.enumerated() {
            unsafe blyan_math_sincos(Float(position) * frequency, sines + i, cosines + i)
            unsafe cosines[i] *= magnitude
            unsafe sines[i] *= magnitude
        }
    }
}
