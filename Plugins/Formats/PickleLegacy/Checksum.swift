/// CRC-32 as zip has it: polynomial 0xEDB88320, reflected, eight bytes a step.
struct Checksum {
    private var state: UInt32 = .max

    var value: UInt32 { ~state }

    /// Row k gives what a byte does to the sum k bytes later.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for i in 0..<256 {
            var value = UInt32(i)
            for _ in 0..<8 { value = value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xEDB8_8320 }
            tables[i] = value
        }
        for i in 256..<tables.count {
            let before = tables[i - 256]
            tables[i] = before >> 8 ^ tables[Int(before & 0xFF)]
        }
        return tables
    }()

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var state = self.state
        unsafe Self.tables.withUnsafeBufferPointer { table in
            var at = 0
            while at + 8 <= bytes.count {
                let word = unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)
                let low = UInt32(truncatingIfNeeded: word) ^ state
                let high = UInt32(truncatingIfNeeded: word >> 32)
                state = unsafe table[0x700 + Int(low & 0xFF)] ^ table[0x600 + Int(low >> 8 & 0xFF)]
                state ^= unsafe table[0x500 + Int(low >> 16 & 0xFF)] ^ table[0x400 + Int(low >> 24)]
                state ^=
                    unsafe table[0x300 + Int(high & 0xFF)] ^ table[0x200 + Int(high >> 8 & 0xFF)]
                state ^= unsafe table[0x100 + Int(high >> 16 & 0xFF)] ^ table[Int(high >> 24)]
                at += 8
            }
            while at < bytes.count {
                state = unsafe state >> 8 ^ table[Int((state ^ UInt32(bytes[at])) & 0xFF)]
                at += 1
            }
        }
        self.state = state
    }

    static func of(_ bytes: [UInt8]) -> UInt32 {
        var sum = Checksum()
        unsafe bytes.withUnsafeBytes { unsafe sum.add($0) }
        return sum.value
    }
}
