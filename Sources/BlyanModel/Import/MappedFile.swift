internal import CBlyanFault
internal import Foundation

// Safe: the mapping is owned by this object and unmapped in deinit; `bytes` has its exact size.
// Unchecked: immutable after init.
/// A file that is imported from, mapped for reading.
///
/// The file must stay as it is while it is open: ``withBytes(_:_:)`` checks before and after that it did. What was
/// read of a file that somebody cuts short meanwhile is zeros, and is thrown away.
@safe package final class MappedFile: LentBytes, @unchecked Sendable {
    /// As it was given.
    package let path: String
    /// The whole file, valid as long as this object lives; ``checkUnchanged()`` tells whether it was what it is.
    let bytes: UnsafeRawBufferPointer
    private let guardSlot: Int32
    private let descriptor: CInt
    private let changed: timespec

    /// Maps a file.
    ///
    /// - Throws: ``ModelError`` if it is absent, empty or no regular file.
    package init(path: String) throws(ModelError) {
        self.path = path
        // A pipe is refused, not waited for.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw ModelError("cannot open \(path): \(unsafe String(cString: strerror(errno)))")
        }
        self.descriptor = descriptor
        var info = stat()
        guard unsafe fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw ModelError(
                info.st_mode & S_IFMT == S_IFDIR
                    ? "\(path) is a folder, expected a file" : "\(path) is not a regular file")
        }
        // Unlike the time of the last write, nobody can set this one back.
        changed = info.st_ctim
        let size = Int(info.st_size)
        guard size > 0 else {
            close(descriptor)
            throw ModelError("\(path) is empty")
        }
        let mapping = unsafe mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
            let reason = unsafe String(cString: strerror(errno))
            close(descriptor)
            throw ModelError("cannot map \(path): \(reason)")
        }
        unsafe madvise(mapping, size, MADV_SEQUENTIAL)
        unsafe bytes = UnsafeRawBufferPointer(start: mapping, count: size)
        blyan_fault_install()
        guardSlot = unsafe blyan_fault_register(mapping, UInt64(size))
        guard guardSlot >= 0 else {
            throw ModelError("\(path) is one of over \(BLYAN_FAULT_SLOTS) mapped files")
        }
    }

    deinit {
        blyan_fault_release(guardSlot)
        unsafe munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
        close(descriptor)
    }

    /// Name without folder.
    var name: String { URL(fileURLWithPath: path).lastPathComponent }

    /// Lends a range of the file, which must lie within it.
    package func withBytes(
        _ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        try checkUnchanged()
        try unsafe body(UnsafeRawBufferPointer(rebasing: bytes[range]))
        try checkUnchanged()
    }

    /// Throws if the file was written to or cut short since it was mapped, or the disk could not serve it.
    func checkUnchanged() throws(ModelError) {
        let offset = blyan_fault_offset(guardSlot)
        guard offset < 0 else {
            throw ModelError(
                "\(path) could not be read at byte \(offset): it was cut short, or the disk reports an error",
                hint: "import it again when it is complete")
        }
        var info = stat()
        guard unsafe fstat(descriptor, &info) == 0, unsafe Int(info.st_size) == bytes.count,
            info.st_ctim.tv_sec == changed.tv_sec, info.st_ctim.tv_nsec == changed.tv_nsec
        else {
            throw ModelError(
                "\(path) changed while it was read", hint: "import it again when it is complete")
        }
    }
}
