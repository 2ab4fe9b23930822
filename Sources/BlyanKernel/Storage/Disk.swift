internal import Foundation
internal import Synchronization

/// The system calls that durability rests on, with one place where a test can make them fail.
public struct Disk: Sendable {
    /// A call that can fail.
    public enum Call: String, Sendable, CaseIterable {
        /// Making or opening a file.
        case open
        /// Appending bytes.
        case write
        /// fsync or fdatasync of a file, fsync of a folder.
        case sync
        /// Giving a file its final name.
        case rename
    }

    /// Asked before each call; an errno makes it fail without being made.
    private let fail: (@Sendable (Call, String) -> Int32?)?

    // What a failed sync should have made durable may be gone without a further error, so that one failure
    // ends all writing through this value and its copies.
    private let syncFailure = FirstFailure()

    /// The real disk; each use begins without a failed sync.
    public static var real: Disk { Disk(fail: nil) }

    /// A disk on which `fail` may refuse calls, for tests; of a refused write half of the bytes are written.
    public init(fail: (@Sendable (Call, String) -> Int32?)?) { self.fail = fail }

    /// Set once.
    private final class FirstFailure: Sendable {
        let error = Mutex<KernelError?>(nil)
    }

    private func error(_ call: Call, _ path: String, _ code: Int32) -> KernelError {
        let reason = unsafe String(cString: strerror(code))
        let hint: String? =
            switch code {
            case ENOSPC, EDQUOT:
                "free space on this disk and run the command again: what is stored is kept"
            case EROFS, EACCES, EPERM: "make the home writable for this user"
            case EIO:
                "the disk reports an error; copy the home to another disk and run `blyan chain check --read-data`"
            default: nil
            }
        return KernelError(
            .io, "cannot \(call.rawValue) \(path): \(reason) (errno \(code))", hint: hint)
    }

    private func attempt(
        _ call: Call, _ path: String, asked: Bool = false, _ body: () -> Int32
    ) throws(KernelError) -> Int32 {
        if call != .open, let failure = syncFailure.error.withLock({ $0 }) { throw failure }
        var code = asked ? 0 : fail?(call, path) ?? 0
        while code == 0 {
            let result = body()
            if result >= 0 { return result }
            if errno != EINTR { code = errno }
        }
        let failure = error(call, path, code)
        if call == .sync { syncFailure.error.withLock { $0 = $0 ?? failure } }
        throw failure
    }

    /// A descriptor, closed on exec.
    func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(KernelError) -> Int32 {
        try attempt(.open, path) { unsafe Foundation.open(path, flags | O_CLOEXEC, mode) }
    }

    /// Writes all bytes at the descriptor's position.
    func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, path: String)
        throws(KernelError)
    {
        var done = 0
        if let code = fail?(.write, path) {
            _ = unsafe Foundation.write(descriptor, bytes.baseAddress, bytes.count / 2)
            throw error(.write, path, code)
        }
        while done < bytes.count {
            // Linux writes at most 2^31 - 4096 bytes a call.
            let part = min(bytes.count - done, 1 << 30)
            done += Int(
                try attempt(.write, path, asked: true) {
                    unsafe Int32(
                        Foundation.write(
                            descriptor, bytes.baseAddress.map { unsafe $0 + done }, part))
                })
        }
    }

    /// Makes a file's bytes durable.
    func sync(_ descriptor: Int32, path: String) throws(KernelError) {
        _ = try attempt(.sync, path) { fdatasync(descriptor) }
    }

    /// Makes the names in a folder durable.
    func sync(folder: String) throws(KernelError) {
        let descriptor = try open(folder, O_RDONLY | O_DIRECTORY)
        defer { close(descriptor) }
        _ = try attempt(.sync, folder) { fsync(descriptor) }
    }

    /// Renames, replacing what has that name.
    func rename(_ from: String, to path: String) throws(KernelError) {
        _ = try attempt(.rename, path) { unsafe Foundation.rename(from, path) }
    }

    /// Makes a folder and those above it; what exists is kept.
    func makeFolder(_ path: String) throws(KernelError) {
        guard !path.isEmpty, unsafe access(path, F_OK) != 0 else { return }
        try makeFolder((path as NSString).deletingLastPathComponent)
        _ = try attempt(.open, path) { unsafe mkdir(path, 0o700) }
    }

    /// Size, or nil if there is no such file.
    static func size(of path: String) -> UInt64? {
        var info = stat()
        guard unsafe stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return nil }
        return UInt64(info.st_size)
    }
}

extension Array<UInt8> {
    /// As `withUnsafeBytes`, which in 6.3 does not carry a typed error through.
    func withRawBytes(_ body: (UnsafeRawBufferPointer) throws(KernelError) -> Void)
        throws(KernelError)
    {
        var failure: KernelError?
        unsafe withUnsafeBytes { bytes in
            do throws(KernelError) { try unsafe body(bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
