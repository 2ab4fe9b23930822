internal import Foundation

/// The append-only file whose fsync is the commit: records of canonical headers with their signatures.
///
/// A record is the magic `BLR1`, the body's length (u32, little-endian), the first 16 bytes of the body's SHA-256, and
/// the body: canonical header lines, each ended by a line feed. See STORAGE.md. Used under the store's lock.
struct RecordLog {
    /// Where a line lies in the file.
    struct Place: Equatable {
        let offset: UInt64
        let length: Int
    }

    /// A line without its line feed, and where it lies.
    typealias Line = (line: [UInt8], place: Place)

    private static let magic = Array("BLR1".utf8)
    private static let headSize: UInt64 = 24
    /// Bytes of a record's body that a reader takes.
    private static let bodyLimit = 1 << 30
    /// Bytes of a record's body that is written.
    static let batchLimit = 1 << 26

    /// What helps against damage, and all that does.
    static let hint =
        "restore the log from a copy of this home; `blyan chain verify` lists what is lost without one"

    let path: String
    private let folder: String
    private let disk: Disk
    private let descriptor: Int32
    /// Bytes of whole records.
    private(set) var end: UInt64 = 0

    /// Opens the log in a folder, made if absent, or as it lies there, to be read.
    init(folder: String, disk: Disk, reading: Bool = false) throws(KernelError) {
        self.folder = folder
        self.disk = disk
        path = folder + "/records.log"
        descriptor = try disk.open(path, reading ? O_RDONLY : O_RDWR | O_CREAT | O_APPEND)
        // Synced also if the file was there: whoever made it may have ended before its name was durable.
        guard let size = Disk.size(of: path) else {
            Foundation.close(descriptor)
            throw KernelError(.io, "\(path) is no regular file", hint: Self.hint)
        }
        if reading { end = size } else { try disk.sync(folder: folder) }
    }

    /// Bytes of the file.
    var size: UInt64 { Disk.size(of: path) ?? 0 }

    /// Whether something that was cut off is kept beside the log.
    var hasCuts: Bool {
        let names = try? FileManager.default.contentsOfDirectory(atPath: folder)
        return names?.contains { $0.hasPrefix("records.log.cut-") } ?? true
    }

    func close() { Foundation.close(descriptor) }

