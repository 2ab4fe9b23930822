internal import BlyanYAML
public import CBlyanPlugin
internal import Synchronization

// Safe and Sendable: the tables are static, and the instance's functions say by contract which threads may call.
/// A plugin that passed every check and serves: one configured instance of one library.
///
/// Whoever holds it keeps the instance alive; the last one to let go ends it. Any thread.
@safe public final class LoadedPlugin: @unchecked Sendable {
    /// The manifest that it was loaded from.
    public let manifest: PluginManifest
    /// The hash of the library's bytes as mapped.
    public let sha256: Digest
    /// What the plugin's functions take as first argument.
    public let instance: UnsafeMutableRawPointer?
    /// Ability tables by id, each checked for size and null functions.
    private let abilities: [String: UnsafeRawPointer]
    private let image: PluginImage
    private let callCount = Atomic<Int>(0), faultCount = Atomic<Int>(0),
        overrunCount = Atomic<Int>(0)

    /// Calls so far, those that failed, and those that took longer than the manifest allows.
    public var figures: (calls: Int, faults: Int, overruns: Int) {
        (
            callCount.load(ordering: .relaxed), faultCount.load(ordering: .relaxed),
            overrunCount.load(ordering: .relaxed)
        )
    }

    /// Ability ids that the plugin offers, sorted.
    public var abilityIDs: [String] { unsafe abilities.keys.sorted() }

    init(
        manifest: PluginManifest, image: PluginImage, host: UnsafePointer<blyan_host>
    ) throws(KernelError) {
        let entry = unsafe image.entry.pointee
        var instance: UnsafeMutableRawPointer?
        try Self.require("create", of: manifest) { error in
            var config = manifest.config.json
            return config.withUTF8 { bytes in
                let text = unsafe blyan_string(
                    data: UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self),
                    size: UInt64(bytes.count))
                return unsafe entry.create(host, text, &instance, &error)
            }
        }
        do throws(KernelError) {
            let made = unsafe instance
            try Self.require("self_test", of: manifest) { error in
                unsafe entry.self_test(made, &error)
            }
            unsafe abilities = try AbilityCatalogue.tables(of: manifest, entry, made)
        } catch {
            unsafe entry.destroy(instance)
            throw error
        }
        self.manifest = manifest
        self.image = image
        sha256 = image.sha256
        unsafe self.instance = instance
    }

    deinit { unsafe image.entry.pointee.destroy(instance) }

    /// The table of an ability, or nil if the plugin does not offer it.
    ///
    /// Static.
    ///
    /// `Table` must be the C struct that the header names for this id.
    public func table<Table>(_ id: String, as _: Table.Type) -> UnsafePointer<Table>? {
        unsafe abilities[id]?.assumingMemoryBound(to: Table.self)
    }

    /// Runs one call into the plugin and turns its status into an error that names plugin and call.
    ///
    /// - Parameter body: gets a buffer for the error's text, answers a status.
    /// - Throws: ``KernelError/Code/plugin``, or the code that a status stands for.
    public func call(
        _ function: String, _ body: (inout blyan_error) -> blyan_status
    ) throws(KernelError) {
        let start = ContinuousClock.now
        callCount.add(1, ordering: .relaxed)
        let result = Result { () throws(KernelError) in
            try Self.require(function, of: manifest, body)
        }
        if case .failure = result { faultCount.add(1, ordering: .relaxed) }
        let limit = manifest.callMilliseconds.map { Duration.milliseconds($0) }
        if let limit, .now - start > limit { overrunCount.add(1, ordering: .relaxed) }
        try result.get()
    }

    private static func require(
        _ function: String, of manifest: PluginManifest, _ body: (inout blyan_error) -> blyan_status
    ) throws(KernelError) {
        var error = blyan_error()
        error.struct_size = UInt32(MemoryLayout<blyan_error>.size)
        let status = body(&error)
        guard status != BLYAN_OK else { return }
        let text = unsafe withUnsafeBytes(of: error.text) {
            unsafe String(decoding: $0.prefix(Int(error.text_length)), as: UTF8.self).printable
        }
        let reason = text.isEmpty ? "no reason given" : text
        throw KernelError(
            code(of: status), "plugin \(manifest.name), \(function): \(reason) (status \(status))")
    }

    private static func code(of status: blyan_status) -> KernelError.Code {
        switch Int(status) {
        case BLYAN_E_MALFORMED: .malformed
        case BLYAN_E_LIMIT: .limit
        case BLYAN_E_CANCELLED, BLYAN_E_DEADLINE: .cancelled
        case BLYAN_E_IO: .io
        case BLYAN_E_INTEGRITY: .integrity
        case BLYAN_E_CONFIG: .config
        default: .plugin
        }
    }
}

extension String {
    /// Without control characters, which a plugin's words could steer a terminal with.
    var printable: String {
        String(
            String.UnicodeScalarView(
                unicodeScalars.map { $0.properties.generalCategory == .control ? " " : $0 }))
    }
}

/// The abilities of ABI 1.0: which one a kind must have, and how many functions each table holds.
private enum AbilityCatalogue {
    static let required: [PluginManifest.Kind: String] = [
        .format: BLYAN_FORMAT_DECODE, .router: BLYAN_ROUTER_ROUTE, .gate: BLYAN_GATE_JUDGE,
        .reward: BLYAN_REWARD_SETTLE,
    ]
    static let functions = [
        BLYAN_FORMAT_VIEW: 1, BLYAN_FORMAT_DECODE: 2, BLYAN_FORMAT_COMPUTE: 1,
        BLYAN_FORMAT_ENCODE: 1, BLYAN_ROUTER_ROUTE: 4,
        BLYAN_GATE_JUDGE: 1, BLYAN_REWARD_SETTLE: 1,
    ]

    /// Every ability table begins with two words, the first its size, and holds function pointers after them.
    static func tables(
        of manifest: PluginManifest, _ entry: blyan_plugin, _ instance: UnsafeMutableRawPointer?
    ) throws(KernelError) -> [String: UnsafeRawPointer] {
        var found = unsafe [String: UnsafeRawPointer]()
        for (id, count) in functions where id.hasPrefix("blyan.\(manifest.kind.rawValue).") {
            guard let table = unsafe entry.get_ability(instance, id) else { continue }
            let size = unsafe Int(table.load(as: UInt32.self)), expected = 8 + 8 * count
            guard size >= expected else {
                throw KernelError(
                    .plugin,
                    "plugin \(manifest.name): table \(id) has \(size) bytes, expected \(expected)")
            }
            for i in 0..<count
            where unsafe table.load(fromByteOffset: 8 + 8 * i, as: UInt.self) == 0 {
                throw KernelError(
                    .plugin, "plugin \(manifest.name): function \(i) of table \(id) is null")
            }
            unsafe found[id] = table
        }
        if let id = required[manifest.kind], unsafe found[id] == nil {
            throw KernelError(
                .plugin, "plugin \(manifest.name) of kind \(manifest.kind.rawValue) lacks \(id)")
        }
        return unsafe found
    }
}
