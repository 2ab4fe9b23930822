internal import Foundation

/// Remembers which payload files were checked in full, for mode ``VerifyMode/remember``.
///
/// Any thread.
public protocol CheckMemory: Sendable {
    /// Whether every byte of the file was checked, lately enough.
    func contains(_ file: FileIdentity) -> Bool
    /// Every byte of the file has just been checked.
    func add(_ file: FileIdentity)
}

/// What a payload file is, as long as nothing touches it, and the root that it was compared with.
public struct FileIdentity: Hashable, Sendable {
    /// Merkle root, device, inode, size, and time of the last change in nanoseconds, as one word each.
    public let text: String

    init(_ info: stat, root: Digest) {
        let changed = Int(info.st_ctim.tv_sec) &* 1_000_000_000 &+ info.st_ctim.tv_nsec
        text = "\(root) \(info.st_dev) \(info.st_ino) \(info.st_size) \(changed)"
    }
}
