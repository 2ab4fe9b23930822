import CBlyanPlugin
import Foundation
import Testing

/// Stored numbers become the right values, and int8 is as near as it can be.
@Suite struct TensorBlockNumbersTests {
    static func one(
        _ dtype: UInt32, rows: Int, columns: Int, layout: UInt32 = 0, quantisation: UInt32 = 0,
        scales: [Float] = [], zeros: [Float] = [], _ data: [UInt8]
    ) -> GuardedPayload {
        GuardedPayload(
            TensorBlockBuilder([
                .init(
                    "a", dtype: dtype, rows: UInt64(rows), columns: UInt64(columns),
                    layout: layout, quantisation: quantisation, scales: scales, zeros: zeros,
                    data: data)
            ]).bytes)
    }

    static func same(_ a: [Float], _ b: [Float]) -> Bool {
        a.count == b.count
            && zip(a, b).allSatisfy { $0.bitPattern == $1.bitPattern || ($0.isNaN && $1.isNaN) }
    }

    static let codes = (0...65_535).flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }

    @Test func everyHalfIsExact() throws {
        let found = try PluginHarness("TensorBlock").decode(
            Self.one(1, rows: 256, columns: 256, Self.codes))
        let expected = (0...65_535).map { Float(Float16(bitPattern: UInt16($0))) }
        #expect(Self.same(found, expected))
    }

    @Test func everyBrainFloatIsExact() throws {
        let found = try PluginHarness("TensorBlock").decode(
            Self.one(4, rows: 256, columns: 256, Self.codes))
        let expected = (0...65_535).map { Float(bitPattern: UInt32($0) << 16) }
        #expect(Self.same(found, expected))
    }

    /// OCP 8-bit floating point, revision 1.0, §5.2: sign, four bits of exponent with bias 7, three of mantissa.
    @Test func everyByteFloatIsExact() throws {
        let found = try PluginHarness("TensorBlock").decode(
            Self.one(3, rows: 1, columns: 256, Array(0...255)))
        let expected = (0...255).map { code -> Float in
            let (exponent, mantissa) = (Double(code >> 3 & 15), Double(code & 7))
            if code & 127 == 127 { return .nan }
            let magnitude =
                exponent == 0 ? mantissa * pow(2, -9) : (8 + mantissa) * pow(2, exponent - 10)
            return Float(code < 128 ? magnitude : -magnitude)
        }
        #expect(Self.same(found, expected))
        #expect(found[0x7E] == 448 && found[0x01] == 0.001953125 && found[0x38] == 1)
    }

    @Test(arguments: [0, 1] as [UInt32], [2, 3] as [UInt32])
    func scalesAndZerosGoByRow(layout: UInt32, dtype: UInt32) throws {
        let plugin = try PluginHarness("TensorBlock")
        let (rows, columns) = (5, 6)
        let codes = (0..<30).map { UInt8($0 * 7) }
        let scales: [Float] = [1, 0.5, 0, 3e-5, 1e30]
        let zeros: [Float] = [0, -3, 4, 0.25, 1]
        // What a code means without scales.
        let plain = try codes.map { code -> Float in
            dtype == 2
                ? Float(Int8(bitPattern: code))
                : try plugin.decode(Self.one(3, rows: 1, columns: 1, [code]))[0]
        }
        let at = { (row: Int, column: Int) in
            layout == 0 ? row * columns + column : column * rows + row
        }
        for (method, zeros) in [(1, [Float](repeating: 0, count: 5)), (2, zeros)] {
            let payload = Self.one(
                dtype, rows: rows, columns: columns, layout: layout, quantisation: UInt32(method),
                scales: scales, zeros: method == 2 ? zeros : [], codes)
            let found = try plugin.decode(payload)
            for row in 0..<rows {
                for column in 0..<columns {
                    let expected = scales[row] * (plain[at(row, column)] - zeros[row])
                    #expect(found[row * columns + column] == expected)
                }
            }
            let tensor = try #require(try plugin.list(payload).first)
            #expect(tensor.scale_offset == 128 && tensor.scale_length == 20)
            #expect(tensor.zero_offset == (method == 2 ? 148 : 0))
            #expect(tensor.zero_length == (method == 2 ? 20 : 0))
        }
    }

    /// A matrix of rows that differ by many orders of magnitude, as f32 of a dtype.
    static func rows(_ code: Int, _ rows: Int, _ columns: Int, seed: UInt64) -> (
        values: [Float], data: [UInt8]
    ) {
        var generator = Seeded(state: seed)
        let exponents: [Float] = [0, -3, 2, -7, 4]
        var values: [Float] = []
        var data: [UInt8] = []
        for row in 0..<rows {
            let size: Float =
                row % 6 == 5 ? 0 : Float(pow(10, Double(exponents[row % exponents.count])))
            for _ in 0..<columns {
                let value = Float.random(in: -1...1, using: &generator) * size
                switch code {
                case 1:
                    let half = Float16(value)
                    values.append(Float(half))
                    data += TensorBlockBuilder.Block.little(half.bitPattern)
                case 4:
                    let brain = UInt16(truncatingIfNeeded: value.bitPattern >> 16)
                    values.append(Float(bitPattern: UInt32(brain) << 16))
                    data += TensorBlockBuilder.Block.little(brain)
                default:
                    values.append(value)
                    data += TensorBlockBuilder.Block.little(value.bitPattern)
                }
            }
        }
        return (values, data)
    }

    @Test(arguments: [1, 4, 5], ["rows", "columns"])
    func int8IsTheNearest(code: Int, layout: String) throws {
        let plugin = try PluginHarness("TensorBlock")
        for (seed, shape) in [(2, 3), (13, 257), (6, 4100)].enumerated() {
            let (rows, columns) = shape
            let (values, data) = Self.rows(code, rows, columns, seed: UInt64(seed))
            let sink = try plugin.encode(
                [.init("a", dtype: code, rows: rows, columns: columns, data: data)],
                options: #"{"quantise": "int8", "layout": "\#(layout)"}"#)
            let tensor = try #require(try plugin.list(sink.payload).first)
            #expect(tensor.dtype == 2 && tensor.quantisation == 1)
            let found = try plugin.decode(sink.payload)
            for row in 0..<rows {
                let line = values[row * columns..<(row + 1) * columns]
                let scale = (line.map(\.magnitude).max() ?? 0) / 127
                let stored = Float(
                    bitPattern: sink.bytes[(128 + row * 4)..<(132 + row * 4)].reversed()
                        .reduce(0) { $0 << 8 | UInt32($1) })
                #expect(stored == scale)
                for (column, value) in line.enumerated() {
                    let at = layout == "rows" ? row * columns + column : column * rows + row
                    let byte = Int8(bitPattern: sink.bytes[Int(tensor.data_offset) + at])
                    let nearest = scale == 0 ? 0 : (value / scale).rounded(.toNearestOrEven)
                    if Float(byte) != nearest || found[row * columns + column] != scale * nearest {
                        Issue.record("row \(row), column \(column): \(byte) for \(value)")
                    }
                    let error = abs(found[row * columns + column] - value)
                    if error > scale * (0.5 + 1e-5) { Issue.record("\(value) is off by \(error)") }
                }
            }
        }
    }

    /// Ties go to the even neighbour; both ends are reached; scales below the normal numbers are 0.
    @Test func theEdgesOfInt8() throws {
        let plugin = try PluginHarness("TensorBlock")
        let tiny = Float.leastNormalMagnitude
        let sink = try plugin.encode(
            [
                .init(
                    "a", rows: 4, columns: 4,
                    [127, 0.5, 1.5, -2.5, -127, 126.5, -126.5, -0.5] + [
                        127 * tiny, -tiny, tiny / 2, 0, 126 * tiny, -tiny, tiny, 0,
                    ])
            ], options: #"{"quantise":"int8"}"#)
        let bytes = sink.bytes[4096..<4112].map { Int8(bitPattern: $0) }
        #expect(bytes == [127, 0, 2, -2, -127, 126, -126, 0, 127, -1, 0, 0, 0, 0, 0, 0])
        #expect(Array(sink.bytes[140..<144]) == [0, 0, 0, 0])
    }

    @Test(arguments: [Float.nan, .infinity, -.infinity], [1, 4, 5])
    func whatIsNotFiniteCannotBeInt8(value: Float, code: Int) throws {
        let plugin = try PluginHarness("TensorBlock")
        var (_, data) = Self.rows(code, 3, 100, seed: 4)
        switch code {
        case 1: data.put(Float16(value).bitPattern, at: 2 * 250)
        case 4: data.put(UInt16(value.bitPattern >> 16), at: 2 * 250)
        default: data.put(value.bitPattern, at: 4 * 250)
        }
        let source = PluginHarness.Source("a", dtype: code, rows: 3, columns: 100, data: data)
        let refusal = #expect(throws: Refusal.self) {
            try plugin.encode([source], options: #"{"quantise":"int8"}"#)
        }
        #expect(refusal?.status == blyan_status(BLYAN_E_UNSUPPORTED))
        #expect(refusal?.message.contains("tensor a: row 2 has a value that is not finite") == true)
        #expect(try plugin.list(plugin.encode([source]).payload).first?.dtype == UInt32(code))
    }
}
