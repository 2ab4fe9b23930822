public import BlyanKernel
public import Foundation
internal import Synchronization

/// Checks of payload files that outlive the process.
///
/// A line of text a file, appended after its last leaf was checked: the file's identity, the machine's boot id, the
/// time. Who can write the lines (mode 0600, in a home of mode 0700) can also replace keys and log, so that they are no
/// weaker than what they vouch for; a line that is torn or lost costs a check. A restart of the machine ends all.
public final class RememberedFiles: CheckMemory {
    private struct State {
        var seconds: Int
        // Times of checks by identity; nil until they are first asked for, and the file read.
        var times: [String: Int]?
    }

    private let path: String
    private let boot: String
    private let now: @Sendable () -> Int
    private let state: Mutex<State>

    /// Lines beyond this many bytes are forgotten.
    private static let sizeLimit = 16 << 20

    /// What the file at `path` says, if there is one; it is read when it is first needed.
    ///
    /// - Parameters:
    ///   - seconds: how long a check holds.
    ///   - now: seconds of a clock that goes on over restarts.
    public init(
        path: URL, seconds: Int, now: @escaping @Sendable () -> Int = { Int(time(nil)) }
    ) {
        self.path = path.path
        self.now = now
        let id = try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)
        let boot = (id ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
        self.boot = boot
        state = Mutex(State(seconds: seconds))
    }

    /// Lets checks hold for another time from now on.
    public func hold(seconds: Int) { state.withLock { $0.seconds = seconds } }

    private func read() -> [String: Int] {
        let bytes = FileManager.default.contents(atPath: path) ?? Data()
        if bytes.count > Self.sizeLimit { try? FileManager.default.removeItem(atPath: path) }
        var times: [String: Int] = [:]
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 7, words[5] == boot, let time = Int(words[6]) else { continue }
            times[words[..<5].joined(separator: " ")] = time
        }
        return times
    }

    /// Whether the file was checked lately enough, and since the machine started.
    public func contains(_ file: FileIdentity) -> Bool {
        let (time, seconds) = state.withLock { state in
            let times = state.times ?? read()
            state.times = times
            return (times[file.text], state.seconds)
        }
        guard !boot.isEmpty, let time else { return false }
        // A clock that was set back proves nothing.
        return time <= now() && now() &- time < seconds
    }

    /// Forgets all checks: one of the files turned out to be damaged although nothing about it had changed.
    public func forget() {
        state.withLock { $0.times = [:] }
        unsafe unlink(path)
    }

    /// Keeps a check, in the file too if it can be written.
    public func add(_ file: FileIdentity) {
        let time = now()
        state.withLock { state in
            state.times = state.times ?? read()
            state.times?[file.text] = time
        }
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        let line = Array("\(file.text) \(boot) \(time)\n".utf8)
        // One call a line: lines of several threads do not mix.
        _ = unsafe write(descriptor, line, line.count)
        close(descriptor)
    }
}
