internal import Foundation

/// Manifests and libraries as they lie on disk.
package enum TextFile {
    /// A library or manifest has at most so many bytes.
    static let sizeLimit: UInt64 = 256 << 20

    /// The bytes of a file.
    package static func bytes(_ path: String) throws(KernelError) -> [UInt8] {
        guard unsafe access(path, F_OK) == 0 else {
            throw KernelError(.io, "there is no file \(path)")
        }
        guard let size = Disk.size(of: path), size <= sizeLimit else {
            throw KernelError(.io, "\(path) is no regular file of at most \(sizeLimit) bytes")
        }
        do {
            return try Array(Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            throw KernelError(.io, "cannot read \(path): \(error.localizedDescription)")
        }
    }

    /// The text of a UTF-8 file.
    package static func read(_ path: String) throws(KernelError) -> String {
        guard let text = String(validating: try bytes(path), as: UTF8.self) else {
            throw KernelError(.config, "\(path) is not UTF-8 text")
        }
        return text
    }

    /// `path` as seen from the folder of `file`.
    package static func join(_ file: String, _ path: String) -> String {
        guard !path.hasPrefix("/"), let slash = file.lastIndex(of: "/") else { return path }
        return file[...slash] + path
    }
}
