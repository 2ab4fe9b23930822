internal import CBlyanPlugin
internal import CLinux
internal import Glibc
internal import Synchronization

// Safe and Sendable: the entry table is static, and read only.
/// A plugin's library as it lies in memory: read once, hashed, mapped from the very bytes that were hashed.
///
/// It is never unmapped: a Swift image that goes away crashes the host later. The same bytes are mapped once.
@safe struct PluginImage: @unchecked Sendable {
    /// The hash of the bytes that are mapped.
    let sha256: Digest
    /// What the library's one symbol returned, checked for magic and ABI.
    let entry: UnsafePointer<blyan_plugin>

    // dlopen's handles of what is mapped, by hash.
    private static let handles = Mutex<[Digest: UInt]>([:])

    /// A library's bytes in a sealed memory file, not yet mapped: no code of it has run.
    struct Copy: ~Copyable {
        let sha256: Digest
        private let bytes: [UInt8]

        /// Reads a library.
        init(path: String) throws(KernelError) {
            bytes = try TextFile.bytes(path)
            sha256 = SHA256.hash(bytes)
        }

        /// Whether every segment that the loader would map lies in the file: pages beyond its end would end the
        /// process (SIGBUS) while the loader works.
        private var isWhole: Bool {
            func number(_ offset: Int, _ width: Int) -> UInt64? {
                guard offset >= 0, offset <= bytes.count - width else { return nil }
                return bytes[offset..<offset + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
            }
            // ELF64: offset, size and count of the program headers; in each type, offset and size in the file.
            guard let table = number(32, 8).flatMap({ Int(exactly: $0) }), let size = number(54, 2),
                let count = number(56, 2), table <= bytes.count
            else { return false }
            return (0..<Int(count)).allSatisfy { i in
                let header = table + i * Int(size)
                guard let type = number(header, 4), let offset = number(header + 8, 8),
                    let length = number(header + 32, 8)
                else { return false }
                let (end, overflow) = offset.addingReportingOverflow(length)
                return type != 1 || !overflow && end <= UInt64(bytes.count)
            }
        }

        /// A sealed memory file with these bytes.
        func sealed() throws(KernelError) -> Int32 {
            guard isWhole else {
                throw KernelError(
                    .plugin, "the library is no whole ELF file: it has \(bytes.count) bytes",
                    hint: "install it again, then trust it")
            }
            let file = unsafe linux_memory_file("blyan-plugin")
            do throws(KernelError) {
                guard file >= 0 else { throw KernelError(.io, "memfd_create: errno \(errno)") }
                try unsafe bytes.withRawBytes { bytes throws(KernelError) in
                    try unsafe Disk.real.write(bytes, to: file, path: "memory file")
                }
                guard linux_seal(file) == 0 else {
                    throw KernelError(.io, "cannot seal a memory file: errno \(errno)")
                }
                return file
            } catch {
                close(file)
                throw error
            }
        }
    }

    /// Maps a copy, or finds the image that was mapped from equal bytes, and checks what it shows.
    ///
    /// - Throws: ``KernelError/Code/plugin`` naming found and expected.
    static func map(_ copy: borrowing Copy) throws(KernelError) -> PluginImage {
        let sha256 = copy.sha256
        // Held while constructors run: a library is mapped once even if asked for twice at a time.
        let handle = handles.withLock { handles in
            Result { () throws(KernelError) in
                if let handle = handles[sha256] { return handle }
                let handle = try open(copy.sealed())
                handles[sha256] = handle
                return handle
            }
        }
        return try unsafe PluginImage(sha256: sha256, entry: table(in: handle.get()))
    }

    /// Maps a memory file.
    ///
    /// Its descriptor stays open for good when that succeeds: the loader knows images by path,
    /// and would answer with the old one for a number used again.
    private static func open(_ file: Int32) throws(KernelError) -> UInt {
        let handle = unsafe dlopen("/proc/self/fd/\(file)", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)
        guard let handle = unsafe handle else {
            let reason = unsafe String(cString: dlerror())
            close(file)
            throw KernelError(.plugin, "cannot be mapped: \(reason)")
        }
        return UInt(bitPattern: handle)
    }
}

/// Asks a library for its table.
private func table(in handle: UInt) throws(KernelError) -> UnsafePointer<blyan_plugin> {
    let library = unsafe UnsafeMutableRawPointer(bitPattern: handle)
    guard let symbol = unsafe dlsym(library, BLYAN_PLUGIN_SYMBOL) else {
        throw KernelError(.plugin, "has no symbol \(BLYAN_PLUGIN_SYMBOL): it is not a Blyan plugin")
    }
    let function = unsafe unsafeBitCast(symbol, to: blyan_plugin_entry_fn.self)
    guard let table = unsafe function() else {
        throw KernelError(.plugin, "returned no table from \(BLYAN_PLUGIN_SYMBOL)")
    }
    let found = unsafe (
        magic: table.pointee.magic, size: Int(table.pointee.struct_size),
        abi: PluginABI(major: table.pointee.abi_major, minor: table.pointee.abi_minor)
    )
    guard found.magic == BLYAN_PLUGIN_MAGIC else {
        throw KernelError(
            .plugin,
            "shows magic \(String(found.magic, radix: 16)), "
                + "expected \(String(BLYAN_PLUGIN_MAGIC, radix: 16))")
    }
    let host = PluginABI.host
    guard found.abi.major == host.major, found.abi.minor <= host.minor else {
        throw KernelError(
            .plugin, "was built for plugin ABI \(found.abi), this node has \(host)",
            hint: "rebuild the plugin with this node's blyan_plugin.h")
    }
    let expected = unsafe MemoryLayout<blyan_plugin>.size
    guard found.size >= expected else {
        throw KernelError(
            .plugin, "shows a table of \(found.size) bytes, expected at least \(expected)")
    }
    return unsafe table
}

extension PluginABI {
    /// What this node offers.
    public static let host = PluginABI(
        major: UInt16(BLYAN_ABI_MAJOR), minor: UInt16(BLYAN_ABI_MINOR))
}
