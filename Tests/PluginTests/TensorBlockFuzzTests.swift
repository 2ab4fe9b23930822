import CBlyanPlugin
import Testing

/// Damaged payloads: every read ends at an unreadable page, so one byte too far ends the run.
@Suite struct TensorBlockFuzzTests {
    static let bases: [[UInt8]] = [
        TensorBlockBuilder().bytes,
        TensorBlockBuilder([
            .init(
                "gate", dtype: 2, rows: 6, columns: 5, layout: 1, quantisation: 1,
                scales: (1...6).map(Float.init), data: TensorBlockTests.random(30, seed: 1)),
            .init(
                "up", dtype: 2, rows: 6, columns: 5, quantisation: 1,
                scales: (1...6).map(Float.init), data: TensorBlockTests.random(30, seed: 2)),
            .init(
                "down", dtype: 1, rows: 5, columns: 6, data: TensorBlockTests.random(60, seed: 3)),
        ]).bytes,
        TensorBlockBuilder([
            .init(
                "scale", dtype: 3, rows: 900, columns: 3, quantisation: 2,
                scales: (1...900).map(Float.init), zeros: (1...900).map(Float.init),
                data: TensorBlockTests.random(2700, seed: 4)),
            .init("norm", dtype: 4, rows: 1, columns: 3, data: TensorBlockTests.random(6, seed: 5)),
        ]).bytes,
    ]

    /// Where something other than padding stands.
    static func places(_ bytes: [UInt8]) -> [Int] { bytes.indices.filter { bytes[$0] != 0 } }

    static func mutate(
        _ bytes: inout [UInt8], _ places: [Int], _ generator: inout Seeded
    ) {
        let interesting: [UInt64] = [
            0, 1, 2, 127, 128, 4095, 4096, 4097, 8192, 65_536, 1 << 31, 1 << 32, 1 << 48, 1 << 62,
            .max, .max - 63, .max - 4095, UInt64(bytes.count), UInt64(bytes.count) - 1,
        ]
        let place = places.randomElement(using: &generator) ?? 0
        switch Int.random(in: 0..<7, using: &generator) {
        case 0, 1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case 2: bytes[place] = UInt8.random(in: .min ... .max, using: &generator)
        case 3 where place / 8 * 8 + 8 <= bytes.count:
            bytes.put(interesting.randomElement(using: &generator) ?? 0, at: place / 8 * 8)
        case 4 where place / 4 * 4 + 4 <= bytes.count:
            let value = interesting.randomElement(using: &generator) ?? 0
            bytes.put(UInt32(truncatingIfNeeded: value), at: place / 4 * 4)
        case 5: bytes.removeLast(min(bytes.count, Int.random(in: 1...200, using: &generator)))
        default:
            // One part over another.
            let from = (places.randomElement(using: &generator) ?? 0) / 8 * 8
            let count = min(24, bytes.count - max(from, place))
            if count > 0 {
                bytes.replaceSubrange(place..<place + count, with: bytes[from..<from + count])
            }
        }
    }

    @Test(arguments: 0..<UInt64(bases.count))
    func damageIsRefusedOrHarmless(base: UInt64) throws {
        let plugin = try PluginHarness("TensorBlock")
        let original = Self.bases[Int(base)]
        let places = Self.places(original)
        var generator = Seeded(state: 0x7B10C + base)
        var (refused, read) = (0, 0)
        for _ in 0..<2000 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...3, using: &generator) where !bytes.isEmpty {
                Self.mutate(&bytes, places.filter { $0 < bytes.count }, &generator)
            }
            let payload = GuardedPayload(bytes)
            do {
                for (i, tensor) in try plugin.list(payload).enumerated() {
                    let size = UInt64(bytes.count)
                    #expect(tensor.data_offset <= size)
                    #expect(tensor.data_length <= size - tensor.data_offset)
                    #expect(tensor.scale_offset <= size)
                    #expect(tensor.scale_length <= size - tensor.scale_offset)
                    #expect(tensor.rows * tensor.columns <= size)
                    _ = try plugin.decode(payload, tensor: i)
                }
                try Self.compute(plugin, payload)
                read += 1
            } catch let refusal as Refusal {
                let expected = [BLYAN_E_MALFORMED, BLYAN_E_UNSUPPORTED, BLYAN_E_LIMIT]
                #expect(expected.contains { $0 == refusal.status }, "\(refusal)")
                #expect(!refusal.message.isEmpty)
                refused += 1
            }
        }
        #expect(refused > 500 && refused + read == 2000)
    }

    /// The hidden stage of what may be an expert, with room for as many rows as it says it has.
    static func compute(_ plugin: PluginHarness, _ payload: GuardedPayload) throws {
        guard let gate = try plugin.list(payload).first, gate.text == "gate" else { return }
        var x = [Float](repeating: 1, count: Int(gate.columns))
        var h = [Float](repeating: 0, count: Int(gate.rows))
        try x.withUnsafeMutableBufferPointer { x in
            try h.withUnsafeMutableBufferPointer { h in
                var work = blyan_compute()
                work.row_end = gate.rows
                work.tokens = 1
                work.x = UnsafePointer(x.baseAddress)
                work.x_stride = gate.columns
                work.h = h.baseAddress
                work.h_stride = gate.rows
                try plugin.compute(payload, work)
            }
        }
    }
}
