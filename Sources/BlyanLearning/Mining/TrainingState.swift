internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
package import Foundation

/// Where an interrupted training goes on: weights and averages of the trained parts after a step, in one file.
///
///     "BLYANTR1"  u64 length of the header  header (JSON)  f32 of each tensor: values, first, second averages
package struct TrainingState: Sendable {
    private let file: URL
    /// What the training is of; another one is not gone on with.
    private let identity: JSONValue
    private static let magic = Array("BLYANTR1".utf8)

    /// The state of the training that `identity` names.
    package init(file: URL, identity: [String: String]) {
        self.file = file
        self.identity = .object(identity.mapValues(JSONValue.string))
    }

    /// Writes the state; the last one stays until this one is durable.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    package func save(_ optimizer: Optimizer) throws {
        let header = JSONValue.object([
            "identity": identity, "steps": .int(Int64(optimizer.steps)),
        ]).canonical()
        var bytes = Self.magic
        unsafe withUnsafeBytes(of: UInt64(header.count).littleEndian) {
            unsafe bytes.append(contentsOf: $0)
        }
        bytes += header
        for tensor in optimizer.tensors {
            for matrix in [tensor.values, tensor.first, tensor.second] { matrix.append(to: &bytes) }
        }
        bytes += SHA256.hash(bytes).bytes
        let folder = file.deletingLastPathComponent()
        try? FileManager.default.createDirectory(
            at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        try DurableFile.write(bytes, to: file, mode: 0o600)
    }

    /// Puts the saved state in place.
    ///
    /// - Returns: Whether there was one of this very training, whole.
    package func restore(_ optimizer: Optimizer) -> Bool {
        guard let data = FileManager.default.contents(atPath: file.path) else { return false }
        let bytes = Array(data)
        guard bytes.count > 48, Array(bytes.prefix(8)) == Self.magic,
            SHA256.hash(bytes.dropLast(32).map { $0 }).bytes == Array(bytes.suffix(32))
        else { return false }
        let length = bytes[8..<16].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(bytes.count - 48),
            let header = try? JSONValue(parsing: Array(bytes[16..<16 + Int(length)])),
            header["identity"] == identity,
            let steps = header["steps"]?.int.flatMap({ Int(exactly: $0) }), steps > 0
        else { return false }
        let matrices = optimizer.tensors.flatMap { [$0.values, $0.first, $0.second] }
        let size = matrices.reduce(0) { $0 + 4 * $1.rows * $1.columns }
        var at = 16 + Int(length)
        guard bytes.count - 32 - at == size else { return false }
        for matrix in matrices { matrix.read(bytes, &at) }
        optimizer.resume(after: steps)
        return true
    }

    /// Forgets the state: the training has ended.
    package func remove() { unsafe unlink(file.path) }
}

extension Matrix {
    fileprivate func append(to bytes: inout [UInt8]) {
        for i in 0..<rows {
            unsafe bytes.append(
                contentsOf: UnsafeRawBufferPointer(start: row(i), count: 4 * columns))
        }
    }

    fileprivate func read(_ bytes: [UInt8], _ at: inout Int) {
        for i in 0..<rows {
            unsafe bytes.withUnsafeBytes { all in
                unsafe UnsafeMutableRawBufferPointer(start: row(i), count: 4 * columns)
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: all[at..<at + 4 * columns]))
            }
            at += 4 * columns
        }
    }
}
