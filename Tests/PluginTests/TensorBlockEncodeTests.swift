import CBlyanPlugin
import Testing

/// What encode does with options, and what it refuses.
@Suite struct TensorBlockEncodeTests {
    static let sources: [PluginHarness.Source] = [
        .init("gate", rows: 2, columns: 3, [1, 2, 3, 4, 5, 6]),
        .init("norm", rows: 1, columns: 3, [1, 2, 3]),
        .init("down", rows: 3, columns: 2, [1, 2, 3, 4, 5, 6]),
        .init(
            "ready", dtype: Int(BLYAN_DTYPE_I8), rows: 2, columns: 3, data: [1, 2, 3, 4, 5, 255],
            scales: [0.5, 0]),
    ]

    @Test(arguments: [
        ("", [5, 5, 5, 2]), ("{}", [5, 5, 5, 2]), (#" { "quantise" : "none" } "#, [5, 5, 5, 2]),
        (#"{"quantise":"int8"}"#, [2, 5, 2, 2]),
        (#"{"quantise":"int8","only":["down"]}"#, [5, 5, 2, 2]),
        (#"{"only":["down","gate"],"quantise":"int8"}"#, [2, 5, 2, 2]),
        (#"{"quantise":"int8","only":[]}"#, [5, 5, 5, 2]),
        (#"{"layout":"rows"}"#, [5, 5, 5, 2]),
    ])
    func optionsChooseWhatIsQuantised(options: String, dtypes: [UInt32]) throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = try plugin.encode(Self.sources, options: options).payload
        #expect(try plugin.list(payload).map(\.dtype) == dtypes)
        // int8 that came with scales is stored as it is.
        #expect(try plugin.decode(payload, tensor: 3) == [0.5, 1, 1.5, 0, 0, 0])
    }

    @Test(arguments: [
        (#"{"quantize":"int8"}"#, #"option "quantize" or its value is not known"#),
        (#"{"quantise":"int4"}"#, #"option "quantise" or its value"#),
        (#"{"quantise":["int8"]}"#, "is not known"), (#"{"layout":"tiles"}"#, "is not known"),
        (#"{"quantise":"int8","quantise":"none"}"#, "stands twice"),
        (#"{"quantise":"int8","only":"gate"}"#, #"option "only" or its value"#),
        (#"{"quantise":"int8","only":["gaet"]}"#, "names gaet, which is no tensor"),
        (#"{"quantise":"int8","only":["norm"]}"#, "names norm, which is int8 already or has one"),
        (#"{"quantise":"int8","only":["ready"]}"#, "names ready, which is int8 already"),
        (#"{"only":["gate"]}"#, #"option "only" needs"#),
        (#"{"quantise":"int8""#, "at byte 18, expected }"), ("[]", "at byte 0, expected {"),
        (#"{"quantise":true}"#, #"at byte 12, expected ""#), (#"{} x"#, "expected the end"),
        (#"{"a\u0062":"x"}"#, "expected one of"), (#"{"a"#, "expected the end of a string"),
    ])
    func otherOptionsAreRefused(options: String, says: String) throws {
        let plugin = try PluginHarness("TensorBlock")
        let refusal = #expect(throws: Refusal.self) {
            try plugin.encode(Self.sources, options: options)
        }
        #expect(refusal?.status == blyan_status(BLYAN_E_CONFIG))
        #expect(refusal?.message.contains(says) == true, "\(refusal?.message ?? "")")
    }

    static let bad: [(PluginHarness.Source, String)] = [
        (.init("a", rows: 2, columns: 3, [1, 2]), "tensor a: 8 bytes are not 2 x 3 of f32"),
        (.init("a", rows: 0, columns: 3, []), "tensor a: a shape of 0 x 3 has no elements"),
        (.init("a", rows: 1 << 40, columns: 1 << 40, [1]), "exceeds"),
        (.init("", rows: 1, columns: 1, [1]), "a name of 0 bytes"),
        (.init("a\n", rows: 1, columns: 1, [1]), "a name with control characters"),
        (.init(String(repeating: "x", count: 128), rows: 1, columns: 1, [1]), "a name of 128"),
        (.init("a", dtype: 3, rows: 1, columns: 1, data: [1]), "dtype code 3 cannot be written"),
        (.init("a", dtype: 9, rows: 1, columns: 1, data: [1]), "dtype code 9 cannot be written"),
        (.init("a", dtype: 2, rows: 1, columns: 1, data: [1]), "0 bytes of scales for 1 rows"),
        (
            .init("a", dtype: 2, rows: 1, columns: 1, data: [1], scales: [1, 2]),
            "8 bytes of scales for 1 rows"
        ),
        (.init("a", dtype: 2, rows: 1, columns: 1, data: [1], scales: [-1]), "row 0 has scale -1"),
        (.init("a", dtype: 2, rows: 1, columns: 1, data: [1], scales: [.nan]), "has scale nan"),
        (
            .init("a", dtype: 5, rows: 1, columns: 1, data: [0, 0, 0, 0], scales: [1]),
            "4 bytes of scales for 1 rows of f32"
        ),
        (.init("gate", rows: 1, columns: 1, [1]), "two tensors are named gate"),
    ]

    @Test(arguments: bad.indices)
    func badSourcesAreRefused(index: Int) throws {
        let plugin = try PluginHarness("TensorBlock")
        let (source, says) = Self.bad[index]
        let sink = MemorySink()
        let refusal = #expect(throws: Refusal.self) {
            try plugin.encode(Self.sources + [source], into: sink)
        }
        #expect(refusal?.message.contains(says) == true, "\(refusal?.message ?? "")")
        #expect(sink.bytes.isEmpty, "nothing is written before all sources are checked")
    }

    @Test func noSourceIsRefused() throws {
        let plugin = try PluginHarness("TensorBlock")
        let refusal = #expect(throws: Refusal.self) { try plugin.encode([]) }
        #expect(refusal?.status == blyan_status(BLYAN_E_LIMIT))
    }

    /// Whichever write fails, the sink's own words come back.
    @Test(arguments: ["{}", #"{"quantise":"int8"}"#, #"{"layout":"columns"}"#])
    func aFullDiskIsReported(options: String) throws {
        let plugin = try PluginHarness("TensorBlock")
        let count = try plugin.encode(Self.sources, options: options).writes.count
        #expect(count > 8)
        for failing in 0..<count {
            let sink = MemorySink()
            sink.failing = failing
            let refusal = #expect(throws: Refusal.self) {
                try plugin.encode(Self.sources, options: options, into: sink)
            }
            #expect(refusal?.status == blyan_status(BLYAN_E_IO))
            #expect(refusal?.message == "the disk is full")
            #expect(sink.writes.count == failing)
        }
    }
}
