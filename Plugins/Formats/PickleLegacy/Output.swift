internal import BlyanPluginKit
internal import CBlyanPlugin

/// Writes the containers, and knows how far it is.
struct Output {
    private let sink: Sink
    private(set) var count: UInt64 = 0

    init(_ sink: Sink) { self.sink = sink }

    private mutating func write(_ bytes: [UInt8]) throws(PluginError) {
        guard !bytes.isEmpty else { return }
        try sink.write(bytes)
        count += UInt64(bytes.count)
    }

    private mutating func write(_ tensor: Written) throws(PluginError) {
        try unsafe sink.write(tensor.bytes)
        count += UInt64(unsafe tensor.bytes.count)
    }

    // MARK: zip

    /// Entries as `torch.save` has them, data on multiples of 64 bytes.
    mutating func writeZip(_ plan: [Written]) throws(PluginError) {
        var directory: [UInt8] = []
        var entries = 0
        let pickle = PickleWriter.stateDict(plan, isLegacy: false)
        try writeEntry("data.pkl", pickle.bytes, &directory, &entries)
        try writeEntry("byteorder", Array("little".utf8), &directory, &entries)
        for (i, tensor) in plan.enumerated() {
            var sum = Checksum()
            unsafe sum.add(tensor.bytes)
            try writeHeader(
                "data/\(i)", UInt64(unsafe tensor.bytes.count), sum.value, &directory, &entries)
            try write(tensor)
        }
        try writeEntry("version", Array("3\n".utf8), &directory, &entries)
        let start = count
        guard start + UInt64(directory.count) < 0xFFFF_FFFF, entries < 0xFFFF else {
            throw exceeded("a zip archive of over 4 GiB or 65,534 entries is not written")
        }
        try write(directory)
        var end: [UInt8] = [0x50, 0x4B, 5, 6, 0, 0, 0, 0]
        end.append(little: UInt16(entries))
        end.append(little: UInt16(entries))
        end.append(little: UInt32(directory.count))
        end.append(little: UInt32(start))
        end.append(little: UInt16(0))
        try write(end)
    }

    private mutating func writeEntry(
        _ name: String, _ bytes: [UInt8], _ directory: inout [UInt8], _ entries: inout Int
    ) throws(PluginError) {
        try writeHeader(name, UInt64(bytes.count), Checksum.of(bytes), &directory, &entries)
        try write(bytes)
    }

    private mutating func writeHeader(
        _ name: String, _ size: UInt64, _ checksum: UInt32, _ directory: inout [UInt8],
        _ entries: inout Int
    ) throws(PluginError) {
        let name = Array("archive/\(name)".utf8)
        guard size < 0xFFFF_FFFF, count < 0xFFFF_FFFF else {
            throw exceeded("a zip archive of over 4 GiB is not written")
        }
        // What both headers share: version 2.0, no flags, stored, 1980-01-01.
        var common: [UInt8] = [20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]
        common.append(little: checksum)
        common.append(little: UInt32(size))
        common.append(little: UInt32(size))
        common.append(little: UInt16(name.count))
        // The padding is an extra field "FB", as PyTorch names it: 4 bytes at least.
        let before = count + 30 + UInt64(name.count) + 4
        let padding = Int((64 - before % 64) % 64)
        directory += [0x50, 0x4B, 1, 2, 20, 0] + common
        directory += [UInt8](repeating: 0, count: 12)
        directory.append(little: UInt32(count))
        directory += name
        var local: [UInt8] = ZipArchive.localMagic + common
        local.append(little: UInt16(padding + 4))
        local += name
        local += [0x46, 0x42]
        local.append(little: UInt16(padding))
        local += [UInt8](repeating: 0x5A, count: padding)
        try write(local)
        entries += 1
    }

    // MARK: without zip

