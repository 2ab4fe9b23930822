internal import BlyanPluginKit
internal import CBlyanPlugin

/// A payload's blocks: where each begins, as the directory says and the headers confirm.
struct Directory {
    struct Entry {
        let name: String
        /// From the payload's first byte.
        let offset: UInt64
        let header: BlockHeader
    }

    let entries: [Entry]

    /// Reads the first header, the index's head, the directory and every header; data is not touched.
    ///
    /// The first header leads to the index, the index to the directory. The index is not covered by the Merkle
    /// leaves, so nothing is believed of it that the covered bytes do not confirm.
    init(_ payload: borrowing Payload) throws(PluginError) {
        let first = try unsafe BlockHeader(
            Self.read(payload, 0, Layout.headerSize, "the first header"), name: "the first block")
        let index = try Index(payload, at: first.merkleOffset)
        guard index.directoryOffset < index.covered else {
            throw Layout.malformed(
                "the directory at \(index.directoryOffset) lies outside the covered bytes")
        }
        let length = index.covered - index.directoryOffset
        guard length <= Layout.directoryLimit else {
            throw PluginError(
                BLYAN_E_LIMIT, "a directory of \(length) bytes exceeds \(Layout.directoryLimit)")
        }
        var reader = try unsafe LittleEndian(
            Self.read(payload, index.directoryOffset, length, "the directory"))
        guard reader.skip(Layout.directoryMagic), let count: UInt32 = reader.integer(),
            let reserved: UInt32 = reader.integer(), reserved == 0
        else { throw Layout.malformed("the directory does not begin with TBDIRECT") }
        guard count > 0, count <= Layout.blockLimit else {
            throw PluginError(
                BLYAN_E_LIMIT, "a directory of \(count) blocks, expected 1 to \(Layout.blockLimit)")
        }
        var entries: [Entry] = []
        var names: Set<String> = []
        var end: UInt64 = 0
        for i in 0..<Int(count) {
            let entry = try Self.entry(i, &reader, payload, from: end, index)
            guard names.insert(entry.name).inserted else {
                throw Layout.malformed("two blocks are named \(entry.name)")
            }
            entries.append(entry)
            end += entry.header.blockLength
        }
        guard end == index.directoryOffset else {
            throw Layout.malformed(
                "the blocks end at \(end), the directory begins at \(index.directoryOffset)")
        }
        guard reader.rest == 0 else {
            throw Layout.malformed("\(reader.rest) bytes follow the directory's last entry")
        }
        self.entries = entries
    }

    /// Entry number `i`, whose block must begin at `start` and end by the directory.
    private static func entry(
        _ i: Int, _ reader: inout LittleEndian, _ payload: borrowing Payload, from start: UInt64,
        _ index: Index
    ) throws(PluginError) -> Entry {
        guard let offset: UInt64 = reader.integer(), let length: UInt64 = reader.integer(),
            let nameLength: UInt32 = reader.integer()
        else { throw Layout.malformed("directory entry \(i) is cut short") }
        guard nameLength > 0, nameLength <= UInt32(Layout.nameLimit) else {
            throw Layout.malformed(
                "directory entry \(i) has a name of \(nameLength) bytes, expected 1 to \(Layout.nameLimit)"
            )
        }
        guard let raw = unsafe reader.take(Int(nameLength)) else {
            throw Layout.malformed("directory entry \(i) is cut short")
        }
        if let fault = unsafe Layout.fault(inName: raw) {
            throw Layout.malformed("directory entry \(i) has \(fault)")
        }
        let name = unsafe String(decoding: raw, as: UTF8.self)
        guard offset == start, length <= index.directoryOffset - start else {
            throw Layout.malformed(
                "block \(name) lies at \(offset) with \(length) bytes, expected at \(start) and to end by \(index.directoryOffset)"
            )
        }
        let header = try unsafe BlockHeader(
            read(payload, offset, Layout.headerSize, "the header of \(name)"),
            name: "block \(name)")
        guard length == header.blockLength else {
            throw Layout.malformed(
                "block \(name) has \(length) bytes, its header gives \(header.blockLength)")
        }
        guard header.merkleOffset == index.covered - offset else {
            throw Layout.malformed(
                "block \(name) has its index \(header.merkleOffset) bytes on, expected \(index.covered - offset)"
            )
        }
        return Entry(name: name, offset: offset, header: header)
    }