    /// One record for these lines, and where each will lie if it is written at `offset`.
    static func record(_ lines: [[UInt8]], at offset: UInt64) -> (bytes: [UInt8], places: [Place]) {
        var body: [UInt8] = []
        body.reserveCapacity(lines.reduce(0) { $0 + $1.count + 1 })
        var places: [Place] = []
        for line in lines {
            places.append(Place(offset: offset + headSize + UInt64(body.count), length: line.count))
            body.append(contentsOf: line)
            body.append(10)
        }
        var bytes = magic
        bytes.reserveCapacity(body.count + Int(headSize))
        for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: body.count >> shift)) }
        bytes.append(contentsOf: SHA256.hash(body).bytes[..<16])
        bytes.append(contentsOf: body)
        return (bytes, places)
    }

    /// Writes records at the end and makes them durable: the commit.
    mutating func commit(_ bytes: [UInt8]) throws(KernelError) {
        try unsafe bytes.withRawBytes { (all) throws(KernelError) in
            try unsafe disk.write(all, to: descriptor, path: path)
        }
        try disk.sync(descriptor, path: path)
        end += UInt64(bytes.count)
    }

    /// Reads one line back.
    func line(_ place: Place) throws(KernelError) -> [UInt8] {
        guard (0...Self.bodyLimit).contains(place.length), place.offset <= 1 << 62 else {
            throw damaged(place.offset)
        }
        return try read(place.offset, place.length)
    }

    private func read(_ offset: UInt64, _ length: Int) throws(KernelError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: length)
        var done = 0
        while done < length {
            let count = unsafe bytes.withUnsafeMutableBytes { all in
                unsafe pread(
                    descriptor, all.baseAddress.map { unsafe $0 + done }, length - done,
                    off_t(offset) + off_t(done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw KernelError(
                    count == 0 ? .integrity : .io,
                    "cannot read \(length) bytes at \(offset) of \(path)", hint: Self.hint)
            }
            done += count
        }
        return bytes
    }

    /// Finds the end of what is durable, from `start` on, and cuts a torn tail.
    ///
    /// - Parameter held: bytes that are known to have been durable: what is wrong in them is not torn.
    /// - Returns: A sentence about what was cut off; it is kept beside the log, in case it was damaged and not torn.
    /// - Throws: ``KernelError`` with code `integrity` naming record and offset if whole records follow the damage, so
    ///   that it is no torn tail.
    mutating func recover(from start: UInt64, held: UInt64) throws(KernelError) -> String? {
        let size = size
        end = start
        while end < size {
            guard let record = try whole(at: end, size: size) else {
                guard end >= held, try nextRecord(after: end, size: size) == nil else {
                    throw damaged(end)
                }
                return try cut(size)
            }
            end = record.end
        }
        return nil
    }

    /// The lines of the whole record at `offset`, which moves behind it; nil at the end of what is durable.
    ///
    /// - Throws: ``KernelError`` with code `integrity` for damage, `offset` then being at the next whole record.
    func next(_ offset: inout UInt64) throws(KernelError) -> [Line]? {
        guard offset < end else { return nil }
        // The file may have been cut since it was opened: then nothing follows.
        let start = offset, held = min(end, size)
        offset = end
        guard start < held else { throw damaged(start) }
        if let record = try whole(at: start, size: held) {
            offset = record.end
            return record.lines
        }
        offset = try nextRecord(after: start, size: held) ?? end
        throw damaged(start)
    }

    private func damaged(_ offset: UInt64) -> KernelError {
        KernelError(
            .integrity, "the record at byte \(offset) of \(path) is damaged", hint: Self.hint)
    }

    /// Cuts what follows `end`, a copy of it made durable first; an earlier one is kept too.
    private func cut(_ size: UInt64) throws(KernelError) -> String {
        var (kept, copies) = ("\(path).cut-\(end)", 1)
        while Disk.size(of: kept) != nil {
            copies += 1
            kept = "\(path).cut-\(end)-\(copies)"
        }
        let copy = try disk.open(kept, O_WRONLY | O_CREAT | O_EXCL)
        defer { Foundation.close(copy) }
        try unsafe read(end, Int(size - end)).withRawBytes { (all) throws(KernelError) in
            try unsafe disk.write(all, to: copy, path: kept)
        }
        try disk.sync(copy, path: kept)
        try disk.sync(folder: folder)
        guard ftruncate(descriptor, off_t(end)) == 0 else {
            throw .system("cannot cut \(path) at byte \(end)")
        }
        try disk.sync(descriptor, path: path)
        return
            "the last \(size - end) bytes of the log, from byte \(end) on, are no whole record, as a process that ends while writing leaves them: they were cut, and kept in \(kept); until that file is removed, so are payloads that no block names"
    }

    /// The record at an offset, or nil if it is torn or damaged.
    private func whole(at offset: UInt64, size: UInt64) throws(KernelError) -> (
        lines: [Line], end: UInt64
    )? {
        guard size - offset >= Self.headSize else { return nil }
        let head = try read(offset, Int(Self.headSize))
        let length = (4..<8).reversed().reduce(0) { $0 << 8 | Int(head[$1]) }
        guard head.starts(with: Self.magic), length <= Self.bodyLimit,
            UInt64(length) <= size - offset - Self.headSize
        else { return nil }
        let body = try read(offset + Self.headSize, length)
        guard SHA256.hash(body).bytes.starts(with: head[8..<24]), body.last == 10 else {
            return nil
        }
        var lines: [Line] = []
        var start = 0
        while let feed = body[start...].firstIndex(of: 10) {
            let place = Place(offset: offset + Self.headSize + UInt64(start), length: feed - start)
            lines.append((Array(body[start..<feed]), place))
            start = feed + 1
            if start == body.count { break }
        }
        return (lines, offset + Self.headSize + UInt64(length))
    }

    /// Where the next whole record begins: then the damage before it is no torn tail.
    private func nextRecord(after start: UInt64, size: UInt64) throws(KernelError) -> UInt64? {
        var offset = start + 1
        while offset + Self.headSize <= size {
            let piece = try read(offset, Int(min(1 << 20, size - offset)))
            for i in piece.indices
            where piece[i] == Self.magic[0] && piece[i...].starts(with: Self.magic) {
                let place = offset + UInt64(i)
                if try whole(at: place, size: size) != nil { return place }
            }
            // Overlap by three bytes, so that a magic across pieces is seen.
            guard piece.count > 3, offset + UInt64(piece.count) < size else { return nil }
            offset += UInt64(piece.count - 3)
        }
        return nil
    }
}