    /// Magic number, version, system, object, keys, then each storage's element count and bytes.
    ///
    /// A text in the system's description puts the first storage on a multiple of 64 bytes.
    mutating func writeLegacy(_ plan: [Written]) throws(PluginError) {
        let object = PickleWriter.stateDict(plan, isLegacy: true).bytes
        var keys = PickleWriter(protocol: 2)
        keys.put(.emptyList)
        keys.put(.mark)
        for i in plan.indices { keys.put("\(i)") }
        keys.put(.appends)
        keys.put(.stop)
        var version = PickleWriter(protocol: 2)
        version.put(1001 as UInt64)
        version.put(.stop)
        let head: [UInt8] =
            [Opcode.proto.rawValue, 2, Opcode.long1.rawValue, 10] + Machine.magic + [0x2E]
            + version.bytes
        let used = head.count + Self.system(padding: 0).count + object.count + keys.bytes.count + 8
        try write(head)
        try write(Self.system(padding: (64 - used % 64) % 64))
        try write(object)
        try write(keys.bytes)
        for tensor in plan {
            var length: [UInt8] = []
            length.append(little: tensor.sizes.reduce(1, *))
            try write(length)
            try write(tensor)
        }
    }

    private static func system(padding: Int) -> [UInt8] {
        var system = PickleWriter(protocol: 2)
        system.put(.emptyDict)
        system.put(.mark)
        system.put("protocol_version")
        system.put(1001 as UInt64)
        system.put("little_endian")
        system.put(.newTrue)
        system.put("type_sizes")
        system.put(.emptyDict)
        system.put(.mark)
        for (name, size) in [("short", 2), ("int", 4), ("long", 4)] as [(String, UInt64)] {
            system.put(name)
            system.put(size)
        }
        system.put(.setItems)
        system.put("padding")
        system.put(String(repeating: "Z", count: padding))
        system.put(.setItems)
        system.put(.stop)
        return system.bytes
    }

    // MARK: NumPy

    /// A dictionary of arrays, protocol 4, bytes on multiples of 64.
    mutating func writeNumPy(_ plan: [Written]) throws(PluginError) {
        let codes: [(ElementType, String)] = [(.f32, "f4"), (.f16, "f2"), (.i8, "i1")]
        var writer = PickleWriter(protocol: 4)
        writer.put(.emptyDict)
        writer.put(.mark)
        for tensor in plan {
            guard let code = codes.first(where: { $0.0 == tensor.type })?.1 else {
                throw unsupported("tensor \(tensor.name): numpy has no \(tensor.type)")
            }
            writer.put(tensor.name)
            writer.put(global: "numpy.core.multiarray", "_reconstruct")
            writer.put(global: "numpy", "ndarray")
            writer.put(tuple: [0])
            writer.append(raw: [Opcode.shortBinBytes.rawValue, 1, 0x62])
            writer.put(.tuple3)
            writer.put(.reduce)
            writer.put(.mark)
            writer.put(1 as UInt64)
            writer.put(tuple: tensor.sizes)
            writer.put(global: "numpy", "dtype")
            writer.put(code)
            writer.put(.newFalse)
            writer.put(.newTrue)
            writer.put(.tuple3)
            writer.put(.reduce)
            writer.put(.mark)
            writer.put(3 as UInt64)
            writer.put(tensor.type == .i8 ? "|" : "<")
            for _ in 0..<3 { writer.put(.none) }
            for _ in 0..<2 { writer.append(raw: [Opcode.binInt.rawValue, 255, 255, 255, 255]) }
            writer.put(0 as UInt64)
            writer.put(.tuple)
            writer.put(.build)
            writer.put(.newFalse)
            writer.pad(at: count, after: 9)
            writer.put(.binBytes8)
            writer.append(little: UInt64(unsafe tensor.bytes.count))
            try write(writer.bytes)
            try write(tensor)
            writer.clear()
            writer.put(.tuple)
            writer.put(.build)
        }
        writer.put(.setItems)
        writer.put(.stop)
        try write(writer.bytes)
    }
}

extension Array<UInt8> {
    mutating func append<I: FixedWidthInteger>(little value: I) {
        for i in 0..<I.bitWidth / 8 { append(UInt8(truncatingIfNeeded: value >> I(8 * i))) }
    }
}
