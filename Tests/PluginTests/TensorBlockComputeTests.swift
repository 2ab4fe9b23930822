import CBlyanPlugin
import Foundation
import Testing

/// An expert computed by the plugin is the expert that its decoded matrices make.
@Suite struct TensorBlockComputeTests {
    static let hiddenSize = 20, intermediate = 33, tokens = 3

    /// How the three matrices are stored.
    struct Form: Sendable, CustomTestStringConvertible {
        let dtype: UInt32, layout: UInt32, quantisation: UInt32
        var testDescription: String { "dtype \(dtype) layout \(layout) quant \(quantisation)" }

        static let all: [Form] = [0, 1].flatMap { layout in
            [(1, 0), (4, 0), (5, 0), (3, 0), (2, 1), (2, 2), (3, 1), (3, 2)].map {
                Form(dtype: $0.0, layout: UInt32(layout), quantisation: $0.1)
            }
        }
    }

    static func expert(_ form: Form) -> GuardedPayload {
        var generator = Seeded(state: 11)
        func block(_ name: String, _ rows: Int, _ columns: Int) -> TensorBlockBuilder.Block {
            var data: [UInt8] = []
            for _ in 0..<rows * columns {
                let value = Float.random(in: -1...1, using: &generator)
                switch form.dtype {
                case 1: data += TensorBlockBuilder.Block.little(Float16(value).bitPattern)
                case 4: data += TensorBlockBuilder.Block.little(UInt16(value.bitPattern >> 16))
                case 5: data += TensorBlockBuilder.Block.little(value.bitPattern)
                case 3: data.append(UInt8.random(in: 0..<0x40, using: &generator))
                default: data.append(UInt8.random(in: .min ... .max, using: &generator))
                }
            }
            let scales = (0..<rows).map { Float($0 + 1) / 1000 }
            return .init(
                name, dtype: form.dtype, rows: UInt64(rows), columns: UInt64(columns),
                layout: form.layout, quantisation: form.quantisation,
                scales: form.quantisation == 0 ? [] : scales,
                zeros: form.quantisation == 2 ? scales.map { $0 * 100 } : [], data: data)
        }
        return GuardedPayload(
            TensorBlockBuilder([
                block("gate", intermediate, hiddenSize), block("up", intermediate, hiddenSize),
                block("down", hiddenSize, intermediate),
            ]).bytes)
    }

    static var x: [Float] {
        var generator = Seeded(state: 12)
        return (0..<tokens * hiddenSize).map { _ in Float.random(in: -1...1, using: &generator) }
    }
    static let weight: [Float] = [0.5, 0.25, 2]

    /// Both stages, each cut into pieces of `step` rows.
    static func run(
        _ plugin: PluginHarness, _ payload: GuardedPayload, step: Int
    ) throws -> [Float] {
        var (x, weight) = (Self.x, Self.weight)
        var h = [Float](repeating: .nan, count: tokens * intermediate)
        var y = [Float](repeating: 1, count: tokens * hiddenSize)
        try x.withUnsafeMutableBufferPointer { x in
            try h.withUnsafeMutableBufferPointer { h in
                try y.withUnsafeMutableBufferPointer { y in
                    try weight.withUnsafeMutableBufferPointer { weight in
                        for stage in [BLYAN_COMPUTE_HIDDEN, BLYAN_COMPUTE_OUTPUT] {
                            let isHidden = stage == BLYAN_COMPUTE_HIDDEN
                            let rows = isHidden ? intermediate : hiddenSize
                            for begin in stride(from: 0, to: rows, by: step) {
                                var work = blyan_compute()
                                work.stage = UInt32(stage)
                                work.row_begin = UInt64(begin)
                                work.row_end = UInt64(min(begin + step, rows))
                                work.tokens = UInt64(tokens)
                                work.x = isHidden ? UnsafePointer(x.baseAddress) : nil
                                work.x_stride = UInt64(hiddenSize)
                                work.h = h.baseAddress
                                work.h_stride = UInt64(intermediate)
                                work.weight = isHidden ? nil : UnsafePointer(weight.baseAddress)
                                work.y = isHidden ? nil : y.baseAddress
                                work.y_stride = UInt64(hiddenSize)
                                try plugin.compute(payload, work)
                            }
                        }
                    }
                }
            }
        }
        return y
    }

