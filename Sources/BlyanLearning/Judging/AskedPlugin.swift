package import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// A gate or a reward policy that is asked about a candidate.
package struct AskedPlugin: Sendable, Equatable {
    package let kind: PluginManifest.Kind
    package let name, version: String
    /// SHA-256 of its library: what is counted is that this very code was asked about this candidate.
    package let library: Digest

    package init(_ plugin: LoadedPlugin) {
        (kind, name) = (plugin.manifest.kind, plugin.manifest.name)
        (version, library) = (plugin.manifest.version, plugin.sha256)
    }

    /// The plugin that a manifest declares, before it is loaded; nil if no library of it is trusted, which is not loaded.
    package init?(_ manifest: PluginManifest) {
        guard let library = manifest.sha256 else { return nil }
        (kind, name) = (manifest.kind, manifest.name)
        (version, self.library) = (manifest.version, library)
    }

    /// Kinds of plugin that are asked about a candidate.
    fileprivate static let kinds: [PluginManifest.Kind] = [.gate, .reward]

    /// As a file has it: the name stands under the kind.
    fileprivate var members: [String: JSONValue] {
        [
            kind.rawValue: .string(name), "version": .string(version),
            "library": .string(library.description),
        ]
    }

    /// Nil for what is none.
    fileprivate init?(_ value: JSONValue) {
        guard let kind = Self.kinds.first(where: { value[$0.rawValue] != nil }),
            let name = value[kind.rawValue]?.string, let version = value["version"]?.string,
            let library = value["library"]?.string.flatMap({ Digest(hex: $0) })
        else { return nil }
        (self.kind, self.name, self.version, self.library) = (kind, name, version, library)
    }
}

/// A plugin that was being asked about a candidate when the node ended, and how often in a row.
package struct PluginDeath: Sendable, Equatable {
    package let plugin: AskedPlugin
    /// How often in a row.
    package let count: Int64
    /// When it was asked last, UTC milliseconds.
    package let asked: Int64

    /// Deaths in a row after which that library is not asked about the candidate any more by itself: one may be a power cut.
    static let limit: Int64 = 2

    /// Whether it is asked about this candidate only if somebody says so.
    package var isFinal: Bool { count >= Self.limit }

    /// A sentence that names plugin and candidate.
    package func message(_ candidate: Digest) -> String {
        let times = count == 2 ? " twice" : count > 2 ? " \(count) times" : ""
        let deed = plugin.kind == .gate ? "judged" : "was asked about"
        let what =
            "the \(plugin.kind.noun) \(plugin.name) \(plugin.version) ended the node\(times) while it \(deed) candidate \(candidate)"
        return isFinal
            ? what + ": it is asked about it only on request"
            : what + ", or the node was killed then: it is asked once more, after all others"
    }

    /// What to do about it.
    package func hint(_ candidate: Digest) -> String {
        "mend the \(plugin.kind.noun), `blyan plugin trust \(plugin.name)` and `blyan plugin reload`; or ask it once more: `blyan candidate judge \(candidate.description.prefix(16))`"
    }

    // MARK: As it is stored

    /// As the file of its candidate has it.
    package var json: JSONValue { .object(members) }

    fileprivate var members: [String: JSONValue] {
        plugin.members.merging(["count": .int(count), "asked": .int(asked)]) { own, _ in own }
    }

    /// Nil for what is none.
    init?(_ value: JSONValue) {
        guard let plugin = AskedPlugin(value), let asked = value["asked"]?.int else { return nil }
        self.init(plugin, count: value["count"]?.int ?? 1, asked: asked)
    }

    init(_ plugin: AskedPlugin, count: Int64, asked: Int64) {
        (self.plugin, self.count, self.asked) = (plugin, count, asked)
    }
}

/// Which plugin is being asked about which candidate: a file in `HOME/candidates`, there as long as it is asked.
///
/// It must outlive this process and no more, so that it is not synced: after a power cut it may be gone or empty, and
/// then no plugin is blamed for what it did not do.
struct AskedFile: Sendable {
    /// Its name, which is no candidate's.
    static let name = "asked.json"
    private static let format = "blyan-asked/1"
    private let path: String

    init(folder: URL) { path = folder.appendingPathComponent(Self.name).path }

    /// What a process left that ended while it asked a plugin; nil if there is no such file, or it is not whole.
    var left: (candidate: Digest, death: PluginDeath)? {
        guard let bytes = FileManager.default.contents(atPath: path),
            let value = try? JSONValue(parsing: Array(bytes)),
            value["format"]?.string == Self.format,
            let candidate = value["candidate"]?.string.flatMap({ Digest(hex: $0) }),
            let death = PluginDeath(value)
        else { return nil }
        return (candidate, death)
    }

    /// - Throws: ``KernelError`` with code `io`.
    func write(_ candidate: Digest, _ death: PluginDeath) throws(KernelError) {
        var members = death.members
        members["format"] = .string(Self.format)
        members["candidate"] = .string(candidate.description)
        let bytes = JSONValue.object(members).canonical()
        let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        let count = unsafe file < 0 ? -1 : Foundation.write(file, bytes, bytes.count)
        let failure = unsafe String(cString: strerror(errno))
        if file >= 0 { close(file) }
        guard count == bytes.count else {
            remove()
            throw KernelError(
                .io, "cannot write \(path), which says which plugin is asked: \(failure)",
                hint: "make room on the disk; the candidate waits")
        }
    }

    func remove() { unsafe unlink(path) }
}
