internal import BlyanPluginKit
internal import CBlyanPlugin

/// A zip archive as `torch.save` writes it: stored entries without gaps, then the directory, then the end.
///
/// What two readers could understand differently is refused.
struct ZipArchive {
    struct Entry {
        let name: String
        let blob: Blob
        let checksum: UInt32
    }

    static let localMagic: [UInt8] = [0x50, 0x4B, 3, 4]

    /// The object: FOLDER/data.pkl.
    let pickle: Entry
    /// The storages by key: FOLDER/data/KEY.
    private let data: [String: Entry]

    init(_ payload: borrowing Payload) throws(PluginError) {
        let (count, directory) = try Self.directory(payload)
        var stream = ByteStream(directory)
        var end: UInt64 = 0
        var names: Set<String> = []
        var folder: String?
        var pickle: Entry?
        var data: [String: Entry] = [:]
        for i in 0..<count {
            let header = try CentralHeader(payload, &stream, number: i)
            guard names.insert(header.name).inserted else {
                throw malformed("zip entry \(header.name) stands twice")
            }
            guard header.offset == end else {
                throw malformed(
                    "zip entry \(header.name) is at byte \(header.offset), expected \(end): entries overlap or leave gaps"
                )
            }
            let entry = try header.entry(payload, limit: directory.offset, end: &end)
            guard let slash = header.name.firstIndex(of: "/") else {
                throw unsupported("zip entry \(header.name) lies in no folder")
            }
            let top = header.name[..<slash]
            guard folder ?? String(top) == top, !top.isEmpty else {
                throw unsupported("zip entry \(header.name) lies outside of folder \(folder ?? "")")
            }
            folder = String(top)
            let path = header.name[header.name.index(after: slash)...]
            switch path {
            case "data.pkl": pickle = entry
            case "byteorder":
                guard entry.blob.length == 6,
                    try Self.checked(payload, entry) == Array("little".utf8)
                else {
                    throw unsupported(
                        "zip entry \(header.name) says big-endian; only little-endian is read")
                }
            case "version": break
            case _ where path.hasPrefix("data/"): data[String(path.dropFirst(5))] = entry
            case _ where path.hasPrefix("."): break
            default:
                throw unsupported(
                    "zip entry \(header.name) is not of a state that torch.save wrote")
            }
        }
        guard stream.isAtEnd, end == directory.offset else {
            throw malformed(
                "bytes between the zip entries and their directory, or after its last entry")
        }
        guard let pickle else { throw malformed("the zip archive has no data.pkl") }
        guard pickle.blob.length <= Limits.pickle else {
            throw exceeded("data.pkl of \(pickle.blob.length) bytes, at most \(Limits.pickle)")
        }
        _ = try Self.checked(payload, pickle)
        self.pickle = pickle
        self.data = data
    }

    /// Gives the storages that the pickle mentions their bytes; each entry has exactly one storage.
    func place(_ storages: inout [Storage]) throws(PluginError) {
        for i in storages.indices {
            let key = storages[i].key
            guard let entry = data[key] else {
                throw malformed("storage \(key) has no zip entry data/\(key)")
            }
            guard entry.blob.length == storages[i].byteCount else {
                throw malformed(
                    "storage \(key) has \(storages[i].byteCount) bytes, its zip entry \(entry.name) has \(entry.blob.length)"
                )
            }
            storages[i].blob = entry.blob
            storages[i].checksum = entry.checksum
        }
        guard storages.count == data.count else {
            throw malformed(
                "the zip archive has \(data.count) storages, the pickle mentions \(storages.count)")
        }
    }

    /// The bytes of a small entry, whose CRC-32 must be right.
    private static func checked(
        _ payload: borrowing Payload, _ entry: Entry
    ) throws(PluginError) -> [UInt8]? {
        var sum = Checksum()
        var bytes: [UInt8]?
        if entry.blob.length > 0 {
            let start = try unsafe payload.pointer(at: entry.blob.offset, count: entry.blob.length)
            let view = unsafe UnsafeRawBufferPointer(start: start, count: Int(entry.blob.length))
            unsafe sum.add(view)
            if entry.blob.length <= 64 { bytes = unsafe Array(view) }
        }
        guard sum.value == entry.checksum else {
            throw malformed("zip entry \(entry.name) does not have the CRC-32 that it names")
        }
        return bytes
    }

    /// Finds the directory from the end of the payload, where no comment may follow.
    private static func directory(_ payload: borrowing Payload) throws(PluginError) -> (
        UInt64, Blob
    ) {
        func fail(_ what: String) -> PluginError { malformed("zip archive: \(what)") }
        guard payload.size >= 22 else { throw fail("\(payload.size) bytes are cut short") }
        let last = payload.size - 22
        var stream = ByteStream(Blob(offset: last, length: 22, count: 22))
        guard try stream.number(payload, 4) == 0x0605_4B50 else {
            throw fail("its end is not at the end of the payload")
        }
        guard try stream.number(payload, 4) == 0 else { throw fail("more than one disk") }
        let (here, total) = (try stream.number(payload, 2), try stream.number(payload, 2))
        var (length, offset) = (try stream.number(payload, 4), try stream.number(payload, 4))
        guard try stream.number(payload, 2) == 0 else { throw fail("a comment") }
        guard here == total else { throw fail("\(here) of \(total) entries are on this disk") }
        var (count, end) = (total, last)
        var isLarge = count == 0xFFFF || length == 0xFFFF_FFFF || offset == 0xFFFF_FFFF
        if last >= 76 {
            var locator = ByteStream(Blob(offset: last - 20, length: 20, count: 20))
            if try locator.number(payload, 4) == 0x0706_4B50 {
                guard try locator.number(payload, 4) == 0,
                    try locator.number(payload, 8) == last - 76,
                    try locator.number(payload, 4) == 1
                else { throw fail("the zip64 locator does not lead to the record before it") }
                var record = ByteStream(Blob(offset: last - 76, length: 56, count: 56))
                guard try record.number(payload, 4) == 0x0606_4B50,
                    try record.number(payload, 8) == 44
                else { throw fail("the zip64 record has another size than 44") }
                _ = try record.number(payload, 4)
                guard try record.number(payload, 8) == 0 else { throw fail("more than one disk") }
                let counts = (try record.number(payload, 8), try record.number(payload, 8))
                let (length64, offset64) = (
                    try record.number(payload, 8), try record.number(payload, 8)
                )
                guard counts.0 == counts.1, total == 0xFFFF || total == counts.0,
                    length == 0xFFFF_FFFF || length == length64,
                    offset == 0xFFFF_FFFF || offset == offset64
                else { throw fail("the zip64 record and the end record disagree") }
                (count, length, offset, end) = (counts.0, length64, offset64, last - 76)
                isLarge = false
            }
        }
        guard !isLarge else {
            throw fail("the end record points at a zip64 record that is not there")
        }
        guard count > 0, count <= UInt64(Limits.entries), length <= Limits.directory else {
            throw exceeded(
                "zip archive of \(count) entries with a directory of \(length) bytes, at most \(Limits.entries) and \(Limits.directory)"
            )
        }
        guard let directoryEnd = offset.plus(length), directoryEnd == end else {
            throw fail("the directory at \(offset) with \(length) bytes does not end at \(end)")
        }
        return (count, Blob(offset: offset, length: length, count: length))
    }
}
