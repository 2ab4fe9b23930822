import CBlyanPlugin
import Foundation
import Testing

/// What the plugin writes; that PyTorch and NumPy read it is checked by Tests/Conformance/pickle_roundtrip.py.
@Suite struct PickleLegacyEncodeTests {
    static let sources: [PluginHarness.Source] = [
        .init("gate", rows: 3, columns: 5, (0..<15).map { Float($0) - 7.25 }),
        .init(
            "layer.up", dtype: Int(BLYAN_DTYPE_F16), rows: 2, columns: 3,
            data: (0..<6).flatMap { i in
                withUnsafeBytes(of: Float16(i) / 3) { Array($0) }
            }),
        .init("norm", rows: 1, columns: 4, [1, 2, 3, 4]),
        .init(
            "q", dtype: Int(BLYAN_DTYPE_I8), rows: 2, columns: 4,
            data: [1, 255, 127, 129, 0, 5, 6, 7], scales: [0.5, 2]),
    ]

    @Test(arguments: ["zip", "legacy", "numpy"])
    func readsWhatItWrote(container: String) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let options = "{\"container\": \"\(container)\"}"
        let sink = try plugin.encode(Self.sources, options: options)
        #expect(sink.encoded.covered == UInt64(sink.bytes.count))
        #expect(sink.encoded.leaf_size == 65_536 && sink.encoded.leaf_hashes_offset == 0)
        #expect(try plugin.encode(Self.sources, options: options).bytes == sink.bytes)
        let payload = sink.payload
        let tensors = try plugin.list(payload)
        #expect(tensors.map(\.text) == Self.sources.map(\.name))
        #expect(tensors.map { Int($0.dtype) } == Self.sources.map(\.dtype))
        #expect(tensors.allSatisfy { $0.data_length > 0 })
        #expect(tensors.map { Int($0.quantisation) } == [0, 0, 0, Int(BLYAN_QUANT_ROW_SYMMETRIC)])
        for (tensor, source) in zip(tensors, Self.sources) {
            let range = Int(tensor.data_offset)..<Int(tensor.data_offset + tensor.data_length)
            #expect(Array(sink.bytes[range]) == source.data)
            #expect(container == "legacy" || tensor.data_offset % 64 == 0)
        }
        #expect(try plugin.decode(payload) == (0..<15).map { Float($0) - 7.25 })
        #expect(try plugin.decode(payload, tensor: 3) == [0.5, -0.5, 63.5, -63.5, 0, 10, 12, 14])
        #expect(try plugin.decode(payload, tensor: 3, rows: 1..<2) == [0, 10, 12, 14])
    }

    @Test func theDefaultIsZipAndBrainFloatsAreWritten() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let source = PluginHarness.Source(
            "w", dtype: Int(BLYAN_DTYPE_BF16), rows: 1, columns: 2, data: [0x80, 0x3F, 0x20, 0xC0])
        for options in [
            "", "{}", " { } ", "{\"container\": \"zip\"}", "{\"container\":\"legacy\"}",
        ] {
            let sink = try plugin.encode([source], options: options)
            #expect(try plugin.decode(sink.payload) == [1, -2.5])
            #expect(sink.bytes.starts(with: [0x50, 0x4B]) == !options.contains("legacy"))
        }
        let refusal = #expect(throws: Refusal.self) {
            try plugin.encode([source], options: "{\"container\": \"numpy\"}")
        }
        #expect(refusal?.message == "tensor w: numpy has no bf16")
    }

    @Test(arguments: [
        ("{\"container\": \"tar\"}", Int(BLYAN_E_CONFIG)), ("[]", Int(BLYAN_E_CONFIG)),
        ("{\"quantise\": \"int4\"}", Int(BLYAN_E_CONFIG)),
    ])
    func unknownOptionsAreRefused(options: String, status: Int) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let refusal = #expect(throws: Refusal.self) {
            try plugin.encode(Self.sources, options: options)
        }
        #expect(refusal.map { Int($0.status) } == status)
    }

    @Test func matricesAreQuantisedOnDemand() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let sink = try plugin.encode(Self.sources, options: "{\"quantise\": \"int8\"}")
        let tensors = try plugin.list(sink.payload)
        #expect(tensors.map(\.text) == Self.sources.map(\.name))
        #expect(tensors.map { Int($0.quantisation) } == [1, 1, 0, 1])
        let values = try plugin.decode(sink.payload)
        for (row, largest) in [(0, Float(7.25)), (1, 2.25), (2, 6.75)] {
            for i in row * 5..<row * 5 + 5 {
                #expect(abs(values[i] - (Float(i) - 7.25)) <= largest / 254 * 1.001)
            }
        }
        #expect(
            try plugin.decode(sink.payload, tensor: 3) == [0.5, -0.5, 63.5, -63.5, 0, 10, 12, 14])
        let zeros = try plugin.encode(
            [.init("w", rows: 2, columns: 1, [0, 0])], options: "{\"quantise\": \"int8\"}")
        #expect(try plugin.decode(zeros.payload) == [0, 0])
        for value in [Float.nan, .infinity] {
            #expect(throws: Refusal.self) {
                try plugin.encode(
                    [.init("w", rows: 2, columns: 1, [1, value])],
                    options: "{\"quantise\": \"int8\"}")
            }
        }
    }

    @Test func whatCannotBeWrittenIsRefused() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let bad: [[PluginHarness.Source]] = [
            [], [Self.sources[0], Self.sources[0]],
            [.init("", rows: 1, columns: 1, [1])],
            [.init(String(repeating: "n", count: 128), rows: 1, columns: 1, [1])],
            [.init("w", rows: 1, columns: 2, [1])], [.init("w", rows: 0, columns: 2, [])],
            [.init("w", rows: Int.max, columns: Int.max, [1])],
            [.init("w", dtype: 99, rows: 1, columns: 1, data: [1])],
            [.init("w", dtype: Int(BLYAN_DTYPE_I8), rows: 1, columns: 1, data: [1])],
            [Self.sources[3], .init("q.scale", rows: 1, columns: 1, [1])],
        ]
        for sources in bad {
            let sink = MemorySink()
            #expect(throws: Refusal.self, "\(sources.map(\.name))") {
                try plugin.encode(sources, into: sink)
            }
            #expect(sink.bytes.isEmpty)
        }
    }

    @Test func aFailedWriteIsPassedOn() throws {
        let plugin = try PluginHarness("PickleLegacy")
        for container in ["zip", "legacy", "numpy"] {
            let options = "{\"container\": \"\(container)\"}"
            let writes = try plugin.encode(Self.sources, options: options).writes.count
            for failing in 0..<writes {
                let sink = MemorySink()
                sink.failing = failing
                let refusal = #expect(throws: Refusal.self) {
                    try plugin.encode(Self.sources, options: options, into: sink)
                }
                #expect(refusal.map { Int($0.status) } == Int(BLYAN_E_IO))
            }
        }
    }
}
