internal import BlyanYAML
internal import CBlyanPlugin
internal import Foundation

// Safe and Sendable: services are static tables that any thread may use.
/// Loads plugins from manifests and hands in what the host offers.
///
/// Any thread.
///
/// A library is read, hashed, compared with its manifest and mapped from the very bytes that were hashed; then
/// its table, configuration and self-test are checked. Nothing is ever unloaded: a new generation is loaded
/// beside the old one.
@safe public final class PluginHost: @unchecked Sendable {
    /// How much a plugin's log line matters: `BLYAN_LOG_`.
    public typealias Log = @Sendable (_ level: Int32, _ plugin: String, _ message: String) -> Void

    private let services: [String: UnsafeRawPointer]
    private let log: Log

    /// Makes a host that offers `services` (static tables by id) and gets the plugins' log lines.
    public init(services: [String: UnsafeRawPointer], log: @escaping Log) {
        unsafe self.services = unsafe services
        self.log = log
    }

    /// Loads one plugin.
    ///
    /// - Throws: ``KernelError/Code/plugin`` or ``KernelError/Code/config`` naming plugin, manifest, found and
    ///   expected, and the command that mends it.
    public func load(
        _ manifest: PluginManifest, libraryFolders: [String] = []
    ) throws(KernelError) -> LoadedPlugin {
        do throws(KernelError) {
            let path = try Self.libraryPath(of: manifest, in: libraryFolders)
            let copy = try PluginImage.Copy(path: path)
            guard copy.sha256 == manifest.sha256 else {
                let expected =
                    manifest.sha256.map(\.description) ?? "unset: no library is trusted yet"
                throw KernelError(
                    .plugin,
                    "library \(path) has sha256 \(copy.sha256), the manifest says \(expected)",
                    hint: "if you trust this library: blyan plugin trust \(manifest.name)")
            }
            let image = try PluginImage.map(copy)
            try Self.compare(image, with: manifest)
            return try unsafe LoadedPlugin(
                manifest: manifest, image: image, host: table(for: manifest.name))
        } catch {
            // Also what a self-test says that was told to stop.
            try Cancellation.check()
            throw KernelError(
                error.code, "plugin \(manifest.name) (\(manifest.path)): \(error.message)",
                hint: error.hint)
        }
    }

    /// The hash of the library that a manifest names, as `blyan plugin trust` writes it.
    ///
    /// Runs no code of it.
    public static func libraryHash(
        of manifest: PluginManifest, libraryFolders: [String] = []
    ) throws(KernelError) -> Digest {
        try PluginImage.Copy(path: libraryPath(of: manifest, in: libraryFolders)).sha256
    }

    /// The first library of that name beside the manifest or in a named folder; nowhere else is looked.
    package static func libraryPath(
        of manifest: PluginManifest, in folders: [String]
    ) throws(KernelError) -> String {
        let paths = ([manifest.path] + folders.map { $0 + "/" })
            .map { TextFile.join($0, manifest.library) }
        guard let path = paths.first(where: { Disk.size(of: $0) != nil }) else {
            throw KernelError(
                .plugin, "library \(manifest.library) is not at \(paths.joined(separator: ", "))",
                hint: "add its folder under \"libraries:\" in the node manifest")
        }
        return path
    }

    /// Whether table and manifest say the same, and whether the configuration is valid by the plugin's schema.
    private static func compare(
        _ image: PluginImage, with manifest: PluginManifest
    ) throws(KernelError) {
        let entry = unsafe image.entry.pointee
        guard let name = unsafe entry.name, let version = unsafe entry.version,
            let schema = unsafe entry.config_schema, unsafe entry.create != nil,
            unsafe entry.destroy != nil, unsafe entry.self_test != nil,
            unsafe entry.get_ability != nil
        else { throw KernelError(.plugin, "the library's table has null entries") }
        func agree(_ what: String, _ found: String, _ expected: String) throws(KernelError) {
            guard found != expected else { return }
            throw KernelError(
                .plugin, "the library says \(what) \"\(found)\", the manifest \"\(expected)\"",
                hint: "use the manifest that came with the library")
        }
        let kinds: [Int: PluginManifest.Kind] = [
            BLYAN_KIND_FORMAT: .format, BLYAN_KIND_GATE: .gate, BLYAN_KIND_ROUTER: .router,
            BLYAN_KIND_REWARD: .reward,
        ]
        let kind = unsafe kinds[Int(entry.kind)]?.rawValue ?? "number \(entry.kind)"
        try agree("kind", kind, manifest.kind.rawValue)
        try agree("name", unsafe String(cString: name), manifest.name)
        try agree("version", unsafe String(cString: version), manifest.version)
        let abi = unsafe PluginABI(major: entry.abi_major, minor: entry.abi_minor)
        try agree("abi", abi.description, manifest.abi.description)
        let published = unsafe String(cString: schema)
        try KernelError.reading { () throws(YAMLError) in
            try JSONSchema(published, name: "config schema of \(manifest.name)")
                .check(manifest.config, file: manifest.path, path: "config")
        }
    }

    /// A plugin's own table of services.
    ///
    /// It stays for good, as the plugin may keep it.
    private func table(for plugin: String) -> UnsafePointer<blyan_host> {
        let context = unsafe Unmanaged.passRetained(
            HostContext(plugin: plugin, services: services, log: log))
        let table = UnsafeMutablePointer<blyan_host>.allocate(capacity: 1)
        unsafe table.initialize(
            to: blyan_host(
                struct_size: UInt32(MemoryLayout<blyan_host>.size), abi_major: PluginABI.host.major,
                abi_minor: PluginABI.host.minor, context: context.toOpaque(),
                log: { context, level, message in
                    guard let host = unsafe HostContext.at(context) else { return }
                    let bytes = unsafe UnsafeRawBufferPointer(
                        start: message.data, count: Int(clamping: message.size))
                    host.log(
                        level, host.plugin, unsafe String(decoding: bytes, as: UTF8.self).printable)
                },
                sha256: { _, bytes, digest in
                    guard let digest = unsafe digest else { return blyan_status(BLYAN_E_ARGUMENT) }
                    let view = unsafe UnsafeRawBufferPointer(
                        start: bytes.data, count: Int(clamping: bytes.size))
                    for (i, byte) in unsafe SHA256.hash(view).bytes.enumerated() {
                        unsafe digest[i] = byte
                    }
                    return blyan_status(BLYAN_OK)
                },
                monotonic_ns: { _ in
                    var now = timespec()
                    unsafe clock_gettime(CLOCK_MONOTONIC, &now)
                    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
                },
                is_cancelled: { _ in Cancellation.current.isRequested() ? 1 : 0 },
                get_service: { context, id in
                    guard let host = unsafe HostContext.at(context), let id = unsafe id else {
                        return nil
                    }
                    return unsafe host.services[String(cString: id)]
                }))
        return unsafe UnsafePointer(table)
    }
}

// Safe: the services are static tables.
/// What a plugin's `blyan_host.context` points at.
@safe private final class HostContext {
    let plugin: String
    let services: [String: UnsafeRawPointer]
    let log: PluginHost.Log

    init(plugin: String, services: [String: UnsafeRawPointer], log: @escaping PluginHost.Log) {
        self.plugin = plugin
        unsafe self.services = unsafe services
        self.log = log
    }

    static func at(_ context: UnsafeMutableRawPointer?) -> HostContext? {
        unsafe context.map { unsafe Unmanaged<HostContext>.fromOpaque($0).takeUnretainedValue() }
    }
}
