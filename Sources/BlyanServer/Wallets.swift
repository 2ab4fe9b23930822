internal import BlyanJSON
public import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
public import BlyanLedger
public import Foundation

/// The chains of a home.
extension ChainSpec {
    /// All that a home may hold, for whoever opens one.
    public static let all: [ChainSpec] = [rewarded, .b, .c]

    /// Chain A with all its rules.
    public static let rewarded = ChainSpec(
        id: judged.id, shape: judged.shape, blockTypes: judged.blockTypes,
        rules: judged.rules + [RewardTerms.governsFromTheNextBlockOn])
}

/// Which key a passphrase is asked for.
public enum KeyRequest: Sendable, Equatable {
    /// The node's own.
    case node
    /// That of a wallet.
    case wallet(String)
    /// That of a wallet that is about to be made; an empty answer asks for a random one in a file.
    case newWallet(String)

    /// As it goes over the control socket.
    var text: String {
        switch self {
        case .node: "node"
        case .wallet(let name): "wallet \(name)"
        case .newWallet(let name): "new \(name)"
        }
    }

    init?(_ text: String) {
        let words = text.split(separator: " ", maxSplits: 1).map(String.init)
        switch (words.first, words.count) {
        case ("node", 1): self = .node
        case ("wallet", 2): self = .wallet(words[1])
        case ("new", 2): self = .newWallet(words[1])
        default: return nil
        }
    }
}

/// The keys of a home that hold money: the node's own, named "node", and those in `HOME/wallets`.
///
/// Any thread.
public struct Wallets: Sendable {
    /// A wallet's name and account.
    public struct Entry: Sendable {
        /// Its name.
        public let name: String
        /// Its account.
        public let account: Account
    }

    /// The name of the node's own key.
    public static let node = "node"
    private let home: URL
    private var folder: URL { home.appendingPathComponent("wallets") }

    /// The wallets of a home.
    public init(home: URL) { self.home = home }

    /// That a name can be a wallet's: 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit, and no
    /// account.
    ///
    /// - Throws: ``KernelError`` with code `malformed`.
    public static func check(name: String) throws(KernelError) {
        let isPlain = name.utf8.allSatisfy { byte in
            switch byte {
            case 48...57, 65...90, 97...122, UInt8(ascii: "-"), UInt8(ascii: "_"),
                UInt8(ascii: "."):
                true
            default: false
            }
        }
        let begins = name.first.map { $0.isLetter || $0.isNumber } ?? false
        guard isPlain, begins, name.utf8.count <= 64, Account(name) == nil else {
            let shown = name.unicodeScalars.filter { $0.value >= 32 && $0.value != 127 }
            throw KernelError(
                .malformed,
                "\"\(String(String.UnicodeScalarView(shown)).prefix(80))\" is no wallet's name",
                hint: "use 1 to 64 letters, digits, -, _ and ., beginning with a letter or digit")
        }
    }

    /// The file of a wallet's random passphrase.
    public func keyFile(of name: String) -> KeyFile {
        name == Self.node
            ? KeyFile(home: home) : KeyFile(folder.appendingPathComponent("\(name).passphrase"))
    }

    private func keystore(of name: String) -> Keystore {
        name == Self.node
            ? Keystore(home: home) : Keystore(folder.appendingPathComponent("\(name).json").path)
    }

    /// Makes a wallet with a new key.
    ///
    /// - Parameter passphrase: asked once the name is known to be free; an empty one asks for a random one in a file.
    /// - Returns: Its account, and the file with the random passphrase if one was made.
    /// - Throws: ``KernelError`` with code `rule` if there is one of that name, `malformed` for no name, `io`; what
    ///   `passphrase` throws.
    public func create(_ name: String, passphrase: () throws -> [UInt8]) throws -> (
        account: Account, keyFile: String?
    ) {
        try Self.check(name: name)
        guard name != Self.node else {
            throw KernelError(
                .rule, "\"node\" is the wallet of the node's own key", hint: "give another name")
        }
        let keystore = keystore(of: name)
        func taken() -> KernelError {
            KernelError(
                .rule, "there is a wallet \(name) already", hint: "`blyan wallet list` lists them")
        }
        guard !keystore.exists else { throw taken() }
        let secret = try passphrase()
        guard unsafe mkdir(folder.path, 0o700) == 0 || errno == EEXIST else {
            throw KernelError(
                .io, "cannot make \(folder.path): \(unsafe String(cString: strerror(errno)))")
        }
        try DurableFile.sync(folder: home.path)
        let file = keyFile(of: name)
        do throws(KernelError) {
            guard secret.isEmpty else {
                return (Account(try keystore.create(passphrase: secret)), nil)
            }
            // Durable before the key that it opens.
            let random: [UInt8]
            if let kept = file.passphrase { random = kept } else { random = try file.make() }
            return (Account(try keystore.create(passphrase: random)), file.path)
        } catch {
            // Another command may have made it meanwhile.
            throw keystore.exists ? taken() : error
        }
    }

    /// The node's wallet, then the others by name.
    ///
    /// - Throws: ``KernelError`` with code `key` for a keystore that is damaged.
    public func list() throws(KernelError) -> [Entry] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        var names = files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
        names.removeAll { $0 == Self.node }
        if keystore(of: Self.node).exists { names.insert(Self.node, at: 0) }
        var found: [Entry] = []
        for name in names { found.append(Entry(name: name, account: try account(of: name))) }
        return found
    }

    /// The account of a wallet; its key stays locked.
    ///
    /// - Throws: ``KernelError`` with code `notFound` if there is none of that name, `key` if it is damaged.
    public func account(of name: String) throws(KernelError) -> Account {
        let keystore = try existing(name)
        let data = FileManager.default.contents(atPath: keystore.path) ?? Data()
        let fields = data.count < 65_536 ? try? JSONValue(parsing: Array(data)) : nil
        guard let account = fields?["public_key"]?.string.flatMap({ Account($0) }) else {
            throw KernelError(
                .key, "the keystore \(keystore.path) is damaged", hint: "restore it from a copy")
        }
        return account
    }

    private func existing(_ name: String) throws(KernelError) -> Keystore {
        if name != Self.node { try Self.check(name: name) }
        let keystore = keystore(of: name)
        guard keystore.exists else {
            throw KernelError(
                .notFound, "there is no wallet \"\(name)\"",
                hint: "`blyan wallet list` lists them, `blyan wallet new \(name)` makes it")
        }
        return keystore
    }

    /// The key of a wallet.
    ///
    /// - Throws: ``KernelError`` with code `notFound`, or `key` if the passphrase does not open it.
    public func unlock(_ name: String, passphrase: () throws -> [UInt8]) throws -> SigningKey {
        try existing(name).unlock(passphrase: passphrase())
    }

    /// The account that a person means: a wallet's name, or a public key.
    ///
    /// - Throws: ``KernelError`` with code `notFound` or `malformed`.
    public func account(meant text: String) throws(KernelError) -> Account {
        guard let account = Account(text) else {
            // Of a key that was mistyped no wallet is made up.
            guard text.utf8.count < 60 else {
                throw KernelError(
                    .malformed, "\"\(text.prefix(80))\" is neither a wallet's name nor an account",
                    hint: "an account is 66 lower-case hex digits beginning with 02 or 03")
            }
            return try self.account(of: text)
        }
        guard account.isKey else {
            throw KernelError(
                .malformed, "\(text) is no public key: nobody could spend what it gets",
                hint: "ask for the account again")
        }
        return account
    }
}
