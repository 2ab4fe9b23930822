public import BlyanKernel
internal import CBlyanPlugin

/// Where a payload's bytes go while a format writes it.
///
/// Used by one thread.
public protocol PayloadSink: AnyObject {
    /// Appends bytes.
    func write(_ bytes: UnsafeRawBufferPointer) throws(KernelError)
    /// The RFC 6962 tree over everything written so far, cut into leaves of `size`: what a payload stores of it
    /// (``Merkle/stored(_:)``), and its root.
    func closeLeaves(size: UInt64) throws(KernelError) -> (stored: [Digest], root: Digest)
}

// Safe: what it hands out lives until it ends, which is after encode returned.
/// A sink dressed as the C struct that plugins write to, for the length of one encode call.
@safe final class SinkView {
    /// Bytes of one write: no machine has more, so that a plugin that says so is wrong.
    private static let writeLimit = 1 << 44

    private let sink: any PayloadSink
    // The first failure of the host's own, which the caller gets instead of the plugin's words for it.
    private var failure: KernelError?
    // What `leaves` handed out, until encode returns.
    private var leafBytes: [UnsafeMutableBufferPointer<UInt8>] = unsafe []

    init(_ sink: any PayloadSink) { self.sink = sink }

    deinit {
        while let buffer = unsafe leafBytes.popLast() { unsafe buffer.deallocate() }
    }

    /// Runs `body` with the sink, and prefers the host's own error to the one that comes back.
    func lend<R>(
        _ body: (UnsafePointer<blyan_sink>) throws(KernelError) -> R
    ) throws(KernelError) -> R {
        var table = unsafe blyan_sink(
            struct_size: UInt32(MemoryLayout<blyan_sink>.size), reserved: 0,
            context: Unmanaged.passUnretained(self).toOpaque(),
            write: { context, bytes, error in
                unsafe SinkView.at(context).answer(error) { view throws(KernelError) in
                    guard let count = unsafe Int(exactly: bytes.size), count <= SinkView.writeLimit
                    else { throw KernelError(.limit, "a write of more bytes than there are") }
                    try unsafe view.sink.write(
                        UnsafeRawBufferPointer(start: bytes.data, count: count))
                }
            },
            leaves: { context, leafSize, out, count, root, error in
                unsafe SinkView.at(context).answer(error) { view throws(KernelError) in
                    guard let out = unsafe out, let count = unsafe count, leafSize > 0 else {
                        throw KernelError(
                            .plugin, "leaves got a null pointer or leaves of no bytes")
                    }
                    let (hashes, digest) = try view.sink.closeLeaves(size: leafSize)
                    let buffer = UnsafeMutableBufferPointer<UInt8>.allocate(
                        capacity: hashes.count * 32)
                    unsafe view.leafBytes.append(buffer)
                    _ = unsafe buffer.initialize(from: hashes.lazy.flatMap(\.bytes))
                    unsafe out.pointee = UnsafePointer(buffer.baseAddress)
                    unsafe count.pointee = UInt64(hashes.count)
                    if let root = unsafe root {
                        for (i, byte) in digest.bytes.enumerated() { unsafe root[i] = byte }
                    }
                }
            })
        do throws(KernelError) {
            let result = try unsafe body(&table)
            // A plugin that swallowed a failed write has written nothing whole.
            if let failure { throw failure }
            return result
        } catch {
            throw failure ?? error
        }
    }

    private static func at(_ context: UnsafeMutableRawPointer?) -> SinkView? {
        unsafe context.map { unsafe Unmanaged<SinkView>.fromOpaque($0).takeUnretainedValue() }
    }
}

extension SinkView? {
    /// Runs one call of the plugin back into the host.
    fileprivate func answer(
        _ error: UnsafeMutablePointer<blyan_error>?,
        _ body: (SinkView) throws(KernelError) -> Void
    ) -> blyan_status {
        guard let self else { return blyan_status(BLYAN_E_ARGUMENT) }
        do throws(KernelError) {
            try body(self)
            return blyan_status(BLYAN_OK)
        } catch let problem {
            self.note(problem)
            unsafe error?.pointee.write(problem.message)
            return blyan_status(BLYAN_E_IO)
        }
    }
}

extension SinkView {
    fileprivate func note(_ problem: KernelError) { failure = failure ?? problem }
}

// Safe: everything lives until `lend` returns.
/// Sources as the C array of pointers that encode takes.
@safe struct SourceTable {
    private let sources: [FormatPlugin.Source]

    init(_ sources: [FormatPlugin.Source]) { self.sources = sources }

    /// Runs `body` with the array.
    func lend(
        _ body: (UnsafePointer<UnsafePointer<blyan_source>?>?, UInt32) -> blyan_status
    ) -> blyan_status {
        let names = sources.map { Array($0.name.utf8) }
        let text = UnsafeMutableBufferPointer<UInt8>.allocate(
            capacity: max(1, names.reduce(0) { $0 + $1.count }))
        let table = UnsafeMutableBufferPointer<blyan_source>.allocate(capacity: sources.count)
        defer {
            unsafe text.deallocate()
            unsafe table.deallocate()
        }
        var used = 0
        for (i, source) in sources.enumerated() {
            for (j, byte) in names[i].enumerated() { unsafe text[used + j] = byte }
            let name = unsafe text.baseAddress.map {
                unsafe UnsafeRawPointer($0 + used).assumingMemoryBound(to: CChar.self)
            }
            used += names[i].count
            unsafe table.initializeElement(
                at: i,
                to: blyan_source(
                    struct_size: UInt32(MemoryLayout<blyan_source>.size), dtype: source.dtype,
                    rows: UInt64(clamping: source.rows), columns: UInt64(clamping: source.columns),
                    name: blyan_string(data: name, size: UInt64(names[i].count)),
                    data: view(source.data), scales: view(source.scales)))
        }
        let pointers = unsafe table.indices.map { i in
            unsafe table.baseAddress.map { unsafe UnsafePointer($0 + i) }
        }
        return unsafe pointers.withUnsafeBufferPointer {
            unsafe body($0.baseAddress, UInt32(clamping: sources.count))
        }
    }

    private func view(_ bytes: UnsafeRawBufferPointer) -> blyan_bytes {
        unsafe blyan_bytes(
            data: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), size: UInt64(bytes.count))
    }
}
