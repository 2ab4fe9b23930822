import CBlyanPlugin
import Foundation
import Testing

/// One vector or more for every rule of FORMAT.md's "What a reader refuses".
@Suite struct TensorBlockRefusalTests {
    struct Vector: Sendable, CustomTestStringConvertible {
        let rule: Int
        let status: Int
        let says: String
        let payload: @Sendable () -> [UInt8]
        var testDescription: String { "R\(rule): \(says)" }

        init(
            _ rule: Int, _ status: some BinaryInteger, _ says: String,
            _ change: @escaping @Sendable (inout [UInt8]) -> Void
        ) {
            (self.rule, self.status, self.says) = (rule, Int(status), says)
            payload = {
                var bytes = TensorBlockBuilder().bytes
                change(&bytes)
                return bytes
            }
        }

        init(
            _ rule: Int, _ status: some BinaryInteger, _ says: String,
            of builder: @escaping @Sendable () -> TensorBlockBuilder
        ) {
            (self.rule, self.status, self.says) = (rule, Int(status), says)
            payload = { builder().bytes }
        }
    }

    static let malformed = Int(BLYAN_E_MALFORMED), unsupported = Int(BLYAN_E_UNSUPPORTED)
    static let limit = Int(BLYAN_E_LIMIT)
    /// In the plain payload: two blocks of two pages, the second header, the directory, the index.
    static let second = 8192, directory = 16_384, index = 16_384 + 16 + 24 + 22

