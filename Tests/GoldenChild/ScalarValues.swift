import BlyanModel
import CBlyanMath

/// The bits of numbers, eight digits each.
func hex(_ numbers: [Float]) -> String {
    numbers.map {
        let digits = String($0.bitPattern, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }.joined()
}

/// SplitMix64 (Steele, Lea, Flood 2014), as numbers in [-1, 1).
struct Seeded {
    var state: UInt64

    mutating func next() -> Float {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Float((z ^ (z >> 31)) >> 40) * 0x1p-23 - 1
    }
}

/// Rotary angles, gates and losses: what needs no model.
func scalarValues() -> [String: String] {
    var values: [String: String] = [:]
    let variants: [(String, ModelConfig.RoPE, headSize: Int)] = [
        ("theta 1e4", .init(theta: 10_000), 32), ("theta 1e6", .init(theta: 1_000_000), 128),
        ("theta 7", .init(theta: 7), 6),
        ("linear", .init(theta: 10_000, scaling: .linear(factor: 2.5)), 16),
        (
            "factors",
            .init(theta: 500_000, scaling: .factors((0..<8).map { 1 + Float($0 * $0) / 8 })), 16
        ),
        (
            "llama3",
            .init(
                theta: 500_000,
                scaling: .llama3(
                    factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4,
                    originalPositions: 8192)), 64
        ),
    ]
    let yarns = [true, false].map { truncates -> (String, ModelConfig.RoPE, headSize: Int) in
        (
            "yarn, \(truncates ? "truncated" : "as it is")",
            .init(
                theta: 150_000,
                scaling: .yarn(
                    factor: 32, originalPositions: 4096, betaFast: 32, betaSlow: 1,
                    attentionFactor: Float(0.1 * blyan_math_log(32) + 1), truncate: truncates)), 64
        )
    }
    for (name, rope, headSize) in variants + yarns {
        let rotary = RotaryEmbedding(rope, headSize: headSize)
        var cosines = rotary.frequencies
        var sines = cosines
        values["rotary/\(name)/frequencies"] = hex(rotary.frequencies)
        for position in [0, 1, 2, 3, 100, 4095, 32_768, 131_071, 999_999, 1_048_576] {
            rotary.angles(at: position, cosines: &cosines, sines: &sines)
            values["rotary/\(name)/\(position)"] = "\(hex(cosines)) \(hex(sines))"
        }
    }
    let large: [Float] = [0x1p20, 0x1p24, 1e10, 0x1p64, 1e30, .greatestFiniteMagnitude]
    values["sine and cosine of large angles"] = hex(
        large.flatMap { angle in
            var pair: (Float, Float) = (0, 0)
            blyan_math_sincos(-angle, &pair.0, &pair.1)
            return [pair.0, pair.1]
        })
    values["sigmoid"] = hex(
        stride(from: Float(-110), through: 30, by: 3.5).map { blyan_math_sigmoid($0) })
    var random = Seeded(state: 3)
    for count in [1, 2, 15, 16, 17, 276, 2048, 50_257] {
        for spread in [0.1, 1, 10, 60] as [Float] {
            let logits = (0..<count).map { _ in random.next() * spread }
            values["loss/\(count) logits to \(spread)"] = hex(
                [0, count / 2, count - 1].map { blyan_math_loss(logits, UInt64(count), UInt64($0)) }
            )
        }
    }
    return values
}
