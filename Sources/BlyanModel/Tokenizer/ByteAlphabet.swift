/// GPT-2's reversible alphabet: each byte is one printable character.
enum ByteAlphabet {
    /// The character of each byte.
    static let characters: [UnicodeScalar] = {
        var table = [UnicodeScalar](repeating: " ", count: 256)
        var next: UInt32 = 256
        for byte in 0..<256 {
            let isPrintable =
                (33...126).contains(byte) || (161...172).contains(byte)
                || (174...255).contains(byte)
            let code = isPrintable ? UInt32(byte) : next
            if !isPrintable { next += 1 }
            table[byte] = UnicodeScalar(code) ?? " "
        }
        return table
    }()

    private static let values = Dictionary(
        uniqueKeysWithValues: characters.enumerated().map { ($1, UInt8($0)) })

    /// The bytes that a piece spells, or nil if it has a character outside the alphabet.
    static func bytes(of piece: String) -> [UInt8]? {
        var out: [UInt8] = []
        for scalar in piece.unicodeScalars {
            guard let byte = values[scalar] else { return nil }
            out.append(byte)
        }
        return out
    }

    /// How pieces spell a byte: `<0x0A>`.
    static func fallback(_ byte: UInt8) -> String {
        let digits = Array("0123456789ABCDEF")
        return "<0x\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])>"
    }
}
