import CBlyanPlugin
import Foundation
import Testing

/// Zip archives that two readers would understand differently.
@Suite struct PickleLegacyZipTests {
    typealias Entry = ZipAssembly.Entry

    struct Lie: CustomTestStringConvertible {
        let name: String, says: String
        let tell: @Sendable (inout ZipAssembly) -> Void
        var testDescription: String { name }

        init(
            _ name: String, _ says: String, _ tell: @escaping @Sendable (inout ZipAssembly) -> Void
        ) {
            (self.name, self.says, self.tell) = (name, says, tell)
        }
    }

    @Test func theSoundOneIsRead() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let payload = GuardedPayload(ZipAssembly.sound.bytes())
        #expect(try plugin.list(payload).map(\.text) == ["w"])
        #expect(try plugin.decode(payload) == [1, 2, 3, 4, 5, 6])
    }

    static func large(_ values: UInt64...) -> [UInt8] {
        [1, 0] + PickleAssembly.little(UInt64(8 * values.count), 2)
            + values.flatMap { PickleAssembly.little($0, 8) }
    }

    static func record(
        _ count: UInt64, _ offset: UInt64, _ size: UInt64, at place: UInt64? = nil
    ) -> [UInt8] {
        func little(_ value: UInt64, _ width: Int) -> [UInt8] {
            PickleAssembly.little(value, width)
        }
        return [0x50, 0x4B, 6, 6] + little(44, 8) + little(0, 4) + little(0, 8) + little(count, 8)
            + little(count, 8) + little(size, 8) + little(offset, 8) + [0x50, 0x4B, 6, 7]
            + little(0, 4) + little(place ?? offset + size, 8) + little(1, 4)
    }

    @Test func zip64IsRead() throws {
        let plugin = try PluginHarness("PickleLegacy")
        var zip = ZipAssembly.sound
        zip.zip64 = { Self.record($0, $1, $2) }
        zip.directoryOffset = 0xFFFF_FFFF
        zip.entries[2].centralSize = 0xFFFF_FFFF
        zip.entries[2].centralExtra = Self.large(24, 24)
        zip.entries[2].localSize = 0xFFFF_FFFF
        zip.entries[2].localExtra = Self.large(24, 24)
        #expect(try plugin.decode(GuardedPayload(zip.bytes())) == [1, 2, 3, 4, 5, 6])
    }

    static let lies: [Lie] = [
        Lie("a lying local size", "another size or CRC-32") { $0.entries[2].localSize = 23 },
        Lie("a lying local CRC-32", "another size or CRC-32") { $0.entries[2].localChecksum = 1 },
        Lie("another local name", "another name") { $0.entries[2].localName = "archive/data/1" },
        Lie("other local flags", "other flags or compression") { $0.entries[2].localFlags = 8 },
        Lie("another local method", "other flags or compression") { $0.entries[2].localMethod = 8 },
        Lie("sizes that do not follow", "sizes after its data differ") {
            $0.entries[2].flags = 8
            $0.entries[2].gap = [UInt8](repeating: 0, count: 16)
        },
        Lie("a lying central size", "another size or CRC-32") { $0.entries[2].centralSize = 20 },
        Lie("a lying central CRC-32", "another size or CRC-32") {
            $0.entries[0].centralChecksum = 1
        },
        Lie("a wrong CRC-32 of the pickle", "zip entry archive/data.pkl does not have the CRC-32") {
            $0.entries[0].centralChecksum = 1
            $0.entries[0].localChecksum = 1
        },
        Lie("compression", "compression 8, only stored") { $0.entries[2].method = 8 },
        Lie("encryption", "flag bits 1, such as encryption") { $0.entries[2].flags = 1 },
        Lie("packed and unpacked differ", "bytes stored of 24") {
            $0.entries[2].centralPacked = 20
        },
        Lie("an entry twice", "archive/data/0 stands twice") { $0.entries.append($0.entries[2]) },
        Lie("entries on top of each other", "entries overlap or leave gaps") {
            $0.entries[3].centralOffset = 0
        },
        Lie("a gap", "entries overlap or leave gaps") { $0.entries[1].gap = [0] },
        Lie("bytes before", "entries overlap or leave gaps") {
            $0.before = Array("PK\u{3}\u{4}".utf8)
        },
        Lie("bytes after the last entry", "bytes between the zip entries") {
            $0.entries[3].gap = [0]
        },
        Lie("a comment at the end", "its end is not at the end") { $0.comment = [1, 2, 3] },
        Lie("a comment of an entry", "it has a comment") { $0.entries[3].comment = [1] },
        Lie("fewer entries counted", "entries and their directory") { $0.count = 3 },
        Lie("more entries counted", "more are needed") { $0.count = 5 },
        Lie("a directory elsewhere", "does not end at") { $0.directoryOffset = 7 },
        Lie("a shorter directory", "does not end at") { $0.directorySize = 100 },
        Lie("no data.pkl", "has no data.pkl") { $0.entries.remove(at: 0) },
        Lie("two folders", "lies outside of folder archive") {
            $0.entries[3].name = "other/version"
        },
        Lie("no folder", "lies in no folder") { $0.entries[0].name = "data.pkl" },
        Lie("TorchScript", "archive/constants.pkl is not of a state") {
            $0.entries.append(Entry("archive/constants.pkl", [1]))
        },
        Lie("big-endian", "archive/byteorder says big-endian") {
            $0.entries[1].data = Array("big".utf8)
        },
        Lie("big-endian in six letters", "archive/byteorder says big-endian") {
            $0.entries[1].data = Array("bigger".utf8)
        },
        Lie("a zip64 field that is not needed", "its zip64 field holds more") {
            $0.entries[2].centralExtra = Self.large(24)
        },
        Lie("a zip64 field that is missing", "its zip64 field lacks") {
            $0.entries[2].centralSize = 0xFFFF_FFFF
        },
        Lie("a zip64 size of exabytes", "another size or CRC-32") {
            $0.entries[2].centralSize = 0xFFFF_FFFF
            $0.entries[2].centralExtra = Self.large(1 << 62, 1 << 62)
        },
        Lie("two zip64 fields", "stands twice") {
            $0.entries[2].centralSize = 0xFFFF_FFFF
            $0.entries[2].centralExtra = Self.large(24) + Self.large(24)
        },
        Lie("a lying local zip64 field", "something else than the directory") {
            $0.entries[2].localExtra = Self.large(25, 25)
        },
        Lie("an extra field that is cut short", "is cut short") {
            $0.entries[2].centralExtra = [9, 9, 40, 0, 1]
        },
        Lie("a zip64 record that disagrees", "disagree") {
            $0.zip64 = { Self.record($0 + 1, $1, $2) }
        },
        Lie("a zip64 record elsewhere", "does not lead to the record") {
            $0.zip64 = { Self.record($0, $1, $2, at: 0) }
        },
        Lie("a zip64 record that is not there", "points at a zip64 record") {
            $0.directoryOffset = 0xFFFF_FFFF
        },
        Lie("a pickle and more", "bytes follow the pickle") { $0.entries[0].data += [0] },
    ]

    @Test(arguments: lies)
    func isRefused(lie: Lie) throws {
        let plugin = try PluginHarness("PickleLegacy")
        var zip = ZipAssembly.sound
        lie.tell(&zip)
        let payload = GuardedPayload(zip.bytes())
        let refusal = #expect(throws: Refusal.self) { try plugin.list(payload) }
        #expect(refusal?.message.contains(lie.says) == true, "\(refusal?.message ?? "read")")
        #expect(!payload.reads.contains { $0.upperBound == .max }, "it read outside of the payload")
    }
}
