public import BlyanJSON
public import BlyanKernel
internal import BlyanYAML
internal import CBlyanPlugin
internal import Foundation

// Safe and Sendable: the table is static and belongs to the plugin that is held.
/// A reward policy as the node uses it: a typed call, and nothing believed that was not checked.
///
/// Any thread; calls of one instance wait for each other. One that takes too long is left, see ``PluginCall``. It has
/// reproduced its published test vectors.
@safe public struct RewardPlugin: @unchecked Sendable {
    /// The plugin behind it.
    public let plugin: LoadedPlugin
    /// SHA-256 of the published test vectors: what identifies the policy, with name, version and configuration.
    public let vectors: Digest
    /// The manifest's configuration, as it goes on chain.
    public let config: JSONValue
    private let table: UnsafePointer<blyan_reward>

    /// One payment.
    public struct Payment: Sendable, Equatable {
        /// The event that it pays for, from 0.
        public let event: Int
        /// Who is paid: a compressed public key in hex.
        public let account: String
        /// Micro-BLY, above 0 and at most ``RewardPlugin/amountLimit``.
        public let amount: Int64
        /// Usage and reward blocks of chain C over which it vests.
        public let vesting: Int64

        package init(event: Int, account: String, amount: Int64, vesting: Int64) {
            (self.event, self.account) = (event, account)
            (self.amount, self.vesting) = (amount, vesting)
        }
    }

    /// Payments that one settlement may give.
    package static let paymentLimit = 49_000
    /// Micro-BLY of one payment: a billion BLY.
    package static let amountLimit: Int64 = 1_000_000_000_000_000
    private static let vestingLimit: Int64 = 10_000_000
    private static let format = "blyan-reward-vectors/1"

    /// The policy in a loaded plugin, once it has reproduced its test vectors.
    ///
    /// - Throws: ``KernelError`` with code `plugin` if the plugin is of another kind, does not reproduce them or does not
    ///   return, `config` if its manifest names none; `cancelled` on request.
    public init(_ plugin: LoadedPlugin) throws(KernelError) {
        guard let table = unsafe plugin.table(BLYAN_REWARD_SETTLE, as: blyan_reward.self) else {
            throw KernelError(
                .plugin,
                "plugin \(plugin.manifest.name) is a \(plugin.manifest.kind.rawValue), expected a reward"
            )
        }
        self.plugin = plugin
        unsafe self.table = table
        guard let config = plugin.manifest.canonicalConfig else {
            throw KernelError(
                .config,
                "\(plugin.manifest.path): the configuration of a reward policy goes on chain, and holds a number with a fraction",
                hint: "state it in integers")
        }
        self.config = config
        let path = try Self.vectorFile(of: plugin.manifest)
        let bytes = Array(try TextFile.read(path).utf8)
        vectors = SHA256.hash(bytes)
        try reproduce(bytes, path)
    }

    private static func vectorFile(of manifest: PluginManifest) throws(KernelError) -> String {
        let text = try TextFile.read(manifest.path)
        let root = try KernelError.reading { () throws(YAMLError) in
            try YAMLReader.read(text, file: manifest.path)
        }
        guard let name = root["vectors"]?.string else {
            throw KernelError(
                .config,
                "\(manifest.path) lacks the key \"vectors\": the test vectors that identify a reward policy",
                hint:
                    "name the file that came with the policy, e.g. \"vectors: \(manifest.name).vectors.json\""
            )
        }
        return TextFile.join(manifest.path, name)
    }

    /// Asks the policy, for as long as its manifest's `limits.call_milliseconds` allow.
    ///
    /// - Parameters:
    ///   - events: as the plugin contract describes them.
    ///   - config: the configuration that governs.
    ///   - subject: what errors say that it is asked about.
    /// - Throws: ``KernelError`` naming the policy: its failure, that it did not return in time, or a payment that cannot
    ///   be; with code `cancelled` on request.
    public func settle(
        _ events: [JSONValue], config: JSONValue, about subject: String = "its events"
    ) throws(KernelError) -> [Payment] {
        let (terms, facts) = (config.canonical(), JSONValue.array(events).canonical())
        // What the policy reads and writes belongs to this closure, and so to the thread of its call.
        return try PluginCall.run(plugin, about: subject) {
            [self, count = events.count] _ throws(KernelError) in
            try payments(terms, facts, for: count)
        }
    }

