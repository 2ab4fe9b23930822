internal import BlyanKernel
internal import Foundation
internal import Synchronization

/// A checkpoint that can be imported: what it computes, how it spells, and its tensors by part.
public protocol Checkpoint: Sendable {
    /// The arithmetic.
    var config: ModelConfig { get }
    /// The tokenizer as JSON for the meta block: ``TokenizerDocument`` encoded.
    var tokenizer: TokenizerDocument { get }
    /// Names, sizes and sha256 of the files that were read, for the meta block: reads them all.
    ///
    /// - Throws: ``ModelError`` naming a file that changed or cannot be read.
    func sources() throws -> [SourceFile]
    /// The tensors of one part, in the order of `part.tensors`; optional ones that are absent are left out.
    ///
    /// - Throws: ``ModelError`` naming the tensor, expected and found shape, or the missing name.
    func tensors(of part: PartLayout) throws -> [CheckpointTensor]
}

/// A file that a checkpoint was read from.
public struct SourceFile: Codable, Sendable, Equatable {
    /// Name without folder.
    public var name: String
    /// Bytes.
    public var size: Int
    /// SHA-256 in hex: with it, the meta block names the very bytes that were imported.
    public var sha256: String

    /// Makes a record.
    public init(name: String, size: Int, sha256: String) {
        self.name = name
        self.size = size
        self.sha256 = sha256
    }

    /// Hashes files, each on a core of its own.
    ///
    /// - Throws: ``ModelError`` naming a file that changed or cannot be read.
    static func hashing(_ files: [MappedFile]) throws(ModelError) -> [SourceFile] {
        let results = Mutex<[Int: Result<SourceFile, ModelError>]>([:])
        DispatchQueue.concurrentPerform(iterations: files.count) { i in
            let file = files[i]
            let result = Result { () throws(ModelError) in
                try file.checkUnchanged()
                let hash = unsafe SHA256.hash(file.bytes)
                try file.checkUnchanged()
                return SourceFile(
                    name: file.name, size: unsafe file.bytes.count, sha256: hash.description)
            }
            results.withLock { $0[i] = result }
        }
        let found = results.withLock { $0 }
        var sources: [SourceFile] = []
        for i in files.indices { if let source = try found[i]?.get() { sources.append(source) } }
        return sources
    }
}

// Safe: bytes are handed only to a closure, for the length of its call.
/// One tensor of a checkpoint, row-major and little-endian, read on demand.
@safe public struct CheckpointTensor: Sendable {
    /// Short name as in ``PartLayout/Tensor/name``.
    public let name: String
    /// Output features; 1 for a vector.
    public let rows: Int
    /// Input features.
    public let columns: Int
    /// A `BLYAN_DTYPE_` code: F32, F16 or BF16.
    public let dtype: UInt32
    /// Calls its argument with the tensor's bytes, valid during the call.
    ///
    /// Mapped where the source allows it.
    public let withBytes: @Sendable (_ body: (UnsafeRawBufferPointer) throws -> Void) throws -> Void

    /// Makes a tensor.
    public init(
        name: String, rows: Int, columns: Int, dtype: UInt32,
        withBytes:
            @escaping @Sendable (_ body: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
    ) {
        self.name = name
        self.rows = rows
        self.columns = columns
        self.dtype = dtype
        unsafe self.withBytes = withBytes
    }
}
