import Foundation

/// Pickles put together by hand, instruction by instruction.
enum PickleAssembly {
    static let proto: [UInt8] = [0x80, 2]
    static let stop: [UInt8] = [0x2E]
    static let mark: [UInt8] = [0x28]
    static let tuple: [UInt8] = [0x74]
    static let emptyTuple: [UInt8] = [0x29]
    static let reduce: [UInt8] = [0x52]
    static let build: [UInt8] = [0x62]
    static let none: [UInt8] = [0x4E]

    static func little(_ value: UInt64, _ width: Int) -> [UInt8] {
        (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }

    static func text(_ text: String) -> [UInt8] {
        [0x58] + little(UInt64(text.utf8.count), 4) + Array(text.utf8)
    }

    static func bytes(_ bytes: [UInt8]) -> [UInt8] {
        [0x42] + little(UInt64(bytes.count), 4) + bytes
    }

    static func global(_ module: String, _ name: String) -> [UInt8] {
        [0x63] + Array("\(module)\n\(name)\n".utf8)
    }

    static func int(_ value: Int64) -> [UInt8] {
        [0x8A, 8] + little(UInt64(bitPattern: value), 8)
    }

    static func tuple(_ parts: [UInt8]...) -> [UInt8] { mark + parts.flatMap { $0 } + tuple }

    static func numbers(_ values: [Int64]) -> [UInt8] {
        mark + values.flatMap { int($0) } + tuple
    }

    static func pickle(_ parts: [UInt8]...) -> [UInt8] { proto + parts.flatMap { $0 } + stop }

    /// A dictionary with one member "w".
    static func member(_ value: [UInt8]) -> [UInt8] { [0x7D] + text("w") + value + [0x73] }

    static func storage(_ type: String = "FloatStorage", key: String = "0", count: Int64) -> [UInt8]
    {
        tuple(text("storage"), global("torch", type), text(key), text("cpu"), int(count)) + [0x51]
    }

    static func tensor(
        _ storage: [UInt8], offset: Int64 = 0, _ sizes: [Int64], _ strides: [Int64]
    ) -> [UInt8] {
        global("torch._utils", "_rebuild_tensor_v2")
            + tuple(
                storage, int(offset), numbers(sizes), numbers(strides), [0x89],
                global("collections", "OrderedDict") + emptyTuple + reduce) + reduce
    }

    static func dtype(_ code: String, order: String = "<") -> [UInt8] {
        global("numpy", "dtype") + tuple(text(code), [0x89], [0x88]) + reduce
            + tuple(int(3), text(order), none, none, none, int(-1), int(-1), int(0)) + build
    }

    static func array(_ sizes: [Int64], _ dtype: [UInt8], _ data: [UInt8]) -> [UInt8] {
        global("numpy.core.multiarray", "_reconstruct")
            + tuple(global("numpy", "ndarray"), numbers([0]), bytes([0x62])) + reduce
            + tuple(int(1), numbers(sizes), dtype, [0x89], data) + build
    }
}

/// Zip archives put together by hand, true or lying.
struct ZipAssembly {
    struct Entry {
        var name: String
        var data: [UInt8]
        var flags: UInt64 = 0
        var method: UInt64 = 0
        var localName: String?
        var localFlags: UInt64?
        var localMethod: UInt64?
        var localSize: UInt64?
        var localChecksum: UInt64?
        var localExtra: [UInt8] = []
        var centralSize: UInt64?
        var centralPacked: UInt64?
        var centralChecksum: UInt64?
        var centralOffset: UInt64?
        var centralExtra: [UInt8] = []
        var comment: [UInt8] = []
        /// Bytes between this entry and the next.
        var gap: [UInt8] = []

        init(_ name: String, _ data: [UInt8]) { (self.name, self.data) = (name, data) }
    }

    var entries: [Entry]
    var before: [UInt8] = []
    var count: UInt64?
    var directoryOffset: UInt64?
    var directorySize: UInt64?
    var comment: [UInt8] = []
    /// A zip64 record and locator before the end.
    var zip64: ((_ count: UInt64, _ offset: UInt64, _ size: UInt64) -> [UInt8])?

    /// A tensor of 2 x 3, f32, from 1 to 6.
    static var sound: ZipAssembly {
        let pickle = PickleAssembly.pickle(
            PickleAssembly.member(
                PickleAssembly.tensor(PickleAssembly.storage(count: 6), [2, 3], [3, 1])))
        let data = (1...6).flatMap { i in withUnsafeBytes(of: Float(i)) { Array($0) } }
        return ZipAssembly(entries: [
            Entry("archive/data.pkl", pickle), Entry("archive/byteorder", Array("little".utf8)),
            Entry("archive/data/0", data), Entry("archive/version", Array("3\n".utf8)),
        ])
    }

    static func checksum(_ bytes: [UInt8]) -> UInt64 {
        var sum = UInt32.max
        for byte in bytes {
            sum ^= UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 0 ? sum >> 1 : sum >> 1 ^ 0xEDB8_8320 }
        }
        return UInt64(~sum)
    }

    func bytes() -> [UInt8] {
        func little(_ value: UInt64, _ width: Int) -> [UInt8] {
            PickleAssembly.little(value, width)
        }
        var out = before, central: [UInt8] = []
        for entry in entries {
            let place = UInt64(out.count), size = UInt64(entry.data.count)
            let sum = Self.checksum(entry.data)
            let name = Array(entry.name.utf8), local = Array((entry.localName ?? entry.name).utf8)
            out += [0x50, 0x4B, 3, 4] + little(20, 2) + little(entry.localFlags ?? entry.flags, 2)
            out += little(entry.localMethod ?? entry.method, 2) + little(0, 4)
            out += little(entry.localChecksum ?? sum, 4) + little(entry.localSize ?? size, 4)
            out += little(entry.localSize ?? size, 4) + little(UInt64(local.count), 2)
            out += little(UInt64(entry.localExtra.count), 2) + local + entry.localExtra
            out += entry.data + entry.gap
            central += [0x50, 0x4B, 1, 2] + little(20, 2) + little(20, 2) + little(entry.flags, 2)
            central += little(entry.method, 2) + little(0, 4)
            central += little(entry.centralChecksum ?? sum, 4)
            central += little(entry.centralPacked ?? entry.centralSize ?? size, 4)
            central += little(entry.centralSize ?? size, 4) + little(UInt64(name.count), 2)
            central += little(UInt64(entry.centralExtra.count), 2)
            central += little(UInt64(entry.comment.count), 2) + little(0, 8)
            central += little(entry.centralOffset ?? place, 4) + name + entry.centralExtra
            central += entry.comment
        }
        let offset = UInt64(out.count), size = UInt64(central.count)
        let count = self.count ?? UInt64(entries.count)
        out += central + (zip64?(count, offset, size) ?? [])
        out += [0x50, 0x4B, 5, 6, 0, 0, 0, 0] + little(count, 2) + little(count, 2)
        out += little(directorySize ?? size, 4) + little(directoryOffset ?? offset, 4)
        return out + little(UInt64(comment.count), 2) + comment
    }
}
