internal import BlyanPluginKit
internal import CBlyanPlugin

/// A tensor of a payload with its name and its bytes.
struct StoredTensor {
    let name: String
    let shape: Tensor
    let blob: Blob
    /// CRC-32 of all of `blob`, where the container has one.
    let checksum: UInt32?

    /// The first dimension; 1 for a vector or a single number.
    var rows: UInt64 { shape.sizes.count < 2 ? 1 : shape.sizes[0] }
    /// The product of the other dimensions.
    var columns: UInt64 { shape.count / rows }

    /// Whether elements lie row after row without gaps.
    var isContiguous: Bool {
        var step: UInt64 = 1
        for (size, stride) in zip(shape.sizes, shape.strides).reversed() where size != 1 {
            guard stride == step else { return false }
            step *= size
        }
        return true
    }

    /// The place of the first element, if the host can read all of them there.
    var place: UInt64? {
        let offset = blob.offset + shape.offset * shape.type.size
        let isReadable = shape.type.code != nil && isContiguous && !blob.isLatin
        return isReadable && offset % shape.type.size == 0 ? offset : nil
    }
}

/// The tensors of a payload, in the order in which the object holds them.
struct StoredTensors {
    private(set) var tensors: [StoredTensor] = []

    init(_ payload: borrowing Payload) throws(PluginError) {
        guard payload.size >= 4 else { throw malformed("\(payload.size) bytes are no pickle") }
        let head = Blob(offset: 0, length: 4, count: 4)
        var stream = ByteStream(head)
        var names: Set<String> = []
        var visits = 0
        if try stream.read(payload, 4) == ZipArchive.localMagic {
            let archive = try ZipArchive(payload)
            var machine = Machine(.zip, archive.pickle.blob, payloadSize: payload.size)
            let root = try machine.run(payload)
            guard machine.stream.isAtEnd else {
                throw malformed("bytes follow the pickle in entry \(archive.pickle.name)")
            }
            try archive.place(&machine.storages)
            try flatten(root, "", 0, machine, &names, &visits)
            return
        }
        let whole = Blob(offset: 0, length: payload.size, count: payload.size)
        var machine = Machine(.raw, whole, payloadSize: payload.size)
        var root = try machine.run(payload)
        if root == .magic {
            let after = machine.stream
            machine = Machine(.legacy, whole, payloadSize: payload.size)
            machine.stream = after
            root = try machine.finishLegacy(payload)
        }
        guard machine.stream.isAtEnd else {
            throw malformed("bytes follow the pickle, at byte \(machine.stream.offset)")
        }
        try flatten(root, "", 0, machine, &names, &visits)
    }

    /// Gives names to the tensors in `value`: keys and positions, with dots between.
    ///
    /// Everything else is passed over.
    private mutating func flatten(
        _ value: Value, _ name: String, _ depth: Int, _ machine: Machine,
        _ names: inout Set<String>,
        _ visits: inout Int
    ) throws(PluginError) {
        visits += 1
        guard visits <= Limits.visits, depth <= Limits.nesting else {
            throw exceeded(
                "the object under \(named(name)) is over \(Limits.visits) values or \(Limits.nesting) containers deep"
            )
        }
        guard name.utf8.count <= Limits.text else {
            throw exceeded("the name \(named(name))... is over \(Limits.text) bytes")
        }
        let prefix = name.isEmpty ? "" : name + "."
        switch value {
        case .tensor(let number):
            try add(machine.tensors[number], name, machine, &names)
        case .array(let number):
            guard let array = machine.arrays[number] else {
                throw malformed("array \(named(name)) was begun and never filled")
            }
            try add(array, name, machine, &names)
        case .tuple(let number), .list(let number):
            for (i, value) in machine.sequences[number].enumerated() {
                try flatten(value, prefix + "\(i)", depth + 1, machine, &names, &visits)
            }
        case .dict(let number):
            for (key, value) in machine.dicts[number] where value.isBranch {
                let text: String
                if let string = machine.string(key) {
                    text = string
                } else if case .int(let number) = key {
                    text = "\(number)"
                } else {
                    throw unsupported(
                        "a key under \(named(name)) is neither short text nor a number")
                }
                try flatten(value, prefix + text, depth + 1, machine, &names, &visits)
            }
        default: break
        }
    }

    private func named(_ name: String) -> String {
        name.isEmpty ? "the root" : String(name.prefix(100))
    }

    private mutating func add(
        _ shape: Tensor, _ name: String, _ machine: Machine, _ names: inout Set<String>
    ) throws(PluginError) {
        // No row and no column can be made of it, and nothing is lost.
        guard shape.count > 0 else { return }
        let name = name.isEmpty ? "tensor" : name
        guard names.insert(name).inserted else {
            throw malformed("two tensors are named \(named(name))")
        }
        guard tensors.count < Limits.tensors else {
            throw exceeded("over \(Limits.tensors) tensors")
        }
        switch shape.data {
        case .storage(let number):
            let storage = machine.storages[number]
            guard let blob = storage.blob else {
                throw malformed("storage \(storage.key) of \(named(name)) is not there")
            }
            tensors.append(
                StoredTensor(name: name, shape: shape, blob: blob, checksum: storage.checksum))
        case .bytes(let number):
            tensors.append(
                StoredTensor(name: name, shape: shape, blob: machine.blobs[number], checksum: nil))
        }
    }
}

extension Value {
    /// Whether a tensor may be in it.
    var isBranch: Bool {
        switch self {
        case .tuple, .list, .dict, .tensor, .array: true
        default: false
        }
    }
}