    /// Verified bytes of the payload, valid until the plugin call returns.
    static func read(
        _ payload: borrowing Payload, _ offset: UInt64, _ count: UInt64, _ what: String
    ) throws(PluginError) -> UnsafeRawBufferPointer {
        guard offset <= payload.size, count <= payload.size - offset,
            let length = Int(exactly: count)
        else {
            throw Layout.malformed(
                "\(what) at \(offset) with \(count) bytes leaves the payload of \(payload.size)")
        }
        return try unsafe UnsafeRawBufferPointer(
            start: payload.pointer(at: offset, count: count), count: length)
    }

    /// The directory's bytes.
    static func encoded(_ blocks: [(name: String, offset: UInt64, length: UInt64)]) -> [UInt8] {
        var out = Layout.directoryMagic
        out.append(little: UInt32(blocks.count))
        out.append(little: UInt32(0))
        for block in blocks {
            out.append(little: block.offset)
            out.append(little: block.length)
            let name = Array(block.name.utf8)
            out.append(little: UInt32(name.count))
            out.append(contentsOf: name)
        }
        return out
    }
}

/// The head of the Merkle index that ends a payload.
///
/// Root, leaf size, leaf count, covered bytes and directory, before the leaf hashes. The root is not used: the
/// one that was signed is.
struct Index {
    let covered: UInt64
    let directoryOffset: UInt64

    init(_ payload: borrowing Payload, at offset: UInt64) throws(PluginError) {
        var reader = try unsafe LittleEndian(
            Directory.read(payload, offset, Layout.indexHeadSize, "the Merkle index"))
        guard unsafe reader.take(Int(Layout.hashSize)) != nil,
            let leafSize: UInt64 = reader.integer(), let count: UInt64 = reader.integer(),
            let covered: UInt64 = reader.integer(), let directory: UInt64 = reader.integer()
        else { throw Layout.malformed("the Merkle index is cut short") }
        guard leafSize == Layout.leafSize else {
            throw PluginError(
                BLYAN_E_UNSUPPORTED, "leaves of \(leafSize) bytes, expected \(Layout.leafSize)")
        }
        guard covered == offset, covered > 0 else {
            throw Layout.malformed("the Merkle index at \(offset) covers \(covered) bytes")
        }
        guard count == Self.leaves(covering: covered) else {
            throw Layout.malformed("the Merkle index has \(count) leaves for \(covered) bytes")
        }
        // No overflow: count is at most 2^48.
        guard
            payload.size - offset - Layout.indexHeadSize
                == Self.hashes(of: count) * Layout.hashSize
        else {
            throw Layout.malformed(
                "the payload of \(payload.size) bytes does not end with the hashes of its \(count) leaves"
            )
        }
        self.covered = covered
        directoryOffset = directory
    }

    /// Leaves over `covered` bytes, at least one.
    static func leaves(covering covered: UInt64) -> UInt64 { (covered - 1) / Layout.leafSize + 1 }

    /// Hashes that are stored for `leaves` leaves: theirs, and those of branches if they are more than one.
    static func hashes(of leaves: UInt64) -> UInt64 {
        leaves > Layout.branchSize ? leaves + (leaves - 1) / Layout.branchSize + 1 : leaves
    }

    static func head(root: [UInt8], leaves: UInt64, covered: UInt64, directoryOffset: UInt64)
        -> [UInt8]
    {
        var out = root
        out.append(little: Layout.leafSize)
        out.append(little: leaves)
        out.append(little: covered)
        out.append(little: directoryOffset)
        return out
    }
}
