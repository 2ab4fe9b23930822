internal import BlyanPluginKit
internal import CBlyanPlugin

extension PickleLegacy {
    func encode(
        _ sources: [blyan_source], options: String, into sink: Sink
    ) throws(PluginError) -> Encoded {
        let options = try EncodeOptions(options)
        var plan: [Written] = []
        var names: Set<String> = []
        for i in unsafe sources.indices {
            try unsafe Written.append(sources[i], to: &plan)
        }
        if options.quantises { plan = try Written.quantised(plan) }
        guard !plan.isEmpty, plan.count <= Limits.tensors else {
            throw exceeded("\(plan.count) tensors, expected 1 to \(Limits.tensors)")
        }
        for tensor in plan {
            guard names.insert(tensor.name).inserted else {
                throw PluginError(BLYAN_E_ARGUMENT, "two tensors are named \(tensor.name)")
            }
        }
        var output = Output(sink)
        switch options.container {
        case .zip: try output.writeZip(plan)
        case .legacy: try output.writeLegacy(plan)
        case .numpy: try output.writeNumPy(plan)
        }
        return Encoded(covered: output.count, leafSize: 65_536)
    }
}

/// What the caller of encode may ask for: `{"container":"zip","quantise":"int8"}`.
private struct EncodeOptions {
    enum Container { case zip, legacy, numpy }

    var container = Container.zip
    var quantises = false

    init(_ json: String) throws(PluginError) {
        let text = json.filter { !$0.isWhitespace }
        guard !text.isEmpty else { return }
        guard text.hasPrefix("{"), text.hasSuffix("}") else {
            throw PluginError(BLYAN_E_CONFIG, "options are not a JSON object")
        }
        for member in text.dropFirst().dropLast().split(separator: ",") {
            switch member {
            case #""container":"zip""#: container = .zip
            case #""container":"legacy""#: container = .legacy
            case #""container":"numpy""#: container = .numpy
            case #""quantise":"int8""#: quantises = true
            case #""quantise":"none""#: quantises = false
            default:
                throw PluginError(
                    BLYAN_E_CONFIG,
                    "option \(member.prefix(100)) is not known; known: \"container\": \"zip\"|\"legacy\"|\"numpy\", \"quantise\": \"int8\"|\"none\""
                )
            }
        }
    }
}

// Safe: the bytes are the caller's, valid until encode returns, or the owner's; a plan ends before both.
/// One tensor to write: int8 with scales becomes two.
@safe struct Written {
    let name: String
    let type: ElementType
    /// Two dimensions, or one for scales.
    let sizes: [UInt64]
    let bytes: UnsafeRawBufferPointer
    /// Who keeps the bytes, if not the caller of encode.
    var owner: OwnedBytes?

    /// The class that PyTorch gives its storage.
    var storageClass: String {
        switch type {
        case .f16: "HalfStorage"
        case .bf16: "BFloat16Storage"
        case .i8: "CharStorage"
        default: "FloatStorage"
        }
    }

    static func append(_ source: blyan_source, to plan: inout [Written]) throws(PluginError) {
        let name = unsafe source.text
        func bad(_ what: String) -> PluginError {
            PluginError(BLYAN_E_ARGUMENT, "tensor \(name.prefix(100)): \(what)")
        }
        guard !name.isEmpty, name.utf8.count <= Int(BLYAN_TENSOR_NAME_MAX) else {
            throw bad("its name is empty or over \(BLYAN_TENSOR_NAME_MAX) bytes")
        }
        let (rows, columns) = unsafe (source.rows, source.columns)
        let type: ElementType
        switch Int(unsafe source.dtype) {
        case Int(BLYAN_DTYPE_F32): type = .f32
        case Int(BLYAN_DTYPE_F16): type = .f16
        case Int(BLYAN_DTYPE_BF16): type = .bf16
        case Int(BLYAN_DTYPE_I8): type = .i8
        default:
            throw unsupported("tensor \(name): dtype code \(unsafe source.dtype) cannot be written")
        }
        guard rows > 0, columns > 0, let count = rows.times(columns), count <= Limits.elements,
            unsafe source.data.size == count * type.size, unsafe source.data.data != nil
        else {
            throw bad("\(unsafe source.data.size) bytes are not \(rows) x \(columns) of \(type)")
        }
        guard unsafe source.scales.size == (type == .i8 ? rows * 4 : 0) else {
            throw bad("\(unsafe source.scales.size) bytes of scales for \(rows) rows")
        }
        unsafe plan.append(
            Written(
                name: name, type: type, sizes: [rows, columns],
                bytes: UnsafeRawBufferPointer(
                    start: source.data.data, count: Int(source.data.size))))
        guard type == .i8 else { return }
        guard name.utf8.count + 6 <= Int(BLYAN_TENSOR_NAME_MAX), unsafe source.scales.data != nil
        else { throw bad("its scales have no name or no bytes") }
        unsafe plan.append(
            Written(
                name: name + ".scale", type: .f32, sizes: [rows],
                bytes: UnsafeRawBufferPointer(
                    start: source.scales.data, count: Int(source.scales.size))))
    }
}
