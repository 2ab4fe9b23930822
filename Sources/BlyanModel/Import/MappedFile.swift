internal import Foundation

// Safe: the mapping is owned by this object and unmapped in deinit; `bytes` has its exact size.
// Unchecked: immutable after init.
/// A file that is imported from, mapped for reading.
///
/// The file must keep its size while it is open: ``withBytes(_:_:)`` checks before and after that it did. A file
/// that somebody cuts short between these checks ends the process (SIGBUS); nothing of it is stored then.
@safe package final class MappedFile: LentBytes, @unchecked Sendable {
    /// As it was given.
    package let path: String
    /// The whole file, valid as long as this object lives.
    let bytes: UnsafeRawBufferPointer
    private let descriptor: CInt
    private let modified: timespec

    /// Maps a file.
    ///
    /// - Throws: ``ModelError`` if it is absent, empty or no regular file.
    package init(path: String) throws(ModelError) {
        self.path = path
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw ModelError("cannot open \(path): \(unsafe String(cString: strerror(errno)))")
        }
        self.descriptor = descriptor
        var info = stat()
        guard unsafe fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw ModelError("\(path) is not a regular file")
        }
        modified = info.st_mtim
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
    }

    deinit {
        unsafe munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
        close(descriptor)
    }

    /// Name without folder.
    var name: String { URL(fileURLWithPath: path).lastPathComponent }

    /// Name and size, without a hash.
    var source: SourceFile { SourceFile(name: name, size: unsafe bytes.count, sha256: "") }

    /// Lends a range of the file, which must lie within it.
    package func withBytes(
        _ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        try checkUnchanged()
        try unsafe body(UnsafeRawBufferPointer(rebasing: bytes[range]))
        try checkUnchanged()
    }

    /// Throws if the file was written to or cut short since it was mapped.
    func checkUnchanged() throws(ModelError) {
        var info = stat()
        guard unsafe fstat(descriptor, &info) == 0, unsafe Int(info.st_size) == bytes.count,
            info.st_mtim.tv_sec == modified.tv_sec, info.st_mtim.tv_nsec == modified.tv_nsec
        else {
            throw ModelError(
                "\(path) changed while it was read", hint: "import it again when it is complete")
        }
    }
}
