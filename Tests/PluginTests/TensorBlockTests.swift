import BlyanKernel
import CBlyanPlugin
import Foundation
import Testing

/// What the tensorblock format writes, byte for byte, and reads back.
@Suite struct TensorBlockTests {
    /// The format's page.
    static var page: URL {
        Bench.root.appendingPathComponent("Plugins/Formats/TensorBlock/FORMAT.md")
    }

    /// Random bytes, the same for the same seed.
    static func random(_ count: Int, seed: UInt64) -> [UInt8] {
        var generator = Seeded(state: seed)
        return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    }

    @Test func checksItself() throws {
        try PluginHarness("TensorBlock").selfTest()
    }

    @Test(
        arguments: [(1, 2), (4, 2), (5, 4)],
        [(1, 1), (1, 5000), (5000, 1), (3, 7), (17, 129), (64, 1024)])
    func keptNumbersLieThereBitForBit(type: (code: Int, width: Int), shape: (Int, Int)) throws {
        let plugin = try PluginHarness("TensorBlock")
        let (rows, columns) = shape
        let data = Self.random(rows * columns * type.width, seed: UInt64(rows * 31 + columns))
        let source = PluginHarness.Source(
            "a", dtype: type.code, rows: rows, columns: columns, data: data)
        let sink = try plugin.encode([source])
        let expected = TensorBlockBuilder([
            .init(
                "a", dtype: UInt32(type.code), rows: UInt64(rows), columns: UInt64(columns),
                data: data)
        ])
        #expect(sink.bytes == expected.bytes)
        #expect(sink.writes.contains(data.count), "the data are one write")
        #expect(sink.encoded.covered == UInt64(expected.covered))
        #expect(sink.encoded.leaf_size == 65_536)
        #expect(sink.encoded.leaf_hashes_offset == UInt64(expected.covered + 64))
        let tensor = try #require(try plugin.list(sink.payload).first)
        #expect(tensor.data_offset == 4096 && tensor.data_length == UInt64(data.count))
        #expect(tensor.row_stride == UInt64(columns * type.width))
        #expect(tensor.rows == UInt64(rows) && tensor.columns == UInt64(columns))
    }

    @Test(arguments: [(1, 2), (4, 2), (5, 4)], [(1, 9), (9, 1), (5, 7), (300, 2), (40_000, 7)])
    func columnsAreTheTransposedRows(type: (code: Int, width: Int), shape: (Int, Int)) throws {
        let plugin = try PluginHarness("TensorBlock")
        let ((rows, columns), width) = (shape, type.width)
        let data = Self.random(rows * columns * width, seed: 5)
        let source = PluginHarness.Source(
            "a", dtype: type.code, rows: rows, columns: columns, data: data)
        let sink = try plugin.encode([source], options: #"{"layout":"columns"}"#)
        var transposed = [UInt8](repeating: 0, count: data.count)
        for row in 0..<rows {
            for column in 0..<columns {
                for byte in 0..<width {
                    transposed[(column * rows + row) * width + byte] =
                        data[(row * columns + column) * width + byte]
                }
            }
        }
        #expect(Array(sink.bytes[4096..<4096 + data.count]) == transposed)
        let tensor = try #require(try plugin.list(sink.payload).first)
        #expect(tensor.layout == (rows > 1 ? 1 : 0))
        #expect(tensor.row_stride == UInt64((rows > 1 ? rows : columns) * width))
        let kept = try plugin.decode(plugin.encode([source]).payload)
        let found = try plugin.decode(sink.payload)
        #expect(found.map(\.bitPattern) == kept.map(\.bitPattern))
    }

    @Test func anExpertIsThreeBlocksInOrder() throws {
        let plugin = try PluginHarness("TensorBlock")
        let sources = [("gate", 6, 4), ("up", 6, 4), ("down", 4, 6)].map {
            PluginHarness.Source(
                $0.0, dtype: 4, rows: $0.1, columns: $0.2,
                data: Self.random($0.1 * $0.2 * 2, seed: 9))
        }
        let sink = try plugin.encode(sources)
        let expected = TensorBlockBuilder(
            sources.map {
                .init(
                    $0.name, dtype: 4, rows: UInt64($0.rows), columns: UInt64($0.columns),
                    data: $0.data)
            })
        #expect(sink.bytes == expected.bytes)
        #expect(try plugin.list(sink.payload).map(\.text) == ["gate", "up", "down"])
        // A changed byte of the format, or of the quantiser, changes these: a deliberate new version only.
        #expect(
            SHA256.hash(sink.bytes).description
                == "25a32be55b5941035128795ba27fc17ef3ee3c2be05a722d1e8abbc5f3f3da38")
        let small = try plugin.encode(sources, options: #"{"quantise":"int8"}"#)
        #expect(
            SHA256.hash(small.bytes).description
                == "5f79941183c36025e6af62910657628b0aa2c8b6df625aa7d7aeb2803db985aa")
    }

