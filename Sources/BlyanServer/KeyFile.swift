internal import BlyanKernel
internal import BlyanModel
public import Foundation

/// The random passphrase of a key that was made without one, in a file beside the keystore.
public struct KeyFile: Sendable {
    private let file: URL

    /// The file `HOME/key.passphrase`.
    public init(home: URL) { file = home.appendingPathComponent("key.passphrase") }

    /// The file of another key.
    init(_ file: URL) { self.file = file }

    /// Where the file lies.
    public var path: String { file.path }

    /// The passphrase, or nil if there is no such file.
    public var passphrase: [UInt8]? {
        FileManager.default.contents(atPath: path).map { Array($0.prefix { $0 != 10 }) }
    }

    /// Makes the file, synced, with mode 0600.
    func make() throws(KernelError) -> [UInt8] {
        let secret = Array(Hex.encode(try Keystore.random(32)).utf8)
        try DurableFile.write(secret + [10], to: file, mode: 0o600)
        return secret
    }
}
