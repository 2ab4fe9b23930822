internal import COpenSSL

/// A SHA-256 digest: the name of a block or payload.
public struct Digest: Hashable, Sendable, Comparable, CustomStringConvertible {
    // Four words rather than an array: no allocation for the millions that an index holds.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// All zero bytes; names nothing.
    public static let zero = Digest(words: (0, 0, 0, 0))

    private init(words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }

    /// The digest that `fill` writes to 32 bytes and answers 1.
    fileprivate init(_ fill: (UnsafeMutablePointer<UInt8>) -> Int32) {
        self = unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 32) { out in
            guard let base = out.baseAddress, unsafe fill(base) == 1 else {
                preconditionFailure("OpenSSL cannot finish SHA-256")
            }
            return unsafe Digest(reading: base)
        }
    }

    /// Writes the 32 bytes.
    func store(to buffer: UnsafeMutableRawBufferPointer, at offset: Int) {
        let swapped = (
            words.0.bigEndian, words.1.bigEndian, words.2.bigEndian, words.3.bigEndian
        )
        unsafe withUnsafeBytes(of: swapped) { bytes in
            unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[offset..<offset + 32]).copyMemory(
                from: bytes)
        }
    }

    /// The digest with these bytes, or nil unless there are exactly 32.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == 32 else { return nil }
        self = unsafe Array(bytes).withUnsafeBytes { all in
            unsafe all.baseAddress.map { unsafe Digest(reading: $0) } ?? .zero
        }
    }

    /// The digest in 32 bytes of memory, of any alignment.
    init(reading bytes: UnsafeRawPointer) {
        func word(_ i: Int) -> UInt64 {
            UInt64(bigEndian: unsafe bytes.loadUnaligned(fromByteOffset: 8 * i, as: UInt64.self))
        }
        words = (word(0), word(1), word(2), word(3))
    }

    /// The digest written as 64 lower-case hex digits, or nil.
    public init?(hex: String) {
        guard let bytes = Hex.decode(hex, count: 32) else { return nil }
        self.init(bytes)
    }

    /// The 32 bytes.
    public var bytes: [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: 32) { buffer, filled in
            unsafe store(to: UnsafeMutableRawBufferPointer(buffer), at: 0)
            filled = 32
        }
    }

    /// 64 lower-case hex digits.
    public var description: String { Hex.encode(bytes) }

    /// Appends 64 lower-case hex digits.
    func appendHex(to out: inout [UInt8]) {
        for word in [words.0, words.1, words.2, words.3] {
            for shift in stride(from: 60, through: 0, by: -4) {
                let digit = UInt8(truncatingIfNeeded: word >> UInt64(shift)) & 15
                out.append(digit < 10 ? 48 + digit : 87 + digit)
            }
        }
    }

    /// Byte-wise equality.
    public static func == (a: Digest, b: Digest) -> Bool { a.words == b.words }
    /// Byte-wise order.
    public static func < (a: Digest, b: Digest) -> Bool { a.words < b.words }
    /// Feeds the bytes to a hasher.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.3)
    }
}

/// Lower-case hexadecimal.
public enum Hex {
    private static let digits = Array("0123456789abcdef".utf8)

    /// Two digits a byte.
    public static func encode(_ bytes: some Sequence<UInt8>) -> String {
        var out: [UInt8] = []
        for byte in bytes {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
        return String(decoding: out, as: UTF8.self)
    }

    // A digit's value; 16 for what is no lower-case digit.
    private static let values: [UInt8] = (UInt8.min...UInt8.max).map { digit in
        digits.firstIndex(of: digit).map { UInt8($0) } ?? 16
    }

    /// The bytes, or nil unless `text` is exactly `2 * count` lower-case digits.
    public static func decode(_ text: String, count: Int) -> [UInt8]? {
        decode(Array(text.utf8)[...], count: count)
    }

    /// The bytes, or nil unless `text` is exactly `2 * count` lower-case digits.
    static func decode(_ text: ArraySlice<UInt8>, count: Int) -> [UInt8]? {
        guard text.count == 2 * count else { return nil }
        let values = values
        var seen: UInt8 = 0
        let out = unsafe [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
            for i in 0..<count {
                let high = values[Int(text[text.startIndex + 2 * i])]
                let low = values[Int(text[text.startIndex + 2 * i + 1])]
                seen |= high | low
                unsafe bytes[i] = high << 4 | low
            }
            filled = count
        }
        return seen < 16 ? out : nil
    }
}

// Safe: the context is owned by this value alone and freed in deinit.
/// SHA-256 by OpenSSL.
@safe public struct SHA256: ~Copyable {
    private let context: OpaquePointer?
    // Unchecked: OpenSSL's fetched algorithms are immutable and may be shared by threads.
    private nonisolated(unsafe) static let algorithm = unsafe EVP_MD_fetch(nil, "SHA2-256", nil)

    /// An empty message.
    public init() {
        unsafe context = EVP_MD_CTX_new()
        let started = unsafe EVP_DigestInit_ex2(context, Self.algorithm, nil)
        precondition(started == 1, "OpenSSL cannot start SHA-256")
    }

    deinit { unsafe EVP_MD_CTX_free(context) }

    /// Appends bytes to the message.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        let done = unsafe EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
        precondition(done == 1, "OpenSSL cannot continue SHA-256")
    }

    /// Appends bytes to the message.
    public mutating func update(_ bytes: [UInt8]) {
        unsafe bytes.withUnsafeBytes { unsafe update($0) }
    }

    /// The digest of the message so far; starts a new message.
    public mutating func finalize() -> Digest {
        let digest = unsafe Digest { out in unsafe EVP_DigestFinal_ex(context, out, nil) }
        let restarted = unsafe EVP_DigestInit_ex2(context, nil, nil)
        precondition(restarted == 1, "OpenSSL cannot restart SHA-256")
        return digest
    }

    /// The digest of one message.
    public static func hash(_ bytes: [UInt8]) -> Digest {
        unsafe bytes.withUnsafeBytes { unsafe hash($0) }
    }

    /// The digest of one message.
    public static func hash(_ bytes: UnsafeRawBufferPointer) -> Digest {
        unsafe Digest { out in
            unsafe EVP_Digest(bytes.baseAddress, bytes.count, out, nil, algorithm, nil)
        }
    }

    /// Inner nodes of a Merkle tree: SHA-256(0x01 ‖ left ‖ right) of each pair of digests that lie one after the other.
    ///
    /// - Parameter out: 32 bytes a pair.
    static func joinPairs(
        _ digests: UnsafeRawPointer, _ pairs: Int, into out: UnsafeMutableRawPointer
    ) {
        let hasher = SHA256()
        var prefix: UInt8 = 1
        var isDone = true
        for i in 0..<pairs {
            let node = unsafe (out + 32 * i).assumingMemoryBound(to: UInt8.self)
            isDone =
                unsafe isDone && EVP_DigestUpdate(hasher.context, &prefix, 1) == 1
                && EVP_DigestUpdate(hasher.context, digests + 64 * i, 64) == 1
                && EVP_DigestFinal_ex(hasher.context, node, nil) == 1
                && EVP_DigestInit_ex2(hasher.context, nil, nil) == 1
        }
        precondition(isDone, "OpenSSL cannot finish SHA-256")
    }
}
