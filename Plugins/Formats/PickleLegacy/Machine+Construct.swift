internal import BlyanPluginKit
internal import CBlyanPlugin

extension Machine {
    /// What REDUCE makes of a name and arguments.
    mutating func construct(
        _ global: Global, _ arguments: [Value], _ payload: borrowing Payload
    ) throws(PluginError) -> Value {
        switch global {
        case .orderedDict: return try orderedDict(arguments)
        case .rebuildTensor:
            guard arguments.count == 4 else { throw fault("_rebuild_tensor takes 4 arguments") }
            return try tensor(arguments, type: nil)
        case .rebuildTensorV2:
            guard (6...7).contains(arguments.count) else {
                throw fault("_rebuild_tensor_v2 takes 6 or 7 arguments")
            }
            try checkPlain(arguments.dropFirst(6))
            return try tensor(arguments, type: nil)
        case .rebuildTensorV3:
            guard (7...8).contains(arguments.count), case .global(.type(let type)) = arguments[6]
            else { throw fault("_rebuild_tensor_v3 takes 7 or 8 arguments, the seventh a dtype") }
            try checkPlain(arguments.dropFirst(7))
            return try tensor(arguments, type: type)
        case .rebuildParameter:
            guard arguments.count == 3, case .tensor = arguments[0] else {
                throw fault("_rebuild_parameter takes a tensor and 2 arguments")
            }
            return arguments[0]
        case .size:
            guard arguments.count == 1, case .tuple = arguments[0] else {
                throw fault("Size takes a tuple")
            }
            return arguments[0]
        case .device, .set: return .leaf
        case .loadFromBytes:
            guard arguments.count == 1, container == .raw else {
                throw fault("_load_from_bytes takes bytes, in a pickle of its own")
            }
            return try nestedStorage(blob(arguments[0]), payload)
        case .encode:
            guard arguments.count == 2, case .text(let number) = arguments[0],
                string(arguments[1]) == "latin1", !stream.isLatin
            else { throw fault("encode takes text and latin1") }
            blobs.append(try texts[number].blob.asLatin(payload, budget: &scans))
            return .bytes(blobs.count - 1)
        case .bytes:
            guard arguments.isEmpty else { throw fault("bytes takes no arguments") }
            blobs.append(Blob(offset: stream.offset, length: 0, count: 0))
            return .bytes(blobs.count - 1)
        case .reconstruct:
            guard arguments.count == 3, arguments[0] == .global(.array) else {
                throw fault("_reconstruct takes numpy.ndarray and 2 arguments")
            }
            arrays.append(nil)
            return .array(arrays.count - 1)
        case .arrayType:
            guard arguments.count == 3, let code = string(arguments[0]) else {
                throw fault("dtype takes a code and 2 arguments")
            }
            guard let type = ElementType.numpyTypes[code] else {
                throw fault("numpy dtype \(code) is not read", BLYAN_E_UNSUPPORTED)
            }
            arrayTypes.append(ArrayType(type: type))
            return .arrayType(arrayTypes.count - 1)
        case .scalar:
            guard arguments.count == 2, case .arrayType = arguments[0] else {
                throw fault("scalar takes a dtype and bytes")
            }
            return .leaf
        case .fromBuffer: return try fromBuffer(arguments)
        case .storage, .type, .array: throw fault("\(global) is not for building")
        }
    }

    /// What BUILD adds to an object.
    mutating func build(
        _ object: Value, _ state: Value, _ payload: borrowing Payload
    ) throws(PluginError) {
        switch (object, state) {
        case (.dict, .dict): break  // attributes of an OrderedDict, such as _metadata: no tensors
        case (.arrayType(let number), .tuple(let list)):
            let state = sequences[list]
            guard !arrayTypes[number].isBuilt, (8...9).contains(state.count),
                let order = string(state[1]), state[2...4].allSatisfy({ $0 == .none })
            else { throw fault("this state of a numpy.dtype is not read", BLYAN_E_UNSUPPORTED) }
            guard order != ">" else {
                throw fault(
                    "numpy array is big-endian; only little-endian is read", BLYAN_E_UNSUPPORTED)
            }
            guard ["<", "|", "="].contains(order) else { throw fault("byte order \(order)") }
            arrayTypes[number].isBuilt = true
        case (.array(let number), .tuple(let list)):
            let state = sequences[list]
            guard arrays[number] == nil, state.count == 5, state[0] == .int(1) else {
                throw fault("this state of a numpy.ndarray is not read")
            }
            let isFortran = state[3] == .bool(true) || state[3] == .int(1)
            arrays[number] = try array(state[4], state[2], shape: state[1], isFortran: isFortran)
        default: throw fault("this object takes no state", BLYAN_E_UNSUPPORTED)
        }
    }