    static let vectors: [Vector] = [
        Vector(1, malformed, "the first header at 0 with 128 bytes leaves the payload of 100") {
            $0 = Array($0[..<100])
        },
        Vector(1, malformed, "the first header at 0 with 128 bytes leaves the payload of 0") {
            $0 = []
        },
        Vector(1, malformed, "the Merkle index at 16446 with 64 bytes leaves the payload") {
            $0 = Array($0[..<(index + 63)])
        },
        Vector(1, malformed, "the Merkle index at 18446744073709551615") {
            $0.put(UInt64.max, at: 56)
        },
        Vector(1, malformed, "lies outside the covered bytes") {
            $0.put(UInt64.max, at: index + 56)
        },
        Vector(2, malformed, "the first block: the magic is not TBLOCK01") { $0[3] = 0 },
        Vector(2, malformed, "block up: the magic is not TBLOCK01") { $0[second] = 0x74 },
        Vector(3, unsupported, "block up: version 2, this plugin reads version 1") {
            $0.put(UInt32(2), at: second + 8)
        },
        Vector(3, unsupported, "version 0") { $0.put(UInt32(0), at: 8) },
        Vector(4, unsupported, "block up: dtype code 6") { $0.put(UInt32(6), at: second + 12) },
        Vector(4, unsupported, "dtype code 0") { $0.put(UInt32(0), at: 12) },
        Vector(5, unsupported, "block up: layout code 2") { $0.put(UInt32(2), at: second + 32) },
        Vector(6, unsupported, "block up: quantisation code 3") {
            $0.put(UInt32(3), at: second + 36)
        },
        Vector(7, malformed, "block up: reserved bytes are not zero") { $0[second + 127] = 1 },
        Vector(7, malformed, "the first block: reserved bytes are not zero") { $0[64] = 1 },
        Vector(7, malformed, "does not begin with TBDIRECT") { $0[directory + 12] = 1 },
        Vector(8, malformed, "block up: a shape of 0 x 4 has no elements") {
            $0.put(UInt64(0), at: second + 16)
        },
        Vector(8, malformed, "a shape of 3 x 0 has no elements") { $0.put(UInt64(0), at: 24) },
        Vector(9, limit, "block up: a shape of 4611686018427387904 x 4 exceeds") {
            $0.put(UInt64(1) << 62, at: second + 16)
        },
        Vector(9, limit, "a shape of 18446744073709551615 x 18446744073709551615 exceeds") {
            $0.put(UInt64.max, at: 16)
            $0.put(UInt64.max, at: 24)
        },
        Vector(10, malformed, "int8 without scales") { $0.put(UInt32(2), at: second + 12) },
        Vector(10, malformed, "scales on dtype f32") { $0.put(UInt32(1), at: second + 36) },
        Vector(11, malformed, "block up: scales at 128, expected 0") {
            $0.put(UInt64(128), at: second + 40)
        },
        Vector(11, malformed, "block up: data at 4097, expected 4096") {
            $0.put(UInt64(4097), at: second + 48)
        },
        Vector(11, malformed, "data at 18446744073709547520, expected 4096") {
            $0.put(UInt64.max - 4095, at: 48)
        },
        Vector(12, malformed, "block up has its index 8255 bytes on, expected 8254") {
            $0.put(UInt64(8255), at: second + 56)
        },
        Vector(13, unsupported, "leaves of 4096 bytes, expected 65536") {
            $0.put(UInt64(4096), at: index + 32)
        },
        Vector(13, unsupported, "leaves of 0 bytes") { $0.put(UInt64(0), at: index + 32) },
        Vector(14, malformed, "has 2 leaves for 16446 bytes") { $0.put(UInt64(2), at: index + 40) },
        Vector(14, malformed, "the Merkle index at 16446 covers 16445 bytes") {
            $0.put(UInt64(16_445), at: index + 48)
        },
        Vector(14, malformed, "does not end with the hashes of its 1 leaves") { $0.append(0) },
        Vector(14, malformed, "does not end with the hashes of its 1 leaves") { $0.removeLast() },
        Vector(15, malformed, "does not begin with TBDIRECT") { $0[directory] = 0 },
        Vector(15, malformed, "22 bytes follow the directory's last entry") { bytes in
            // One entry fewer, and the second block grown into by the first one's header.
            var builder = TensorBlockBuilder([.init("gate")])
            builder.blocks[0].name = Array("gate".utf8)
            var covered = Array(builder.bytes[..<builder.covered])
            covered += [UInt8](repeating: 0, count: 22)
            covered.put(UInt64(covered.count), at: 56)
            bytes = TensorBlockBuilder.sealed(covered, directory: builder.directoryOffset)
        },
        Vector(15, malformed, "directory entry 1 is cut short") { bytes in
            let builder = TensorBlockBuilder([.init("gate")])
            var covered = Array(builder.bytes[..<builder.covered])
            covered.put(UInt32(2), at: builder.directoryOffset + 8)
            bytes = TensorBlockBuilder.sealed(covered, directory: builder.directoryOffset)
        },
        Vector(15, malformed, "directory entry 1 is cut short") {
            $0.put(UInt32(3), at: directory + 16 + 24 + 16)
        },
        Vector(16, limit, "a directory of 0 blocks") { $0.put(UInt32(0), at: directory + 8) },
        Vector(16, limit, "a directory of 65537 blocks") {
            $0.put(UInt32(65_537), at: directory + 8)
        },
        Vector(16, limit, "a directory of 17825814 bytes exceeds 16777216") { bytes in
            var covered = TensorBlockBuilder([.init("gate")]).bytes[..<8192]
            covered += [UInt8](repeating: 0, count: 17_825_814)
            var out = Array(covered)
            out.put(UInt64(out.count), at: 56)
            bytes = TensorBlockBuilder.sealed(out, directory: 8192)
        },
        Vector(17, malformed, "directory entry 1 has a name of 0 bytes") {
            $0.put(UInt32(0), at: directory + 16 + 24 + 16)
        },
        Vector(
            17, malformed, "has a name of 128 bytes",
            of: {
                TensorBlockBuilder([.init(String(repeating: "x", count: 128))])
            }),
        Vector(17, malformed, "has a name of 4294967295 bytes") {
            $0.put(UInt32.max, at: directory + 16 + 16)
        },
        Vector(17, malformed, "a name that is not UTF-8") { $0[directory + 16 + 20] = 0xFF },
        Vector(17, malformed, "a name with control characters") { $0[directory + 16 + 21] = 0 },
        Vector(
            17, malformed, "two blocks are named gate",
            of: {
                TensorBlockBuilder([.init("gate"), .init("gate")])
            }),
        Vector(18, malformed, "block up lies at 4096 with 8192 bytes, expected at 8192") {
            $0.put(UInt64(4096), at: directory + 16 + 24)
        },
        Vector(18, malformed, "block gate lies at 0 with 18446744073709551615 bytes") {
            $0.put(UInt64.max, at: directory + 16 + 8)
        },
        Vector(18, malformed, "block gate has 4096 bytes, its header gives 8192") {
            $0.put(UInt64(4096), at: directory + 16 + 8)
        },
        Vector(18, malformed, "block gate has 8192 bytes, its header gives 20480") {
            $0.put(UInt64(1000), at: 16)
        },
        Vector(18, malformed, "the blocks end at 8192, the directory begins at 12288") { bytes in
            let builder = TensorBlockBuilder([.init("gate")])
            var covered = Array(builder.bytes[..<8192]) + [UInt8](repeating: 0, count: 4096)
            covered += builder.bytes[8192..<builder.covered]
            covered.put(UInt64(covered.count), at: 56)
            bytes = TensorBlockBuilder.sealed(covered, directory: 12_288)
        },
    ]

