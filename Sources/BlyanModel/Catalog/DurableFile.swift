package import BlyanKernel
package import Foundation

/// Small files of a home that are there in full or not at all, also after the power failed.
package enum DurableFile {
    /// Writes a file under a temporary name, syncs it, gives it its name and syncs the folder.
    ///
    /// - Throws: ``KernelError`` with code `io`; what had the name before is then untouched.
    package static func write(_ bytes: [UInt8], to file: URL, mode: mode_t) throws(KernelError) {
        let temporary = file.path + ".new"
        // What a dead process left.
        unsafe unlink(temporary)
        let descriptor = unsafe open(
            temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw error("open", temporary) }
        var done = 0
        while done < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { all in
                unsafe Foundation.write(
                    descriptor, all.baseAddress.map { unsafe $0 + done }, all.count - done)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            done += count
        }
        guard done == bytes.count, fsync(descriptor) == 0 else {
            let failure = error("write", temporary)
            close(descriptor)
            unsafe unlink(temporary)
            throw failure
        }
        close(descriptor)
        guard unsafe rename(temporary, file.path) == 0 else { throw error("rename", temporary) }
        try sync(folder: file.deletingLastPathComponent().path)
    }

    /// Makes the names in a folder durable.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    package static func sync(folder: String) throws(KernelError) {
        let names = unsafe open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { if names >= 0 { close(names) } }
        guard names >= 0, fsync(names) == 0 else { throw error("sync", folder) }
    }

    private static func error(_ call: String, _ path: String) -> KernelError {
        KernelError(.io, "cannot \(call) \(path): \(unsafe String(cString: strerror(errno)))")
    }
}
