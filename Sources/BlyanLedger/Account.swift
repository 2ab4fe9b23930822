public import BlyanKernel

/// An account: a compressed public key of secp256k1, whoever has the private one.
public struct Account: Hashable, Comparable, Sendable, CustomStringConvertible {
    // 0x02 or 0x03, then the x coordinate: no allocation for the millions that a replay holds.
    private let parity: UInt8
    private let x: Digest

    /// The account of 66 lower-case hex digits that begin with 02 or 03, or nil; whether they are a point of the
    /// curve is not looked at.
    public init?(_ hex: String) {
        guard let bytes = Hex.decode(hex, count: 33) else { return nil }
        self.init(bytes)
    }

    /// The account of 33 bytes, or nil.
    package init?(_ bytes: some Collection<UInt8>) {
        guard let first = bytes.first, first == 2 || first == 3, let x = Digest(bytes.dropFirst())
        else { return nil }
        parity = first
        self.x = x
    }

    /// The account of a key.
    public init(_ key: SigningKey) {
        guard let account = Account(key.publicKey) else {
            preconditionFailure("a signing key has a compressed public key")
        }
        self = account
    }

    /// The 33 bytes.
    package var bytes: [UInt8] { [parity] + x.bytes }

    private static let digits = Array("0123456789abcdef".utf8)

    /// Appends bytes as lower-case hex digits, in the loops that a block's thousands of transfers go through.
    static func appendHex(_ bytes: [UInt8], to out: inout [UInt8]) {
        for byte in bytes {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
    }

    /// 66 lower-case hex digits.
    public var description: String {
        var out: [UInt8] = []
        out.reserveCapacity(66)
        Self.appendHex(bytes, to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    /// Whether the key is a point of the curve, so that somebody can sign with it.
    public var isKey: Bool { Signature.isKey(description) }

    /// Byte-wise order.
    public static func < (a: Account, b: Account) -> Bool {
        a.parity == b.parity ? a.x < b.x : a.parity < b.parity
    }
}
