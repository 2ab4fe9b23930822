internal import BlyanKernel
internal import BlyanServer
internal import Foundation

// Safe: written before the handler that reads it is there.
/// The terminal's settings while a passphrase is typed unseen.
nonisolated(unsafe) private var visible = termios()

/// Where the key's passphrase comes from: a file, the environment, a prompt, or a key file beside the keystore.
struct Passphrase {
    private let options: HomeOptions
    private let walletFile: String?
    private let console: Console

    init(_ options: HomeOptions, walletFile: String? = nil, console: Console) {
        self.options = options
        self.walletFile = walletFile
        self.console = console
    }

    /// What was given for this call, or nil.
    private func given() throws(KernelError) -> [UInt8]? {
        try given(options.passphraseFile, "BLYAN_PASSPHRASE")
    }

    private func given(_ file: String?, _ variable: String) throws(KernelError) -> [UInt8]? {
        if let file {
            guard let data = FileManager.default.contents(atPath: console.url(file).path),
                data.count < 65_536
            else {
                throw KernelError(.key, "cannot read the passphrase file \(file)")
            }
            let line = data.prefix { $0 != 10 && $0 != 13 }
            guard !line.isEmpty else {
                throw KernelError(.key, "the passphrase file \(file) has an empty first line")
            }
            return Array(line)
        }
        if let text = ProcessInfo.processInfo.environment[variable], !text.isEmpty {
            return Array(text.utf8)
        }
        return nil
    }

    /// Whether one was given for this call, without asking anybody.
    var isGiven: Bool { get throws(KernelError) { try given() != nil } }

    /// The passphrase for a new key: given, or asked twice at a terminal, or nil for a random one in a file.
    func creating() throws(KernelError) -> [UInt8]? {
        if let given = try given() { return given }
        return try choosing("the new key")
    }

    /// Asks a person twice for the passphrase of a new key, where there is one to ask.
    private func choosing(_ what: String) throws(KernelError) -> [UInt8]? {
        if isatty(0) == 1, isatty(2) == 1 {
            let first = try ask("passphrase for \(what) (empty: a random one in a file): ")
            if !first.isEmpty {
                guard try ask("again: ") == first else {
                    throw KernelError(.key, "the two passphrases differ")
                }
                return first
            }
        }
        return nil
    }

    /// The passphrase that the process that works asks for.
    func answering(_ request: KeyRequest, _ home: URL) throws(KernelError) -> [UInt8] {
        switch request {
        case .node: return try unlocking(home)
        case .newWallet(let name):
            if let given = try given(walletFile, Self.walletVariable) { return given }
            guard let chosen = try choosing("the new wallet \(name)") else { return [] }
            return chosen
        case .wallet(let name):
            if let given = try given(walletFile, Self.walletVariable) { return given }
            if let kept = Wallets(home: home).keyFile(of: name).passphrase { return kept }
            guard isatty(0) == 1, isatty(2) == 1 else {
                throw KernelError(
                    .key, "the wallet \(name) of \(home.path) needs a passphrase",
                    hint: "give --wallet-passphrase-file FILE or set \(Self.walletVariable)")
            }
            return try ask("passphrase of the wallet \(name): ")
        }
    }

    private static let walletVariable = "BLYAN_WALLET_PASSPHRASE"

    /// The passphrase of the key that is there.
    func unlocking(_ home: URL) throws(KernelError) -> [UInt8] {
        guard Keystore(home: home).exists else {
            throw KernelError(
                .key, "the keystore \(home.path)/key.json is missing",
                hint: "restore it from a copy: without it nothing can be signed as before")
        }
        if let given = try given() { return given }
        if let kept = KeyFile(home: home).passphrase { return kept }
        guard isatty(0) == 1, isatty(2) == 1 else {
            throw KernelError(
                .key, "the key of \(home.path) needs a passphrase",
                hint: "give --passphrase-file FILE or set BLYAN_PASSPHRASE")
        }
        return try ask("passphrase: ")
    }

    private func ask(_ prompt: String) throws(KernelError) -> [UInt8] {
        console.note(prompt, terminator: "")
        var buffer = [UInt8](repeating: 0, count: 1024)
        var old = termios()
        guard unsafe tcgetattr(0, &old) == 0 else {
            throw KernelError(.key, "the terminal cannot hide a passphrase")
        }
        var silent = old
        silent.c_lflag &= ~tcflag_t(ECHO)
        unsafe visible = old
        // A signal that ends the process gives the terminal its echo back first.
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]
        let handlers = signals.map { number in
            signal(number) { number in
                unsafe tcsetattr(0, TCSANOW, &visible)
                signal(number, SIG_DFL)
                raise(number)
            }
        }
        unsafe tcsetattr(0, TCSAFLUSH, &silent)
        defer {
            unsafe tcsetattr(0, TCSAFLUSH, &old)
            for (number, handler) in zip(signals, handlers) {
                signal(number, handler)
            }
            console.note("")
        }
        let count = unsafe read(0, &buffer, buffer.count)
        guard count >= 0 else { throw KernelError(.key, "no passphrase was read") }
        return Array(buffer[..<count].prefix { $0 != 10 })
    }
}
