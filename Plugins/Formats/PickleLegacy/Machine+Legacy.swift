internal import BlyanPluginKit
internal import CBlyanPlugin

extension Machine {
    /// Reads what follows the magic number in a file that `torch.save` wrote without zip: the version, the writer's
    /// system, the object, the keys of its storages, and their bytes.
    ///
    /// - Returns: the object.
    mutating func finishLegacy(_ payload: borrowing Payload) throws(PluginError) -> Value {
        guard try run(payload) == .int(1001) else {
            throw unsupported("PyTorch's file without zip has another version than 1001")
        }
        guard case .dict(let system) = try run(payload) else {
            throw malformed("PyTorch's file without zip does not describe the writer's system")
        }
        for (key, value) in dicts[system] where string(key) == "little_endian" {
            guard value == .bool(true) else {
                throw unsupported("the file is big-endian; only little-endian is read")
            }
        }
        let root = try run(payload)
        guard case .list(let keys) = try run(payload) else {
            throw malformed("PyTorch's file without zip lists no storages")
        }
        for value in sequences[keys] {
            guard let key = string(value), let number = storageNumbers[key],
                storages[number].blob == nil
            else { throw malformed("a storage is listed twice, or was not mentioned before") }
            let storage = storages[number]
            let count = try stream.number(payload, 8)
            guard count.times(storage.elementSize) == storage.byteCount else {
                throw malformed(
                    "storage \(key) has \(count) elements of \(storage.elementSize) bytes, expected \(storage.byteCount) bytes"
                )
            }
            storages[number].blob = try stream.skip(payload, storage.byteCount, budget: &scans)
        }
        for storage in storages where storage.blob == nil {
            throw malformed("storage \(storage.key) is mentioned and not there")
        }
        guard stream.isAtEnd else {
            throw malformed(
                "\(stream.rest) bytes follow the last storage, at byte \(stream.offset)")
        }
        return root
    }
}
