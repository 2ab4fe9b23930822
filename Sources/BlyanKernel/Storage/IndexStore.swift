internal import CLevelDB
internal import Foundation

// Unchecked: LevelDB's handles may be used from any thread; the rest is immutable.
// Safe: handles are owned by this object and freed in deinit; LevelDB's buffers are copied and freed at once.
/// Ordered keys and values on LevelDB; everything in it can be rebuilt from the log.
@safe package final class IndexStore: @unchecked Sendable {
    private let database: OpaquePointer?
    private let options: OpaquePointer
    private let reading: OpaquePointer
    private let writing: OpaquePointer
    private let cache: OpaquePointer
    private let filter: OpaquePointer

    /// What LevelDB's message means: its C interface gives only text.
    ///
    /// What the system or another process refuses is `io`; any other error of a file means that the index is damaged: a file
    /// of it is gone, cut, or no file at all.
    package static func code(of message: String) -> KernelError.Code {
        let isDamage = ["Corruption: ", "NotFound: ", "Invalid argument: "]
            .contains { message.hasPrefix($0) }
        let refusals = [
            EACCES, EAGAIN, EDQUOT, EFBIG, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS,
        ]
        let isRefused =
            !message.hasPrefix("IO error: ") || message.contains("already held by process")
            || refusals.contains { message.hasSuffix(unsafe String(cString: strerror($0))) }
        return isDamage || !isRefused ? .integrity : .io
    }

    private static func failure(_ what: String, _ message: String) -> KernelError {
        let code = code(of: message)
        return KernelError(
            code, "\(what): \(message)",
            hint: code == .io ? nil : "run `blyan chain reindex`: it rebuilds the index")
    }

    package init(path: String, cache size: Int = 32 << 20) throws(KernelError) {
        unsafe options = leveldb_options_create()
        unsafe reading = leveldb_readoptions_create()
        unsafe writing = leveldb_writeoptions_create()
        unsafe cache = leveldb_cache_create_lru(size)
        unsafe filter = leveldb_filterpolicy_create_bloom(10)
        unsafe leveldb_options_set_create_if_missing(options, 1)
        // Otherwise records of LevelDB's own log that are damaged are dropped without a word.
        unsafe leveldb_options_set_paranoid_checks(options, 1)
        // Four times 16 MiB: of a growing chain's appends a fifth went into merging small tables.
        unsafe leveldb_options_set_write_buffer_size(options, 64 << 20)
        unsafe leveldb_options_set_cache(options, cache)
        unsafe leveldb_options_set_filter_policy(options, filter)
        unsafe leveldb_readoptions_set_verify_checksums(reading, 1)
        var message: UnsafeMutablePointer<CChar>?
        unsafe database = leveldb_open(options, path, &message)
        if unsafe database == nil {
            let text = unsafe Self.take(message)
            throw Self.failure("the index \(path) cannot be opened", text)
        }
    }

    deinit {
        if unsafe database != nil { unsafe leveldb_close(database) }
        unsafe leveldb_options_destroy(options)
        unsafe leveldb_readoptions_destroy(reading)
        unsafe leveldb_writeoptions_destroy(writing)
        unsafe leveldb_cache_destroy(cache)
        unsafe leveldb_filterpolicy_destroy(filter)
    }

    private static func take(_ message: UnsafeMutablePointer<CChar>?) -> String {
        guard let message = unsafe message else { return "unknown error" }
        defer { unsafe leveldb_free(message) }
        return unsafe String(cString: message)
    }

    private func check(_ message: UnsafeMutablePointer<CChar>?) throws(KernelError) {
        guard let message = unsafe message else { return }
        throw Self.failure("the index failed", unsafe Self.take(message))
    }

    package func get(_ key: [UInt8]) throws(KernelError) -> [UInt8]? {
        var length = 0
        var message: UnsafeMutablePointer<CChar>?
        let value = unsafe key.withUnsafeBufferPointer { key in
            unsafe key.withMemoryRebound(to: CChar.self) { key in
                unsafe leveldb_get(database, reading, key.baseAddress, key.count, &length, &message)
            }
        }
        try unsafe check(message)
        guard let value = unsafe value else { return nil }
        defer { unsafe leveldb_free(value) }
        return unsafe Array(UnsafeRawBufferPointer(start: value, count: length))
    }

    /// Writes all or nothing; not synced, since the log has it.
    package func put(_ pairs: [(key: [UInt8], value: [UInt8])]) throws(KernelError) {
        let batch = unsafe leveldb_writebatch_create()
        defer { unsafe leveldb_writebatch_destroy(batch) }
        for (key, value) in pairs {
            unsafe key.withUnsafeBytes { key in
                unsafe value.withUnsafeBytes { value in
                    unsafe leveldb_writebatch_put(
                        batch, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count,
                        value.baseAddress?.assumingMemoryBound(to: CChar.self), value.count)
                }
            }
        }
        var message: UnsafeMutablePointer<CChar>?
        unsafe leveldb_write(database, writing, batch, &message)
        try unsafe check(message)
    }

    /// Makes what was written durable; while nobody else writes.
    package func sync() throws(KernelError) {
        unsafe leveldb_writeoptions_set_sync(writing, 1)
        defer { unsafe leveldb_writeoptions_set_sync(writing, 0) }
        try put([])
    }

    /// Calls `body` for keys in [from, to) in order, or in falling order, until it answers false.
    package func scan(
        from: [UInt8], to: [UInt8], reverse: Bool = false,
        _ body: (_ key: [UInt8], _ value: [UInt8]) throws(KernelError) -> Bool
    ) throws(KernelError) {
        guard let iterator = unsafe leveldb_create_iterator(database, reading) else { return }
        defer { unsafe leveldb_iter_destroy(iterator) }
        let start = reverse ? to : from
        unsafe start.withUnsafeBytes { key in
            unsafe leveldb_iter_seek(
                iterator, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count)
        }
        if reverse {
            if unsafe leveldb_iter_valid(iterator) != 0 {
                unsafe leveldb_iter_prev(iterator)
            } else {
                unsafe leveldb_iter_seek_to_last(iterator)
            }
        }
        while unsafe leveldb_iter_valid(iterator) != 0 {
            var length = 0
            let keyBytes = unsafe leveldb_iter_key(iterator, &length)
            let key = unsafe Array(UnsafeRawBufferPointer(start: keyBytes, count: length))
            let outside =
                reverse ? key.lexicographicallyPrecedes(from) : !key.lexicographicallyPrecedes(to)
            if outside { break }
            let valueBytes = unsafe leveldb_iter_value(iterator, &length)
            let value = unsafe Array(UnsafeRawBufferPointer(start: valueBytes, count: length))
            guard try body(key, value) else { return }
            if reverse {
                unsafe leveldb_iter_prev(iterator)
            } else {
                unsafe leveldb_iter_next(iterator)
            }
        }
        var message: UnsafeMutablePointer<CChar>?
        unsafe leveldb_iter_get_error(iterator, &message)
        try unsafe check(message)
    }
}