    /// What a persistent id stands for: ("storage", class, key, place, elements), and None from files without zip.
    mutating func persistent(_ id: Value) throws(PluginError) -> Value {
        guard container.hasStorages else {
            throw fault("a pickle by itself has no storages", BLYAN_E_UNSUPPORTED)
        }
        guard case .tuple(let list) = id, (5...6).contains(sequences[list].count) else {
            throw fault("the persistent id is no tuple of 5 or 6")
        }
        let parts = sequences[list]
        guard string(parts[0]) == "storage" else {
            throw fault("only persistent ids of storages are read", BLYAN_E_UNSUPPORTED)
        }
        guard case .global(.storage(let type)) = parts[1], let key = string(parts[2]),
            string(parts[3]) != nil, case .int(let signed) = parts[4],
            let count = UInt64(exactly: signed)
        else { throw fault("the persistent id names no class, key, place and element count") }
        guard parts.count == 5 || parts[5] == .none else {
            throw fault(
                "views of storages, which PyTorch 0.1 wrote, are not read", BLYAN_E_UNSUPPORTED)
        }
        let elementSize = type?.size ?? 1
        guard let byteCount = count.times(elementSize) else {
            throw fault("storage \(key) of \(count) elements cannot be")
        }
        let number: Int
        if let known = storageNumbers[key] {
            guard storages[known].byteCount == byteCount else {
                throw fault(
                    "storage \(key) has \(byteCount) bytes here and \(storages[known].byteCount) before"
                )
            }
            number = known
        } else {
            number = storages.count
            storageNumbers[key] = number
            storages.append(
                Storage(key: key, byteCount: byteCount, elementSize: elementSize, blob: nil))
        }
        references.append(StorageReference(storage: number, type: type))
        return .storage(references.count - 1)
    }

    // MARK: parts

    private mutating func orderedDict(_ arguments: [Value]) throws(PluginError) -> Value {
        guard let first = arguments.first else { return try dictionary([]) }
        // Python 2 gives the members as a list of pairs.
        guard arguments.count == 1, case .list(let list) = first else {
            throw fault("OrderedDict takes a list of pairs")
        }
        try charge(sequences[list].count)
        var flat: [Value] = []
        for pair in sequences[list] {
            let members: [Value]
            switch pair {
            case .list(let number), .tuple(let number): members = sequences[number]
            default: members = []
            }
            guard members.count == 2 else { throw fault("OrderedDict takes a list of pairs") }
            flat += members
        }
        return try dictionary(flat[...])
    }

    /// Refuses conjugate and negative views, whose numbers are not those that are stored.
    private func checkPlain(_ metadata: ArraySlice<Value>) throws(PluginError) {
        for value in metadata {
            if value == .none { continue }
            guard case .dict(let number) = value, dicts[number].isEmpty else {
                throw fault("a tensor with metadata is not read", BLYAN_E_UNSUPPORTED)
            }
        }
    }

    private func numbers(_ value: Value, _ what: String) throws(PluginError) -> [UInt64] {
        guard case .tuple(let list) = value else { throw fault("\(what) is no tuple") }
        guard sequences[list].count <= Limits.dimensions else {
            throw fault(
                "\(sequences[list].count) dimensions, at most \(Limits.dimensions)", BLYAN_E_LIMIT)
        }
        var numbers: [UInt64] = []
        for value in sequences[list] {
            guard case .int(let signed) = value, let number = UInt64(exactly: signed) else {
                throw fault("\(what) holds something that is no number from 0 on")
            }
            numbers.append(number)
        }
        return numbers
    }

    private mutating func add(_ tensor: Tensor, available: UInt64) throws(PluginError) -> Tensor {
        var count: UInt64 = 1
        var last: UInt64? = tensor.offset
        for (size, stride) in zip(tensor.sizes, tensor.strides) {
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            guard !overflow, product <= Limits.elements else {
                throw fault(
                    "a tensor of \(tensor.sizes) is over \(Limits.elements) elements", BLYAN_E_LIMIT
                )
            }
            count = product
            last =
                size == 0
                ? last : last.flatMap { sum in (size - 1).times(stride).flatMap { sum.plus($0) } }
        }
        let stored = available / tensor.type.size
        if count > 0 {
            guard let last, last < stored else {
                throw fault(
                    "a tensor of \(tensor.sizes) with strides \(tensor.strides) at \(tensor.offset) leaves its storage of \(stored) elements"
                )
            }
        }
        guard count <= max(stored, Limits.expanded) else {
            throw fault("a tensor of \(count) elements in a storage of \(stored)", BLYAN_E_LIMIT)
        }
        return tensor
    }

