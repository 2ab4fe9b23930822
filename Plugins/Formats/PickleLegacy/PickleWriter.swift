/// Writes pickles: protocol 2 with PyTorch's names, protocol 4 with NumPy's.
struct PickleWriter {
    private(set) var bytes: [UInt8]

    init(protocol version: UInt8) { bytes = [Opcode.proto.rawValue, version] }

    mutating func put(_ opcode: Opcode) { bytes.append(opcode.rawValue) }

    mutating func put(_ text: String) {
        put(.binUnicode)
        bytes.append(little: UInt32(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    mutating func put(_ number: UInt64) {
        switch number {
        case 0...0xFF:
            put(.binInt1)
            bytes.append(UInt8(number))
        case 0...0xFFFF:
            put(.binInt2)
            bytes.append(little: UInt16(number))
        case 0...0x7FFF_FFFF:
            put(.binInt)
            bytes.append(little: UInt32(number))
        default:
            // Nine bytes, so that the sign is never in doubt.
            put(.long1)
            bytes.append(9)
            bytes.append(little: number)
            bytes.append(0)
        }
    }

    mutating func put(global module: String, _ name: String) {
        put(.global)
        bytes.append(contentsOf: "\(module)\n\(name)\n".utf8)
    }

    mutating func put(tuple numbers: [UInt64]) {
        put(.mark)
        for number in numbers { put(number) }
        put(.tuple)
    }

    mutating func append(little value: UInt64) { bytes.append(little: value) }

    mutating func append(raw: [UInt8]) { bytes.append(contentsOf: raw) }

    /// Forgets what was handed on.
    mutating func clear() { bytes.removeAll(keepingCapacity: true) }

    /// Instructions without effect, so that what follows lies at `offset` + `after` on a multiple of 64.
    mutating func pad(at offset: UInt64, after: Int) {
        var missing = (64 - Int((offset + UInt64(bytes.count + after)) % 64)) % 64
        if missing == 1 { missing += 64 }
        if missing % 2 == 1 {
            put(0 as UInt64)
            put(.pop)
            missing -= 3
        }
        for _ in 0..<missing / 2 {
            put(.none)
            put(.pop)
        }
    }

    /// An OrderedDict of tensors over storages "0", "1", ...
    static func stateDict(_ plan: [Written], isLegacy: Bool) -> PickleWriter {
        var writer = PickleWriter(protocol: 2)
        writer.putOrderedDict()
        writer.put(.mark)
        for (i, tensor) in plan.enumerated() {
            writer.put(tensor.name)
            writer.put(global: "torch._utils", "_rebuild_tensor_v2")
            writer.put(.mark)
            writer.put(.mark)
            writer.put("storage")
            writer.put(global: "torch", tensor.storageClass)
            writer.put("\(i)")
            writer.put("cpu")
            writer.put(tensor.sizes.reduce(1, *))
            if isLegacy { writer.put(.none) }
            writer.put(.tuple)
            writer.put(.binPersistentID)
            writer.put(0 as UInt64)
            writer.put(tuple: tensor.sizes)
            writer.put(tuple: tensor.sizes.count == 2 ? [tensor.sizes[1], 1] : [1])
            writer.put(.newFalse)
            writer.putOrderedDict()
            writer.put(.tuple)
            writer.put(.reduce)
        }
        writer.put(.setItems)
        writer.put(.stop)
        return writer
    }

    private mutating func putOrderedDict() {
        put(global: "collections", "OrderedDict")
        put(.emptyTuple)
        put(.reduce)
    }
}
