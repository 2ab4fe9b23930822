public import CBlyanPlugin

// Safe and Sendable: what it points at is written before the table is handed out, and never after.
/// The description that a plugin's one exported function returns, built once from a Swift type.
///
///     private let table = PluginTable.router(TopK.self)
///
///     @c(blyan_plugin_entry)
///     public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
///
/// A library holds one plugin: its C functions find the Swift type through a global of this module, which each
/// plugin links statically and keeps to itself.
@safe public struct PluginTable: @unchecked Sendable {
    /// What the exported function returns; static.
    public let entry: UnsafePointer<blyan_plugin>

    // Safe: the tables that `ability` answers with are static.
    /// The plugin's type behind closures, so that no generic parameter reaches a C function.
    @safe struct Kind: Sendable {
        let create: @Sendable (HostServices, String) throws(PluginError) -> any Plugin
        let ability: @Sendable (String) -> UnsafeRawPointer?
    }

    // Written once by init, which runs inside the initialiser of the plugin's global table.
    nonisolated(unsafe) static var kind: Kind?

    /// - Parameter minor: the lowest ABI minor that a plugin of this kind needs.
    init<P: Plugin>(
        _: P.Type, kind: Int, minor: UInt16 = 0,
        ability: @escaping @Sendable (String) -> UnsafeRawPointer?
    ) {
        unsafe Self.kind = Kind(
            create: { host, config throws(PluginError) in try P(host: host, config: config) },
            ability: ability)
        let table = UnsafeMutablePointer<blyan_plugin>.allocate(capacity: 1)
        unsafe table.initialize(to: blyan_plugin())
        unsafe table.pointee.magic = BLYAN_PLUGIN_MAGIC
        unsafe table.pointee.struct_size = UInt32(MemoryLayout<blyan_plugin>.size)
        unsafe table.pointee.abi_major = UInt16(BLYAN_ABI_MAJOR)
        unsafe table.pointee.abi_minor = minor
        unsafe table.pointee.kind = UInt32(kind)
        unsafe table.pointee.name = staticText(P.name)
        unsafe table.pointee.version = staticText(P.version)
        unsafe table.pointee.config_schema = staticText(P.configSchema)
        unsafe table.pointee.create = { unsafe createInstance($0, $1, $2, $3) }
        unsafe table.pointee.destroy = { instance in
            guard let instance = unsafe instance else { return }
            unsafe Unmanaged<Instance>.fromOpaque(instance).release()
        }
        unsafe table.pointee.self_test = { instance, error in
            unsafe answer(error) { () throws(PluginError) in
                try unsafe Instance.at(instance).plugin.selfTest()
            }
        }
        unsafe table.pointee.get_ability = { _, id in
            guard let id = unsafe id else { return nil }
            return unsafe PluginTable.kind?.ability(String(cString: id))
        }
        unsafe entry = UnsafePointer(table)
    }
}

// Safe and Sendable: written before it is handed out, never after, never freed.
/// A static ability table.
@safe struct Ability: @unchecked Sendable {
    let table: UnsafeRawPointer

    init<Table>(_ table: Table) {
        let copy = UnsafeMutablePointer<Table>.allocate(capacity: 1)
        unsafe copy.initialize(to: table)
        unsafe self.table = UnsafeRawPointer(copy)
    }
}

/// What an instance handle points at.
final class Instance {
    let plugin: any Plugin
    let host: HostServices
    init(_ plugin: any Plugin, host: HostServices) {
        self.plugin = plugin
        self.host = host
    }

    /// The instance behind a handle that `create` gave out.
    static func at(_ handle: UnsafeMutableRawPointer?) throws(PluginError) -> Instance {
        guard let handle = unsafe handle else {
            throw PluginError(BLYAN_E_ARGUMENT, "the instance is null")
        }
        return unsafe Unmanaged<Instance>.fromOpaque(handle).takeUnretainedValue()
    }

    /// The plugin of that handle, where `P` is the one type that this library makes instances of.
    static func plugin<P: Plugin>(
        _ handle: UnsafeMutableRawPointer?, as _: P.Type
    ) throws(PluginError) -> P {
        try unsafe unsafeDowncast(at(handle).plugin, to: P.self)
    }
}

private func createInstance(
    _ host: UnsafePointer<blyan_host>?, _ config: blyan_string,
    _ out: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
    _ error: UnsafeMutablePointer<blyan_error>?
) -> blyan_status {
    unsafe answer(error) { () throws(PluginError) in
        guard let host = unsafe host, let out = unsafe out, let kind = unsafe PluginTable.kind
        else {
            throw PluginError(BLYAN_E_ARGUMENT, "create got a null pointer")
        }
        guard unsafe Int(host.pointee.struct_size) >= MemoryLayout<blyan_host>.size else {
            throw PluginError(BLYAN_E_ARGUMENT, "the host's table is shorter than that of ABI 1.0")
        }
        let services = unsafe HostServices(host)
        let plugin = unsafe try kind.create(services, string(config))
        unsafe out.pointee = Unmanaged.passRetained(Instance(plugin, host: services)).toOpaque()
    }
}

/// A copy of text that the other side owns.
func string(_ text: blyan_string) -> String {
    let bytes = unsafe UnsafeRawBufferPointer(start: text.data, count: Int(text.size))
    return unsafe String(decoding: bytes, as: UTF8.self)
}

/// A zero-terminated copy that lives as long as the process.
private func staticText(_ text: String) -> UnsafePointer<CChar> {
    let bytes = text.utf8CString
    let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
    for (i, byte) in bytes.enumerated() { unsafe (copy + i).initialize(to: byte) }
    return unsafe UnsafePointer(copy)
}