    private mutating func tensor(_ arguments: [Value], type: ElementType?) throws(PluginError)
        -> Value
    {
        guard case .storage(let number) = arguments[0], case .int(let signed) = arguments[1],
            let offset = UInt64(exactly: signed)
        else { throw fault("a tensor takes a storage and an offset") }
        let reference = references[number]
        let storage = storages[reference.storage]
        // A typed storage decides; an untyped one needs a dtype beside it.
        guard let type = type ?? reference.type else {
            throw fault("storage \(storage.key) has no dtype")
        }
        guard storage.byteCount % type.size == 0, reference.type ?? type == type
        else {
            throw fault("storage \(storage.key) of \(storage.byteCount) bytes holds no \(type)")
        }
        let (sizes, strides) = (
            try numbers(arguments[2], "the size"), try numbers(arguments[3], "the stride")
        )
        guard sizes.count == strides.count else {
            throw fault("\(sizes.count) sizes and \(strides.count) strides")
        }
        tensors.append(
            try add(
                Tensor(
                    type: type, data: .storage(reference.storage), offset: offset, sizes: sizes,
                    strides: strides), available: storage.byteCount))
        return .tensor(tensors.count - 1)
    }

    private mutating func array(
        _ data: Value, _ type: Value, shape: Value, isFortran: Bool
    ) throws(PluginError) -> Tensor {
        guard case .arrayType(let typeNumber) = type else { throw fault("an array takes a dtype") }
        let blobNumber = try blob(data)
        let element = arrayTypes[typeNumber].type
        let sizes = try numbers(shape, "the shape")
        var strides = [UInt64](repeating: 0, count: sizes.count)
        var step: UInt64? = 1
        for i in isFortran ? Array(sizes.indices) : sizes.indices.reversed() {
            strides[i] = step ?? 0
            step = step?.times(max(1, sizes[i]))
        }
        let count = sizes.reduce(Optional(1 as UInt64)) { $0?.times($1) }
        guard step != nil, let count, count.times(element.size) == blobs[blobNumber].count else {
            throw fault(
                "an array of \(sizes) of \(element) does not fill \(blobs[blobNumber].count) bytes")
        }
        return try add(
            Tensor(
                type: element, data: .bytes(blobNumber), offset: 0, sizes: sizes, strides: strides),
            available: blobs[blobNumber].count)
    }

    /// `_frombuffer(bytes, dtype, shape, order, axes)`: order K is order C with its axes in another order.
    private mutating func fromBuffer(_ arguments: [Value]) throws(PluginError) -> Value {
        guard (4...5).contains(arguments.count), let order = string(arguments[3]),
            ["C", "F", "K"].contains(order),
            order == "K" || arguments.dropFirst(4).allSatisfy({ $0 == .none })
        else { throw fault("_frombuffer takes bytes, a dtype, a shape, an order and axes") }
        var made = try array(
            arguments[0], arguments[1], shape: arguments[2], isFortran: order == "F")
        if order == "K" {
            let axes = arguments.count == 5 ? try numbers(arguments[4], "the axes") : []
            guard axes.sorted() == Array(0..<UInt64(made.sizes.count)) else {
                throw fault("the axes \(axes) of \(made.sizes.count) dimensions")
            }
            made = Tensor(
                type: made.type, data: made.data, offset: 0,
                sizes: axes.map { made.sizes[Int($0)] },
                strides: axes.map { made.strides[Int($0)] })
        }
        arrays.append(made)
        return .array(arrays.count - 1)
    }

    /// The number of a value's bytes; Python 2 wrote them as a byte string.
    private mutating func blob(_ value: Value) throws(PluginError) -> Int {
        switch value {
        case .bytes(let number): return number
        case .text(let number) where texts[number].isBinary:
            blobs.append(texts[number].blob)
            return blobs.count - 1
        default: throw fault("expects bytes")
        }
    }

    /// The storage whose file without zip lies in `blob`.
    private mutating func nestedStorage(
        _ number: Int, _ payload: borrowing Payload
    ) throws(PluginError) -> Value {
        var inner = Machine(.nested, blobs[number], payloadSize: 0)
        (inner.opcodes, inner.scans, inner.items) = (opcodes, scans, items)
        guard try inner.run(payload) == .magic else {
            throw fault("the bytes of _load_from_bytes are no PyTorch storage")
        }
        let root = try inner.finishLegacy(payload)
        (opcodes, scans, items) = (inner.opcodes, inner.scans, inner.items)
        guard case .storage(let reference) = root, inner.storages.count == 1 else {
            throw fault("the bytes of _load_from_bytes hold something else than one storage")
        }
        // Keys were addresses in the process that wrote; the same one may return for another storage.
        storages.append(inner.storages[0])
        references.append(
            StorageReference(storage: storages.count - 1, type: inner.references[reference].type))
        return .storage(references.count - 1)
    }
}
