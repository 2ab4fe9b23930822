internal import BlyanPluginKit

/// Bytes that lie in the payload, as they are or as text.
struct Blob: Equatable {
    /// First byte in the payload.
    var offset: UInt64
    /// Bytes in the payload.
    var length: UInt64
    /// Bytes meant: fewer than `length` where they are written as latin-1 characters in UTF-8.
    var count: UInt64
    /// Whether each byte is written as the character of that number, as protocols 0 to 2 do.
    var isLatin = false

    /// The bytes `[first, first + count)` of those meant, as a pointer that is valid until the plugin call returns.
    ///
    /// Latin-1 text is decoded to `scratch`.
    func pointer(
        _ payload: borrowing Payload, at first: UInt64, count: UInt64, scratch: inout [UInt8]
    ) throws(PluginError) -> UnsafePointer<UInt8>? {
        guard let end = first.plus(count), end <= self.count else {
            throw malformed("bytes \(first) to \(first &+ count) of \(self.count) at \(offset)")
        }
        guard isLatin else { return try unsafe payload.pointer(at: offset + first, count: count) }
        var stream = ByteStream(self)
        var budget = UInt64.max
        try stream.skip(payload, first, budget: &budget)
        scratch = try stream.read(payload, count)
        return nil
    }
}

// Safe: the window is a pointer that the host keeps valid until the plugin call returns, and a stream ends before.
/// Reads a blob from front to back through small windows, so that only leaves that are needed are touched.
@safe struct ByteStream {
    private static let window: UInt64 = 4096

    /// The next byte's place in the payload.
    private(set) var offset: UInt64
    private let end: UInt64
    let isLatin: Bool
    private var start: UnsafePointer<UInt8>?
    private var startOffset: UInt64 = 0
    private var windowEnd: UInt64 = 0

    init(_ blob: Blob) {
        offset = blob.offset
        end = blob.offset + blob.length
        isLatin = blob.isLatin
        unsafe start = nil
    }

    var isAtEnd: Bool { offset == end }
    /// Bytes of the payload that are left; as many bytes meant at most.
    var rest: UInt64 { end - offset }

    private mutating func fill(
        _ payload: borrowing Payload, _ size: UInt64
    ) throws(PluginError) {
        guard offset < end else { throw malformed("the bytes end at \(offset), more are needed") }
        let count = min(size, end - offset)
        unsafe start = try unsafe payload.pointer(at: offset, count: count)
        startOffset = offset
        windowEnd = offset + count
    }

    private mutating func rawByte(_ payload: borrowing Payload) throws(PluginError) -> UInt8 {
        if offset >= windowEnd { try fill(payload, Self.window) }
        guard let start = unsafe start else { throw malformed("nothing at byte \(offset)") }
        let byte = unsafe start[Int(offset - startOffset)]
        offset += 1
        return byte
    }

    mutating func byte(_ payload: borrowing Payload) throws(PluginError) -> UInt8 {
        let first = try rawByte(payload)
        guard isLatin, first >= 0x80 else { return first }
        let place = offset - 1
        guard first == 0xC2 || first == 0xC3 else {
            throw malformed("byte \(place) is not a latin-1 character in UTF-8")
        }
        let second = try rawByte(payload)
        guard second & 0xC0 == 0x80 else {
            throw malformed("byte \(place) is not a latin-1 character in UTF-8")
        }
        return (first & 3) << 6 | (second & 0x3F)
    }

    /// A little-endian number of `width` bytes.
    mutating func number(_ payload: borrowing Payload, _ width: Int) throws(PluginError) -> UInt64 {
        var value: UInt64 = 0
        for i in 0..<width { value |= UInt64(try byte(payload)) << UInt64(8 * i) }
        return value
    }

    /// A copy of the next `count` bytes, which the caller has held against a limit.
    mutating func read(
        _ payload: borrowing Payload, _ count: UInt64
    ) throws(PluginError) -> [UInt8] {
        guard count <= rest else {
            throw malformed("\(count) bytes wanted at \(offset), \(rest) are left")
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(count))
        if isLatin {
            _ = try characters(payload, count) { bytes.append($0) }
        } else {
            for _ in 0..<count { bytes.append(try byte(payload)) }
        }
        return bytes
    }

    /// Goes through `count` latin-1 characters, or nil: all that are left.
    ///
    /// - Returns: how many there were.
    @inline(__always)
    fileprivate mutating func characters(
        _ payload: borrowing Payload, _ count: UInt64?, _ use: (UInt8) -> Void
    ) throws(PluginError) -> UInt64 {
        var done: UInt64 = 0
        let limit = count ?? .max
        while done < limit, count != nil || !isAtEnd {
            if offset >= windowEnd { try fill(payload, 65_536) }
            guard let base = unsafe start else { break }
            let first = Int(offset - startOffset)
            let last = Int(windowEnd - startOffset)
            var at = first
            while at < last, done < limit {
                let byte = unsafe base[at]
                if byte < 0x80 {
                    use(byte)
                    at += 1
                } else {
                    // A character of two bytes; one that spans two windows is left to byte().
                    guard at + 1 < last, byte & 0xFE == 0xC2, unsafe base[at + 1] & 0xC0 == 0x80
                    else { break }
                    use(unsafe (byte & 3) << 6 | (base[at + 1] & 0x3F))
                    at += 2
                }
                done += 1
            }
            offset += UInt64(at - first)
            if at == first, done < limit {
                use(try byte(payload))
                done += 1
            }
        }
        return done
    }

    /// Passes over `count` bytes and answers where they lie.
    ///
    /// - Parameter budget: latin-1 bytes that may still be scanned.
    @discardableResult
    mutating func skip(
        _ payload: borrowing Payload, _ count: UInt64, budget: inout UInt64
    ) throws(PluginError) -> Blob {
        guard count <= rest else {
            throw malformed("\(count) bytes wanted at \(offset), \(rest) are left")
        }
        let first = offset
        if isLatin {
            guard count <= budget else {
                throw exceeded("the same latin-1 text is read again and again")
            }
            budget -= count
            _ = try characters(payload, count) { _ in }
        } else {
            offset += count
        }
        return Blob(offset: first, length: offset - first, count: count, isLatin: isLatin)
    }
}

extension Blob {
    /// The bytes that UTF-8 text means in latin-1: one a character, every character below U+0100.
    func asLatin(
        _ payload: borrowing Payload, budget: inout UInt64
    ) throws(PluginError) -> Blob {
        guard length <= budget else {
            throw exceeded("the same latin-1 text is read again and again")
        }
        budget -= length
        var stream = ByteStream(Blob(offset: offset, length: length, count: length, isLatin: true))
        let count = try stream.characters(payload, nil) { _ in }
        return Blob(offset: offset, length: length, count: count, isLatin: true)
    }
}
