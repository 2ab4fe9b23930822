import Foundation

/// A safetensors file whose header can be changed at will.
struct Safetensors {
    struct Tensor {
        var dtype: String
        var shape: [Int]
        var offsets: [Int]
    }

    var tensors: [String: Tensor] = [:]
    private var data: Data

    init(_ file: Data) throws {
        let length = file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try JSONSerialization.jsonObject(with: file[8..<8 + length])
        for (name, value) in header as? [String: Any] ?? [:] where name != "__metadata__" {
            let fields = value as? [String: Any] ?? [:]
            tensors[name] = Tensor(
                dtype: fields["dtype"] as? String ?? "", shape: fields["shape"] as? [Int] ?? [],
                offsets: fields["data_offsets"] as? [Int] ?? [])
        }
        data = file[(8 + length)...]
    }

    /// Takes a tensor out, its bytes too.
    mutating func remove(_ name: String) {
        guard let tensor = tensors.removeValue(forKey: name) else { return }
        let (begin, end) = (tensor.offsets[0], tensor.offsets[1])
        data.removeSubrange(data.startIndex + begin..<data.startIndex + end)
        for (other, value) in tensors where value.offsets[0] >= end {
            tensors[other]?.offsets = value.offsets.map { $0 - (end - begin) }
        }
    }

    func bytes() throws -> Data {
        let header = try JSONSerialization.data(
            withJSONObject: tensors.mapValues {
                ["dtype": $0.dtype, "shape": $0.shape, "data_offsets": $0.offsets] as [String: Any]
            })
        let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        return Data(length) + header + data
    }
}