    /// The payments for as many events as `count`.
    private func payments(_ terms: [UInt8], _ facts: [UInt8], for events: Int)
        throws(KernelError) -> [Payment]
    {
        var capacity = events * 2 + 16
        while true {
            var empty = blyan_payment()
            empty.struct_size = UInt32(MemoryLayout<blyan_payment>.size)
            var raw = [blyan_payment](repeating: empty, count: capacity)
            let count = try ask(terms, facts, &raw)
            guard count <= Self.paymentLimit else {
                throw KernelError(
                    .limit,
                    "the reward policy \(plugin.manifest.name) makes \(count) payments, at most \(Self.paymentLimit) are taken"
                )
            }
            guard count > capacity else {
                var payments: [Payment] = []
                for item in raw.prefix(count) { payments.append(try payment(item, events)) }
                return payments
            }
            capacity = count
        }
    }

    /// How many payments there are; those that fit are in `raw`.
    private func ask(_ config: [UInt8], _ events: [UInt8], _ raw: inout [blyan_payment])
        throws(KernelError) -> Int
    {
        var count: UInt32 = 0
        let capacity = UInt32(raw.count)
        try plugin.call("settle") { error in
            unsafe config.withUnsafeBufferPointer { config in
                unsafe events.withUnsafeBufferPointer { events in
                    var settlement = unsafe blyan_settlement(
                        struct_size: UInt32(MemoryLayout<blyan_settlement>.size), reserved: 0,
                        config: text(config), events: text(events))
                    let status = unsafe table.pointee.settle(
                        plugin.instance, &settlement, &raw, capacity, &count, &error)
                    let isFull = status == BLYAN_E_CAPACITY && count > capacity
                    return isFull ? blyan_status(BLYAN_OK) : status
                }
            }
        }
        return Int(count)
    }

    private func text(_ bytes: UnsafeBufferPointer<UInt8>) -> blyan_string {
        unsafe blyan_string(
            data: UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self),
            size: UInt64(bytes.count))
    }

    private func payment(_ raw: blyan_payment, _ events: Int) throws(KernelError) -> Payment {
        let account = unsafe withUnsafeBytes(of: raw.account) {
            unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        let isAccount =
            Hex.decode(account, count: 33) != nil
            && (account.hasPrefix("02") || account.hasPrefix("03"))
        guard (1...Self.amountLimit).contains(raw.amount), raw.event < events, isAccount,
            (0...Self.vestingLimit).contains(raw.vesting)
        else {
            throw KernelError(
                .plugin,
                "the reward policy \(plugin.manifest.name) pays \(raw.amount) micro-BLY for event \(raw.event) of \(events), over \(raw.vesting) blocks, to \"\(account.prefix(72).filter { $0.isLetter || $0.isNumber })\": no such payment can be"
            )
        }
        return Payment(
            event: Int(raw.event), account: account, amount: raw.amount, vesting: raw.vesting)
    }

    /// Runs the published cases.
    private func reproduce(_ bytes: [UInt8], _ path: String) throws(KernelError) {
        func bad(_ what: String) -> KernelError {
            KernelError(
                .plugin, "the test vectors \(path) \(what)",
                hint: "use the vectors that came with the policy")
        }
        guard let file = try? JSONValue(parsing: bytes), file["format"]?.string == Self.format,
            file["policy"]?.string == plugin.manifest.name, case .array(let cases)? = file["cases"],
            !cases.isEmpty
        else { throw bad("are no \(Self.format) of \(plugin.manifest.name) with a case") }
        for (number, item) in cases.enumerated() {
            guard let config = item["config"], case .array(let events)? = item["events"],
                case .array(let list)? = item["payments"]
            else { throw bad("lack config, events or payments in case \(number)") }
            let wanted = list.compactMap { entry -> Payment? in
                guard let event = entry["event"]?.int, let account = entry["account"]?.string,
                    let amount = entry["amount"]?.string.flatMap({ Int64($0) }),
                    let vesting = entry["vesting"]?.int
                else { return nil }
                return Payment(
                    event: Int(clamping: event), account: account, amount: amount, vesting: vesting)
            }
            guard wanted.count == list.count else { throw bad("hold no payment in case \(number)") }
            let found = try settle(events, config: config, about: "case \(number) of \(path)")
            guard found == wanted else {
                throw KernelError(
                    .plugin,
                    "the reward policy \(plugin.manifest.name) does not reproduce case \(number) (\"\(item["name"]?.string ?? "")\") of \(path): it makes \(found.count) payments of \(found.map { String($0.amount) }.prefix(8)), expected \(wanted.count) of \(wanted.map { String($0.amount) }.prefix(8))",
                    hint: "install library and vectors of one version of the policy")
            }
        }
    }
}

extension PluginManifest {
    /// The configuration as it goes on chain; nil if it holds a number with a fraction.
    package var canonicalConfig: JSONValue? {
        try? JSONValue(parsing: Array(config.json.utf8))
    }
}