    @Test(arguments: vectors)
    func isRefusedByName(vector: Vector) throws {
        let plugin = try PluginHarness("TensorBlock")
        // Untouched, the payload is read: what is refused is the change.
        #expect(try plugin.list(GuardedPayload(TensorBlockBuilder().bytes)).count == 2)
        let refusal = #expect(throws: Refusal.self) {
            try plugin.list(GuardedPayload(vector.payload()))
        }
        #expect(refusal.map { Int($0.status) } == vector.status)
        #expect(refusal?.message.contains(vector.says) == true, "\(refusal?.message ?? "")")
        #expect(throws: Refusal.self) { try plugin.decode(GuardedPayload(vector.payload())) }
    }

    static let badScales: [(rule: Int, scale: Float, zero: Float)] = [
        (19, -1, 0), (19, -0.0, 0), (19, .infinity, 0), (19, .nan, 0), (20, 1, .infinity),
        (20, 1, .nan),
    ]

    @Test(arguments: badScales)
    func badScalesAreRefusedWhereTheyAreUsed(rule: Int, scale: Float, zero: Float) throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = GuardedPayload(
            TensorBlockBuilder([
                .init(
                    "gate", dtype: 2, rows: 3, columns: 2, quantisation: 2,
                    scales: [1, scale, 1], zeros: [0, zero, 0], data: [1, 2, 3, 4, 5, 6])
            ]).bytes)
        #expect(try plugin.list(payload).count == 1)
        #expect(try plugin.decode(payload, rows: 2..<3) == [5, 6])
        let refusal = #expect(throws: Refusal.self) { try plugin.decode(payload, rows: 0..<2) }
        #expect(refusal.map { Int($0.status) } == Self.malformed)
        #expect(refusal?.message.contains("block gate: row 1 has scale") == true)
    }

    @Test func everyRuleHasAVector() throws {
        let page = try String(contentsOf: TensorBlockTests.page, encoding: .utf8)
        let rules = page.matches(of: /(?m)^\| R(\d+) \|/).compactMap { Int($0.output.1) }
        #expect(rules == Array(1...20))
        #expect(Set(rules) == Set(Self.vectors.map(\.rule) + Self.badScales.map(\.rule)))
    }

    @Test(arguments: [0, 8200, 16_390, 16_450] as [UInt64])
    func theHostsFailureIsPassedOn(byte: UInt64) throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = GuardedPayload(TensorBlockBuilder().bytes)
        payload.damaged = byte
        let refusal = #expect(throws: Refusal.self) { try plugin.list(payload) }
        #expect(refusal?.status == blyan_status(BLYAN_E_INTEGRITY))
        #expect(refusal?.message == "byte \(byte) is damaged")
    }

    /// The host gives a size that its bytes do not have: the read fails, nothing else does.
    @Test(arguments: [1, 4096, 1 << 40] as [UInt64])
    func aPayloadShorterThanItsSizeIsRefused(missing: UInt64) throws {
        let plugin = try PluginHarness("TensorBlock")
        let payload = GuardedPayload(TensorBlockBuilder().bytes)
        payload.size += missing
        #expect(throws: Refusal.self) { try plugin.list(payload) }
    }
}
