import CBlyanPlugin
import Foundation
import Testing

/// Damaged fixtures: refused with a sentence or read as data, and never a byte outside of the payload.
@Suite struct PickleLegacyFuzzTests {
    static let files = [
        "expert.zip.pt", "half.legacy.pt", "views.2.pkl", "checkpoint.zip.pt", "alone.4.pkl",
        "types.legacy.pt",
        "arrays.2.pkl", "arrays.4.pkl", "arrays.5.pkl",
    ]
    static let statuses: Set<Int> = [
        Int(BLYAN_E_MALFORMED), Int(BLYAN_E_UNSUPPORTED), Int(BLYAN_E_LIMIT),
    ]

    /// SplitMix64.
    struct Random {
        var state: UInt64
        mutating func next(_ bound: Int) -> Int {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
            return Int((z ^ z >> 31) % UInt64(bound))
        }
    }

    /// Lists and decodes; true if the payload was read.
    static func survive(_ plugin: PluginHarness, _ bytes: [UInt8], _ label: String) throws -> Bool {
        let payload = GuardedPayload(bytes)
        defer {
            #expect(!payload.reads.contains { $0.upperBound == .max }, "\(label): read outside")
        }
        do {
            for (i, tensor) in try plugin.list(payload).enumerated() {
                let (end, overflow) = tensor.data_offset.addingReportingOverflow(tensor.data_length)
                #expect(!overflow && end <= UInt64(bytes.count), "\(label): \(tensor.text)")
                #expect(tensor.rows > 0 && tensor.columns > 0, "\(label): \(tensor.text)")
                let (count, large) = tensor.rows.multipliedReportingOverflow(by: tensor.columns)
                guard !large, count < 1 << 20 else { continue }
                _ = try plugin.decode(payload, tensor: i)
            }
            return true
        } catch let refusal as Refusal {
            #expect(statuses.contains(Int(refusal.status)), "\(label): \(refusal)")
            #expect(!refusal.message.isEmpty, "\(label)")
            return false
        }
    }

    @Test(arguments: files)
    func isRefusedWhereverItIsCut(file: String) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let bytes = try PickleLegacyTests.bytes(file)
        // Every length in the first and last 400 bytes, where the structure is, and some between.
        for length in 0..<bytes.count
        where length < 400 || length > bytes.count - 400 || length % 29 == 0 {
            let isRead = try Self.survive(
                plugin, Array(bytes[..<length]), "\(file) cut at \(length)")
            #expect(!isRead, "\(file) cut at \(length)")
        }
    }

    @Test(arguments: files, [1, 2] as [UInt64])
    func survivesDamage(file: String, seed: UInt64) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let sound = try PickleLegacyTests.bytes(file)
        var random = Random(state: seed &* 7919 &+ UInt64(sound.count))
        let interesting: [UInt8] = [
            0, 1, 0x28, 0x2E, 0x52, 0x62, 0x71, 0x7F, 0x80, 0x8D, 0x93, 0xFF,
        ]
        for round in 0..<200 {
            var bytes = sound
            for _ in 0...random.next(3) {
                let at = random.next(bytes.count)
                switch random.next(5) {
                case 0: bytes[at] ^= 1 << UInt8(random.next(8))
                case 1: bytes[at] = interesting[random.next(interesting.count)]
                case 2: bytes.remove(at: at)
                case 3: bytes.insert(UInt8(random.next(256)), at: at)
                default:
                    let from = random.next(bytes.count), count = random.next(12)
                    let part = Array(bytes[from..<min(bytes.count, from + count)])
                    bytes.replaceSubrange(at..<min(bytes.count, at + part.count), with: part)
                }
            }
            _ = try Self.survive(plugin, bytes, "\(file), seed \(seed), round \(round)")
        }
    }
}
