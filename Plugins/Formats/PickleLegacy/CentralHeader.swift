internal import BlyanPluginKit
internal import CBlyanPlugin

/// One entry as a zip archive's directory describes it.
struct CentralHeader {
    let name: String
    let flags: UInt64
    let checksum: UInt32
    let size: UInt64
    let offset: UInt64

    // Bit 3: sizes follow the data. Bit 11: the name is UTF-8.
    private static let knownFlags: UInt64 = 0x0808
    private static let sizesFollow: UInt64 = 0x0008

    init(
        _ payload: borrowing Payload, _ stream: inout ByteStream, number: UInt64
    ) throws(PluginError) {
        guard try stream.number(payload, 4) == 0x0201_4B50 else {
            throw malformed("entry \(number) of the zip directory does not begin with its magic")
        }
        _ = try stream.number(payload, 4)  // versions
        flags = try stream.number(payload, 2)
        let method = try stream.number(payload, 2)
        _ = try stream.number(payload, 4)  // time
        checksum = UInt32(truncatingIfNeeded: try stream.number(payload, 4))
        var packed = try stream.number(payload, 4)
        var size = try stream.number(payload, 4)
        let nameLength = try stream.number(payload, 2)
        let extraLength = try stream.number(payload, 2)
        let comment = try stream.number(payload, 2)
        let disk = try stream.number(payload, 2)
        _ = try stream.number(payload, 6)  // attributes
        var offset = try stream.number(payload, 4)
        guard nameLength > 0, nameLength <= Limits.text,
            let name = String(validating: try stream.read(payload, nameLength), as: UTF8.self)
        else {
            throw malformed(
                "the name of zip entry \(number) is no text of 1 to \(Limits.text) bytes")
        }
        self.name = name
        func fail(_ what: String) -> PluginError { malformed("zip entry \(name): \(what)") }
        guard flags & ~Self.knownFlags == 0 else {
            throw unsupported(
                "zip entry \(name): flag bits \(String(flags, radix: 2)), such as encryption")
        }
        guard method == 0 else {
            throw unsupported(
                "zip entry \(name): compression \(method), only stored entries are read")
        }
        guard comment == 0, disk == 0 else {
            throw fail("it has a comment or lies on another disk")
        }
        let large = try ExtraFields(payload, &stream, extraLength, of: name).large
        var next = 0
        func widen(_ value: inout UInt64) throws(PluginError) {
            guard value == 0xFFFF_FFFF else { return }
            guard next < large.count else { throw fail("its zip64 field lacks a size or a place") }
            value = large[next]
            next += 1
        }
        try widen(&size)
        try widen(&packed)
        try widen(&offset)
        guard next == large.count else { throw fail("its zip64 field holds more than is needed") }
        guard packed == size else { throw fail("\(packed) bytes stored of \(size)") }
        self.size = size
        self.offset = offset
    }

    /// Checks the entry's own header against this one.
    ///
    /// - Parameters:
    ///   - limit: where the directory begins.
    ///   - end: becomes the first byte after the entry.
    func entry(
        _ payload: borrowing Payload, limit: UInt64, end: inout UInt64
    ) throws(PluginError) -> ZipArchive.Entry {
        func fail(_ what: String) -> PluginError { malformed("zip entry \(name): \(what)") }
        guard limit > offset, limit - offset >= 30 else {
            throw fail("byte \(offset) is no place for it")
        }
        var stream = ByteStream(Blob(offset: offset, length: limit - offset, count: limit - offset))
        guard try stream.number(payload, 4) == 0x0403_4B50 else {
            throw fail("no header at byte \(offset)")
        }
        _ = try stream.number(payload, 2)
        guard try stream.number(payload, 2) == flags, try stream.number(payload, 2) == 0 else {
            throw fail("its own header has other flags or compression than the directory")
        }
        _ = try stream.number(payload, 4)
        let follow = flags & Self.sizesFollow != 0
        let own = UInt32(truncatingIfNeeded: try stream.number(payload, 4))
        let (packed, unpacked) = (try stream.number(payload, 4), try stream.number(payload, 4))
        let (nameLength, extraLength) = (
            try stream.number(payload, 2), try stream.number(payload, 2)
        )
        guard nameLength == UInt64(name.utf8.count),
            try stream.read(payload, nameLength) == Array(name.utf8)
        else { throw fail("its own header has another name") }
        let large = try ExtraFields(payload, &stream, extraLength, of: name).large
        guard large.allSatisfy({ $0 == size || $0 == offset }) else {
            throw fail("the zip64 field of its own header says something else than the directory")
        }
        func agrees(_ value: UInt64) -> Bool {
            value == size && value < 0xFFFF_FFFF || value == 0xFFFF_FFFF && large.first == size
                || follow && value == 0
        }
        guard agrees(packed), agrees(unpacked), own == checksum || follow && own == 0 else {
            throw fail("its own header has another size or CRC-32 than the directory")
        }
        guard size <= stream.rest else {
            throw fail("\(size) bytes at \(stream.offset) run into the directory at \(limit)")
        }
        var none: UInt64 = 0
        let blob = try stream.skip(payload, size, budget: &none)
        if follow { try descriptor(payload, &stream) }
        end = stream.offset
        return ZipArchive.Entry(name: name, blob: blob, checksum: checksum)
    }

    /// What follows the data where bit 3 is set: magic, CRC-32, and both sizes in 4 or 8 bytes.
    private func descriptor(
        _ payload: borrowing Payload, _ stream: inout ByteStream
    ) throws(PluginError) {
        let width = size >= 0xFFFF_FFFF ? 8 : 4
        guard try stream.number(payload, 4) == 0x0807_4B50,
            UInt32(truncatingIfNeeded: try stream.number(payload, 4)) == checksum,
            try stream.number(payload, width) == size, try stream.number(payload, width) == size
        else {
            throw malformed("zip entry \(name): the sizes after its data differ from the directory")
        }
    }
}

/// The extra fields of a zip header; all but zip64 sizes are passed over (PyTorch pads with one).
struct ExtraFields {
    /// The 8-byte numbers of the zip64 field.
    private(set) var large: [UInt64] = []

    init(
        _ payload: borrowing Payload, _ stream: inout ByteStream, _ length: UInt64, of name: String
    ) throws(PluginError) {
        guard length <= stream.rest else {
            throw malformed("zip entry \(name): its extra fields are cut short")
        }
        let end = stream.offset + length
        var hasLarge = false
        while stream.offset < end {
            guard end - stream.offset >= 4 else {
                throw malformed("zip entry \(name): an extra field is cut short")
            }
            let (id, count) = (try stream.number(payload, 2), try stream.number(payload, 2))
            guard count <= end - stream.offset else {
                throw malformed("zip entry \(name): extra field \(id) is cut short")
            }
            guard id == 1 else {
                var none: UInt64 = 0
                try stream.skip(payload, count, budget: &none)
                continue
            }
            guard !hasLarge, count % 8 == 0, count <= 24 else {
                throw malformed(
                    "zip entry \(name): its zip64 field stands twice or has \(count) bytes")
            }
            hasLarge = true
            for _ in 0..<count / 8 { large.append(try stream.number(payload, 8)) }
        }
    }
}
