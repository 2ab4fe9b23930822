import CBlyanPlugin
import Foundation
import Testing

/// What PyTorch and NumPy wrote is read to the last bit; see Tests/Conformance/make_pickles.py.
@Suite struct PickleLegacyTests {
    struct Expected: Decodable {
        let name: String, rows: UInt64, columns: UInt64, values: [Float]
    }

    static let folder = Bench.root.appendingPathComponent("Tests/Fixtures/pickles")
    static let expected: [String: [Expected]] = {
        guard let data = try? Data(contentsOf: folder.appendingPathComponent("expected.json")),
            let index = try? JSONDecoder().decode([String: [Expected]].self, from: data)
        else { return [:] }
        return index
    }()

    static func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: folder.appendingPathComponent(name)))
    }

    @Test func thereAreFixtures() throws {
        #expect(Self.expected.count == 32)
        #expect(try Self.bytes("expert.zip.pt").count > 1000)
    }

    @Test(arguments: expected.keys.sorted())
    func readsWhatOthersWrote(file: String) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let bytes = try Self.bytes(file)
        let payload = GuardedPayload(bytes)
        let wanted = try #require(Self.expected[file])
        let tensors = try plugin.list(payload)
        #expect(tensors.map(\.text) == wanted.map(\.name))
        for (i, want) in wanted.enumerated() where i < tensors.count {
            let tensor = tensors[i]
            #expect(tensor.rows == want.rows && tensor.columns == want.columns, "\(want.name)")
            #expect(try plugin.decode(payload, tensor: i) == want.values, "\(want.name)")
            let half = want.rows / 2
            let rest = try plugin.decode(payload, tensor: i, rows: half..<want.rows)
            #expect(rest == Array(want.values.dropFirst(Int(half * want.columns))), "\(want.name)")
            #expect(try plugin.decode(payload, tensor: i, rows: 0..<0).isEmpty)
            if tensor.data_length > 0 {
                #expect(Self.values(tensor, bytes) == want.values, "\(want.name) in place")
            }
        }
    }

    /// The values of a tensor that is used where it lies.
    static func values(_ tensor: blyan_tensor, _ bytes: [UInt8]) -> [Float] {
        let range = Int(tensor.data_offset)..<Int(tensor.data_offset + tensor.data_length)
        return bytes[range].withUnsafeBytes { raw in
            let count = Int(tensor.rows * tensor.columns)
            return (0..<count).map { i in
                switch Int(tensor.dtype) {
                case Int(BLYAN_DTYPE_F16):
                    Float(raw.loadUnaligned(fromByteOffset: 2 * i, as: Float16.self))
                case Int(BLYAN_DTYPE_BF16):
                    Float(
                        bitPattern: UInt32(
                            raw.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self)) << 16)
                case Int(BLYAN_DTYPE_I8): Float(Int8(bitPattern: raw[i]))
                default: raw.loadUnaligned(fromByteOffset: 4 * i, as: Float.self)
                }
            }
        }
    }

    @Test(arguments: ["expert.zip.pt", "half.zip.pt"])
    func expertsLieInPlace(file: String) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let payload = GuardedPayload(try Self.bytes(file))
        let tensors = try plugin.list(payload)
        #expect(tensors.map(\.text) == ["gate", "up", "down"])
        #expect(tensors.allSatisfy { $0.data_offset % 64 == 0 && $0.data_length > 0 })
        #expect(tensors.allSatisfy { Int($0.quantisation) == Int(BLYAN_QUANT_NONE) })
    }

    /// Listing touches the zip headers and the pickle, and no byte of a large storage.
    @Test func listingReadsNoData() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let values = (0..<300_000).map { Float($0 % 1000) }
        for container in ["zip", "legacy", "numpy"] {
            let sink = try plugin.encode(
                [.init("gate", rows: 300, columns: 1000, values)],
                options: "{\"container\": \"\(container)\"}")
            let payload = sink.payload
            let tensors = try plugin.list(payload)
            let start = tensors[0].data_offset + 4096
            let end = tensors[0].data_offset + tensors[0].data_length
            #expect(!payload.reads.contains { $0.overlaps(start..<end) }, "\(container)")
            #expect(try plugin.decode(payload) == values)
        }
    }

    @Test func aDamagedStorageIsRefusedWhenItIsDecoded() throws {
        let plugin = try PluginHarness("PickleLegacy")
        var bytes = try Self.bytes("expert.zip.pt")
        let tensors = try plugin.list(GuardedPayload(bytes))
        bytes[Int(tensors[1].data_offset) + 5] ^= 1
        let payload = GuardedPayload(bytes)
        #expect(throws: Never.self) { try plugin.decode(payload, tensor: 0) }
        let refusal = #expect(throws: Refusal.self) { try plugin.decode(payload, tensor: 1) }
        #expect(
            refusal?.message == "tensor up: its storage does not have the CRC-32 of its zip entry")
        #expect(refusal.map { Int($0.status) } == Int(BLYAN_E_MALFORMED))
    }

    @Test func aFailedReadIsPassedOn() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let payload = GuardedPayload(try Self.bytes("expert.legacy.pt"))
        payload.damaged = 40
        let refusal = #expect(throws: Refusal.self) { try plugin.list(payload) }
        #expect(refusal.map { Int($0.status) } == Int(BLYAN_E_INTEGRITY))
    }

    @Test func testsItself() throws {
        try PluginHarness("PickleLegacy").selfTest()
    }
}
