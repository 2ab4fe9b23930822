internal import BlyanKernel
internal import CBlyanPlugin

/// The tensors of files that a format plugin reads: `pytorch_model.bin`, one or several under an index.
struct ForeignTensors: NamedTensors {
    let entries: [String: TensorEntry]
    let files: [MappedFile]

    /// Maps every file and asks the plugin what is in it.
    ///
    /// - Throws: ``KernelError`` naming the file and what the plugin says; ``ModelError`` naming the file or the
    ///   tensor on which index and files differ.
    init(
        directory: String, files names: [String], index: WeightIndex?, format: FormatPlugin
    ) throws {
        var entries: [String: TensorEntry] = [:]
        var files: [MappedFile] = []
        for name in names {
            let file = ForeignFile(try MappedFile(path: "\(directory)/\(name)"), format)
            files.append(file.file)
            let tensors = try file.call { () throws(KernelError) in try format.describe(file) }
            for (i, tensor) in tensors.enumerated() {
                try index?.check(tensor.name, liesIn: name)
                entries[tensor.name] = try ForeignTensor(file, tensor, index: i).entry
            }
        }
        try index?.checkComplete(entries)
        self.entries = entries
        self.files = files
    }
}

/// A file as the payload of a format plugin; nothing was signed, so nothing is compared.
private final class ForeignFile: PayloadBytes {
    let file: MappedFile
    let format: FormatPlugin

    init(_ file: MappedFile, _ format: FormatPlugin) {
        self.file = file
        self.format = format
    }

    var size: UInt64 { UInt64(unsafe file.bytes.count) }

    func read(offset: UInt64, length: UInt64) throws(KernelError) -> UnsafeRawPointer {
        let (end, overflow) = offset.addingReportingOverflow(length)
        guard !overflow, end <= size, let base = unsafe file.bytes.baseAddress else {
            throw KernelError(
                .malformed, "bytes \(offset) + \(length) leave \(file.path), which has \(size)")
        }
        return unsafe base + Int(offset)
    }

    /// Calls the plugin; its error gets the file's name, and counts for nothing if the file changed meanwhile.
    func call<R>(_ body: () throws(KernelError) -> R) throws -> R {
        try file.checkUnchanged()
        let result = Result { () throws(KernelError) in try body() }
        try file.checkUnchanged()
        do throws(KernelError) { return try result.get() } catch {
            throw KernelError(error.code, "\(file.path): \(error.message)", hint: error.hint)
        }
    }
}

/// One tensor of a foreign file, as its elements lie row after row.
private struct ForeignTensor: LentBytes {
    private let file: ForeignFile
    private let tensor: TensorDescription
    private let index: Int
    private let rowBytes: Int

    init(_ file: ForeignFile, _ tensor: TensorDescription, index: Int) throws(ModelError) {
        self.file = file
        self.tensor = tensor
        self.index = index
        let width = TensorDescription.byteCount(ofDtype: tensor.dtype).map { Int($0) } ?? 0
        let row = tensor.columns.multipliedReportingOverflow(
            by: max(width, MemoryLayout<Float>.size))
        guard !row.overflow, !row.partialValue.multipliedReportingOverflow(by: tensor.rows).overflow
        else {
            throw ModelError(
                "\(file.file.path): tensor \(tensor.name) has a shape whose size does not fit 63 bits"
            )
        }
        rowBytes = tensor.columns * width
    }

    var entry: TensorEntry {
        let names = [
            UInt32(BLYAN_DTYPE_F32): "F32", UInt32(BLYAN_DTYPE_F16): "F16",
            UInt32(BLYAN_DTYPE_BF16): "BF16",
        ]
        return TensorEntry(
            name: tensor.name, shape: [tensor.rows, tensor.columns], isFlattened: true,
            dtypeName: names[tensor.dtype] ?? tensor.dtypeName, bytes: self,
            range: 0..<tensor.rows * rowBytes)
    }

    /// Lends bytes as they lie in the file where the plugin says that they do, else decodes the rows that are needed.
    func withBytes(_ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let rows = range.lowerBound / rowBytes..<(range.upperBound + rowBytes - 1) / rowBytes
        let isInPlace =
            !tensor.data.isEmpty && tensor.raw.layout == UInt32(BLYAN_LAYOUT_ROWS)
            && tensor.raw.row_stride == UInt64(rowBytes)
        // Decoding the first row makes the plugin check what its container says of all bytes (CRC-32 in a zip).
        if isInPlace, rows.lowerBound == 0 { try unsafe decode(0..<1) { _ in } }
        guard !isInPlace else {
            let start = Int(tensor.data.lowerBound)
            return try unsafe file.file.withBytes(
                start + range.lowerBound..<start + range.upperBound, body)
        }
        let first = rows.lowerBound * rowBytes
        try unsafe decode(rows) { bytes in
            try unsafe body(
                UnsafeRawBufferPointer(
                    rebasing: bytes[range.lowerBound - first..<range.upperBound - first]))
        }
    }

    private func decode(_ rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Void) throws
    {
        let count = rows.count * tensor.columns
        let out = AlignedBuffer<Float>(count: count)
        try file.call { () throws(KernelError) in
            try unsafe file.format.decode(
                file, tensor: tensor, index: index, rows: rows,
                into: UnsafeMutableBufferPointer(start: out.pointer, count: count))
        }
        // Back to what is stored, which f32 holds exactly: in place, a narrower element never passes the next one read.
        let narrow = unsafe UnsafeMutableRawPointer(out.pointer)
        let isHalf = tensor.dtype == UInt32(BLYAN_DTYPE_F16)
        if isHalf || tensor.dtype == UInt32(BLYAN_DTYPE_BF16) {
            for i in 0..<count {
                let value = unsafe out.pointer[i]
                let bits =
                    isHalf
                    ? Float16(value).bitPattern : UInt16(truncatingIfNeeded: value.bitPattern >> 16)
                unsafe narrow.storeBytes(of: bits, toByteOffset: 2 * i, as: UInt16.self)
            }
        }
        try unsafe body(UnsafeRawBufferPointer(start: narrow, count: rows.count * rowBytes))
    }
}