    @Test(arguments: Form.all)
    func agreesWithTheDecodedMatrices(form: Form) throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = Self.expert(form)
        let matrices = try (0..<3).map { try plugin.decode(payload, tensor: $0).map(Double.init) }
        let (n, m) = (Self.hiddenSize, Self.intermediate)
        let x = Self.x.map(Double.init)
        var expected = [Double](repeating: 1, count: Self.tokens * n)
        var magnitude = expected
        for t in 0..<Self.tokens {
            var bounds: [Double] = []
            let h = (0..<m).map { r -> Double in
                var (gate, up, gates, ups) = (0.0, 0.0, 0.0, 0.0)
                for c in 0..<n {
                    gate += matrices[0][r * n + c] * x[t * n + c]
                    up += matrices[1][r * n + c] * x[t * n + c]
                    gates += abs(matrices[0][r * n + c] * x[t * n + c])
                    ups += abs(matrices[1][r * n + c] * x[t * n + c])
                }
                bounds.append(gates * ups)
                return gate / (1 + exp(-gate)) * up
            }
            for r in 0..<n {
                let sum = (0..<m).reduce(0.0) { $0 + matrices[2][r * m + $1] * h[$1] }
                expected[t * n + r] += Double(Self.weight[t]) * sum
                magnitude[t * n + r] += (0..<m).reduce(0.0) {
                    $0 + Double(Self.weight[t]) * abs(matrices[2][r * m + $1]) * bounds[$1]
                }
            }
        }
        let whole = try Self.run(plugin, payload, step: 100)
        // The host's product with int8 rows rounds activations to int8, twice in a row here: 1/127 each at most.
        let isHostsInt8 = form.dtype == 2 && form.quantisation == 1 && form.layout == 0
        for (i, found) in whole.enumerated() {
            let error = abs(Double(found) - expected[i])
            #expect(error <= magnitude[i] * (isHostsInt8 ? 2.0 / 127 : 1e-6))
        }
        // A row does not depend on how rows were shared out.
        for step in [1, 7] { #expect(try Self.run(plugin, payload, step: step) == whole) }
    }

    @Test func badWorkIsRefused() throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = Self.expert(.all[0])
        func refused(
            _ status: some BinaryInteger, _ change: (inout blyan_compute) -> Void
        ) {
            var h = [Float](repeating: 0, count: 1000)
            h.withUnsafeMutableBufferPointer { h in
                var work = blyan_compute()
                work.row_end = 33
                work.tokens = 3
                work.x = UnsafePointer(h.baseAddress)
                work.x_stride = 20
                work.h = h.baseAddress
                work.h_stride = 33
                change(&work)
                let refusal = #expect(throws: Refusal.self) { try plugin.compute(payload, work) }
                #expect(refusal?.status == blyan_status(status))
            }
        }
        refused(BLYAN_E_ARGUMENT) { $0.row_end = 34 }
        refused(BLYAN_E_ARGUMENT) { ($0.row_begin, $0.row_end) = (5, 4) }
        refused(BLYAN_E_ARGUMENT) { ($0.row_begin, $0.row_end) = (.max, .max) }
        refused(BLYAN_E_ARGUMENT) { $0.x = nil }
        refused(BLYAN_E_ARGUMENT) { $0.h = nil }
        refused(BLYAN_E_ARGUMENT) { $0.x_stride = 19 }
        refused(BLYAN_E_ARGUMENT) { $0.h_stride = 32 }
        refused(BLYAN_E_ARGUMENT) { $0.stage = UInt32(BLYAN_COMPUTE_OUTPUT) }
        refused(BLYAN_E_ARGUMENT) { $0.stage = 7 }
        refused(BLYAN_E_LIMIT) { $0.tokens = .max }
    }

    @Test(arguments: [
        (["gate", "up"], "down is missing"), (["a", "b", "c"], "gate is missing"),
        (["gate", "up", "down"], "block down is 3 x 4, expected 4 x 3 beside gate"),
    ])
    func whatIsNoExpertIsNotComputed(names: [String], says: String) throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = GuardedPayload(TensorBlockBuilder(names.map { .init($0) }).bytes)
        let refusal = #expect(throws: Refusal.self) {
            try plugin.compute(payload, blyan_compute())
        }
        #expect(refusal?.status == blyan_status(BLYAN_E_MALFORMED))
        #expect(refusal?.message.contains(says) == true, "\(refusal?.message ?? "")")
    }
}
