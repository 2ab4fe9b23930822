/// The only names that a pickle may mention: constructors of data, never looked up, imported or called.
enum Global: Equatable {
    case orderedDict
    /// A storage class; nil for one without a type.
    case storage(ElementType?)
    case rebuildTensor, rebuildTensorV2, rebuildTensorV3
    case rebuildParameter
    case size
    case device
    case type(ElementType)
    case loadFromBytes
    case reconstruct, array, arrayType, fromBuffer, scalar
    case encode
    case bytes
    case set

    /// By module and name, a line each.
    static let allowed: [String: Global] = {
        var table: [String: Global] = [
            "collections\nOrderedDict": .orderedDict,
            "torch._utils\n_rebuild_tensor": .rebuildTensor,
            "torch._utils\n_rebuild_tensor_v2": .rebuildTensorV2,
            "torch._utils\n_rebuild_tensor_v3": .rebuildTensorV3,
            "torch._utils\n_rebuild_parameter": .rebuildParameter,
            "torch\nSize": .size,
            "torch\ndevice": .device,
            "torch\nUntypedStorage": .storage(nil),
            "torch.storage\nUntypedStorage": .storage(nil),
            "torch.storage\n_load_from_bytes": .loadFromBytes,
            "numpy\nndarray": .array,
            "numpy\ndtype": .arrayType,
            "_codecs\nencode": .encode,
            "__builtin__\nbytes": .bytes,
            "builtins\nbytes": .bytes,
            "__builtin__\nset": .set,
            "builtins\nset": .set,
        ]
        for core in ["numpy.core", "numpy._core"] {
            table["\(core).multiarray\n_reconstruct"] = .reconstruct
            table["\(core).multiarray\nscalar"] = .scalar
            table["\(core).numeric\n_frombuffer"] = .fromBuffer
        }
        for (name, type) in ElementType.torchStorages { table["torch\n\(name)"] = .storage(type) }
        for (name, type) in ElementType.torchTypes { table["torch\n\(name)"] = .type(type) }
        return table
    }()
}
