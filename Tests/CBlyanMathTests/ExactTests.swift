import CBlyanMath
import Foundation
import Testing

/// The elementary functions beside those of the C library, which are themselves within an ulp.
@Suite struct ExactTests {
    private func ulps(_ found: Double, _ wanted: Double) -> Double {
        found == wanted ? 0 : abs(found - wanted) / wanted.ulp
    }

    /// Steps from one f32 to the other.
    private func steps(_ a: Float, _ b: Double) -> Int {
        let b = Float(b)
        func place(_ x: Float) -> Int {
            x.sign == .minus ? -Int(x.magnitude.bitPattern) : Int(x.bitPattern)
        }
        return abs(place(a) - place(b))
    }

    /// Angles to 2^20 and beyond, to the largest there is: every 9,973rd f32, of either sign.
    @Test func sinesAndCosinesAreThoseOfDoublesRounded() {
        var worst = 0
        for bits in stride(from: UInt32(0), to: Float.infinity.bitPattern, by: 9973) {
            let angle = Float(bitPattern: bits)
            var (sine, cosine, mirrored, same) = (Float(0), Float(0), Float(0), Float(0))
            blyan_math_sincos(angle, &sine, &cosine)
            blyan_math_sincos(-angle, &mirrored, &same)
            worst = max(
                worst, steps(sine, sin(Double(angle))), steps(cosine, cos(Double(angle))))
            guard mirrored == -sine, same == cosine else {
                Issue.record("-\(angle) has another sine or cosine than \(angle)")
                return
            }
        }
        #expect(worst <= 1)
    }

    /// What is next to a multiple of pi/2, where a reduction that is not exact loses everything.
    @Test func multiplesOfAQuarterTurn() {
        for n in stride(from: 1, to: 700_000, by: 37) {
            let angle = Float(Double(n) * .pi / 2)
            for near in [angle.nextDown, angle, angle.nextUp] {
                var (sine, cosine) = (Float(0), Float(0))
                blyan_math_sincos(near, &sine, &cosine)
                #expect(steps(sine, sin(Double(near))) <= 1, "\(near)")
                #expect(steps(cosine, cos(Double(near))) <= 1, "\(near)")
            }
        }
    }

    @Test func exponentialsLogarithmsAndPowers() {
        var random = SeededGenerator(state: 1)
        var (exponential, logarithm, power, gate) = (0.0, 0.0, 0, 0)
        for i in 0..<300_000 {
            let x = Double.random(in: -708...708, using: &random) * (i % 2 == 0 ? 1 : 0.003)
            exponential = max(exponential, ulps(blyan_math_exp(x), exp(x)))
            let y = i % 2 == 0 ? exp(x) : Double.random(in: 0.5...2, using: &random)
            logarithm = max(logarithm, ulps(blyan_math_log(y), log(y)))
            let base = Float(exp(Double.random(in: 0...18.5, using: &random)))
            let exponent = Double(Float.random(in: 0...1, using: &random))
            power = max(
                power,
                steps(Float(blyan_math_pow(Double(base), exponent)), pow(Double(base), exponent)))
            let logit = Float(x / 8)
            gate = max(gate, steps(blyan_math_sigmoid(logit), 1 / (1 + exp(-Double(logit)))))
        }
        #expect(exponential <= 2.5)
        #expect(logarithm <= 2)
        #expect(power <= 1)
        #expect(gate <= 1)
    }

    @Test func theEnds() {
        #expect(blyan_math_exp(0) == 1 && blyan_math_exp(-.infinity) == 0)
        #expect(blyan_math_exp(.infinity) == .infinity && blyan_math_exp(710) == .infinity)
        #expect(blyan_math_exp(-745.1) == .leastNonzeroMagnitude && blyan_math_exp(-746) == 0)
        #expect(blyan_math_exp(.nan).isNaN)
        #expect(blyan_math_log(1) == 0 && blyan_math_log(0) == -.infinity)
        #expect(blyan_math_log(.infinity) == .infinity && blyan_math_log(-1).isNaN)
        #expect(abs(blyan_math_log(.leastNonzeroMagnitude) + 744.4400719213812) < 1e-12)
        #expect(blyan_math_pow(10_000, 0) == 1 && Float(blyan_math_pow(10_000, 0.5)) == 100)
        #expect(blyan_math_sigmoid(0) == 0.5 && blyan_math_sigmoid(-.infinity) == 0)
        #expect(blyan_math_sigmoid(.infinity) == 1 && blyan_math_sigmoid(.nan).isNaN)
        for angle in [Float.nan, .infinity, -.infinity] {
            var (sine, cosine) = (Float(0), Float(0))
            blyan_math_sincos(angle, &sine, &cosine)
            #expect(sine.isNaN && cosine.isNaN)
        }
        var (sine, cosine) = (Float(1), Float(0))
        blyan_math_sincos(-0.0, &sine, &cosine)
        #expect(sine == 0 && sine.sign == .minus && cosine == 1)
    }
}
