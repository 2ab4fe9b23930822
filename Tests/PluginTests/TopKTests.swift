import BlyanKernel
import BlyanModel
import Foundation
import Testing

@Suite struct TopKTests {
    /// Reference: softmax in double precision, ranks by (probability, lower id).
    static func reference(
        _ logits: [Float], slots: Int, normalises: Bool
    ) -> (ids: [UInt32], weights: [Double]) {
        let top = Double(logits.max() ?? 0)
        let powers = logits.map { exp(Double($0) - top) }
        let sum = powers.reduce(0, +)
        let ranked = logits.indices.sorted {
            (logits[$1], $0) < (logits[$0], $1)
        }.prefix(slots)
        let picked = ranked.map { powers[$0] / sum }
        let share = normalises ? picked.reduce(0, +) : 1
        return (ranked.map(UInt32.init), picked.map { $0 / share })
    }

    @Test(arguments: [true, false], [(4, 2), (8, 2), (64, 8), (5, 5), (1, 1)])
    func agreesWithTheReference(normalises: Bool, shape: (experts: Int, slots: Int)) throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load("topk"))
        let rows = 50
        var random = Seeded(state: 7)
        let logits = (0..<rows * shape.experts).map { _ in Float.random(in: -9...9, using: &random)
        }
        let request = try router.open(
            layers: 2, experts: shape.experts, slots: shape.slots, normalises: normalises)
        let choice = try route(router, request, layer: 1, logits)
        for row in 0..<rows {
            let expected = Self.reference(
                Array(logits[row * shape.experts..<(row + 1) * shape.experts]), slots: shape.slots,
                normalises: normalises)
            let place = row * shape.slots..<(row + 1) * shape.slots
            #expect(Array(choice.ids[place]) == expected.ids)
            for (found, wanted) in zip(choice.weights[place], expected.weights) {
                #expect(abs(Double(found) - wanted) <= 1e-6)
            }
        }
    }

    @Test func equalLogitsGoToTheLowerIDs() throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load("topk"))
        let request = try router.open(layers: 1, experts: 4, slots: 2, normalises: true)
        let choice = try route(router, request, layer: 0, [1, 3, 3, 3, 0, 0, 0, 0])
        #expect(choice.ids == [1, 2, 0, 1])
        #expect(choice.weights == [0.5, 0.5, 0.5, 0.5])
    }

    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func refusesALogitThatIsNoNumber(bad: Float) throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load("topk"))
        let request = try router.open(layers: 4, experts: 2, slots: 1, normalises: true)
        let error = #expect(throws: KernelError.self) {
            try route(router, request, layer: 3, [0, 1, 2, bad])
        }
        #expect(error?.message.contains("layer 3, position 1") == true)
        #expect(error?.message.contains("expert 1") == true)
    }

    @Test(arguments: [(0, 1), (2, 3), (2, 0)])
    func refusesAModelThatCannotBe(shape: (experts: Int, slots: Int)) throws {
        let bench = try Bench()
        let router = try RouterPlugin(bench.load("topk"))
        #expect(throws: KernelError.self) {
            try router.open(
                layers: 1, experts: shape.experts, slots: shape.slots, normalises: true)
        }
    }
}
