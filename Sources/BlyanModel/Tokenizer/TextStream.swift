/// Holds back the bytes of a character until it is whole, so that streamed text is always valid UTF-8.
public struct TextStream {
    private var held: [UInt8] = []

    /// An empty stream.
    public init() {}

    /// The text that is whole after these bytes; what cannot become a character comes as U+FFFD.
    public mutating func add(_ bytes: [UInt8]) -> [UInt8] {
        held += bytes
        var keep = 0
        for back in 1...min(4, max(1, held.count)) where back <= held.count {
            let byte = held[held.count - back]
            if byte & 0xC0 == 0x80 { continue }
            let need = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1
            if need > back { keep = back }
            break
        }
        let whole = held[..<(held.count - keep)]
        held = Array(held.suffix(keep))
        return Array(String(decoding: whole, as: UTF8.self).utf8)
    }

    /// What is still held, at the end of a text.
    public mutating func finish() -> [UInt8] {
        defer { held = [] }
        return Array(String(decoding: held, as: UTF8.self).utf8)
    }
}