    /// The hex in FORMAT.md is what the plugin writes.
    @Test func thePageShowsTheTruth() throws {
        let sink = try PluginHarness("TensorBlock").encode([
            .init("norm", rows: 1, columns: 2, [1, -2])
        ])
        var lines: [String] = []
        for start in stride(from: 0, to: sink.bytes.count, by: 16) {
            let line = sink.bytes[start..<min(start + 16, sink.bytes.count)]
            guard line.contains(where: { $0 != 0 }) else { continue }
            let hex = line.map { String(format: "%02x", $0) }.joined(separator: " ")
            let text = line.map { (32..<127).contains($0) ? String(UnicodeScalar($0)) : "." }
            lines.append(
                String(format: "    %06x  ", start)
                    + hex.padding(toLength: 47, withPad: " ", startingAt: 0) + "  " + text.joined())
        }
        let page = try String(contentsOf: Self.page, encoding: .utf8)
        let example = page.components(separatedBy: "<!-- example begins -->\n\n").last?
            .components(separatedBy: "\n\n<!-- example ends -->").first
        #expect(example == lines.joined(separator: "\n"))
    }

    /// Opening an expert touches the first leaf of each block and what follows the blocks: no data.
    @Test func describeReadsNoData() throws {
        let plugin = try PluginHarness("TensorBlock")
        let sources = ["gate", "up", "down"].map {
            PluginHarness.Source(
                $0, dtype: 1, rows: 512, columns: 512, data: Self.random(524_288, seed: 3))
        }
        let payload = try plugin.encode(sources).payload
        let tensors = try plugin.list(payload)
        let directory = UInt64(3 * (4096 + 524_288))
        for range in payload.reads {
            let isHeader = tensors.contains { $0.data_offset - 4096 == range.lowerBound }
            #expect((isHeader && range.count == 128) || range.lowerBound >= directory, "\(range)")
        }
        #expect(payload.reads.reduce(0) { $0 + $1.count } < 1024)
    }

    @Test func moreBlocksThanTheCallersArray() throws {
        let plugin = try PluginHarness("TensorBlock")
        let sources = (0..<200).map {
            PluginHarness.Source("layer.\($0)", rows: 1, columns: 1, [Float($0)])
        }
        let payload = try plugin.encode(sources).payload
        #expect(try plugin.list(payload, capacity: 3).map(\.text) == sources.map(\.name))
        #expect(try plugin.decode(payload, tensor: 150) == [150])
    }

    /// A whole range, no row, one row, rows in the middle; outside is refused.
    @Test(arguments: ["rows", "columns"])
    func anyRowRangeIsDecoded(layout: String) throws {
        let plugin = try PluginHarness("TensorBlock")
        let values = (0..<35).map { Float($0) * -0.37 }
        let payload = try plugin.encode(
            [.init("gate", rows: 5, columns: 7, values)], options: #"{"layout":"\#(layout)"}"#
        ).payload
        for begin in 0...5 {
            for end in begin...5 {
                let found = try plugin.decode(payload, rows: UInt64(begin)..<UInt64(end))
                #expect(found == Array(values[begin * 7..<end * 7]))
            }
        }
        let refusal = #expect(throws: Refusal.self) { try plugin.decode(payload, rows: 4..<6) }
        #expect(refusal?.status == blyan_status(BLYAN_E_ARGUMENT))
    }
}
