internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// A gate that was being asked about a candidate when the node ended, and how often in a row.
package struct GateDeath: Sendable, Equatable {
    /// The gate's name and version.
    package let gate, version: String
    /// SHA-256 of its library: what is counted is that this very code was asked about this candidate.
    package let library: Digest
    /// How often in a row.
    package let count: Int64
    /// When it was asked last, UTC milliseconds.
    package let asked: Int64

    /// Deaths in a row after which the candidate is not given to that library any more by itself: one may be a power cut.
    static let limit: Int64 = 2

    /// Whether it is asked about this candidate only if somebody says so.
    package var isFinal: Bool { count >= Self.limit }

    /// A sentence that names gate and candidate.
    package func message(_ candidate: Digest) -> String {
        let times = count == 2 ? " twice" : count > 2 ? " \(count) times" : ""
        let what =
            "the gate \(gate) \(version) ended the node\(times) while it judged candidate \(candidate)"
        return isFinal
            ? what + ": it is asked about it only on request"
            : what + ", or the node was killed then: it is asked once more, after all others"
    }

    /// What to do about it.
    package func hint(_ candidate: Digest) -> String {
        "mend the gate, `blyan plugin trust \(gate)` and `blyan plugin reload`; or ask it once more: `blyan candidate judge \(candidate.description.prefix(16))`"
    }

    // MARK: As it is stored

    /// As the file of its candidate has it.
    var json: JSONValue {
        .object([
            "gate": .string(gate), "version": .string(version),
            "library": .string(library.description), "count": .int(count), "asked": .int(asked),
        ])
    }

    /// Nil for what is none.
    init?(_ value: JSONValue) {
        guard let gate = value["gate"]?.string, let version = value["version"]?.string,
            let library = value["library"]?.string.flatMap({ Digest(hex: $0) }),
            let asked = value["asked"]?.int
        else { return nil }
        self.init(
            gate: gate, version: version, library: library, count: value["count"]?.int ?? 1,
            asked: asked)
    }

    init(gate: String, version: String, library: Digest, count: Int64, asked: Int64) {
        self.gate = gate
        self.version = version
        self.library = library
        self.count = count
        self.asked = asked
    }

    /// The same gate asked at another time.
    func counted(_ count: Int64, asked: Int64) -> GateDeath {
        GateDeath(gate: gate, version: version, library: library, count: count, asked: asked)
    }
}

/// Which gate is being asked about which candidate: a file in `HOME/candidates`, there as long as the gate is asked.
///
/// It must outlive this process and no more, so that it is not synced: after a power cut it may be gone or empty, and
/// then no gate is blamed for what it did not do.
struct AskedFile: Sendable {
    /// Its name, which is no candidate's.
    static let name = "asked.json"
    private static let format = "blyan-asked/1"
    private let path: String

    init(folder: URL) { path = folder.appendingPathComponent(Self.name).path }

    /// What a process left that ended while it asked a gate; nil if there is no such file, or it is not whole.
    var left: (candidate: Digest, death: GateDeath)? {
        guard let bytes = FileManager.default.contents(atPath: path),
            let value = try? JSONValue(parsing: Array(bytes)),
            value["format"]?.string == Self.format,
            let candidate = value["candidate"]?.string.flatMap({ Digest(hex: $0) }),
            let death = GateDeath(value)
        else { return nil }
        return (candidate, death)
    }

    /// - Throws: ``KernelError`` with code `io`.
    func write(_ candidate: Digest, _ death: GateDeath) throws(KernelError) {
        guard case .object(var members) = death.json else { return }
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
                .io, "cannot write \(path), which says which gate is asked: \(failure)",
                hint: "make room on the disk; the candidate waits")
        }
    }

    func remove() { unsafe unlink(path) }
}
