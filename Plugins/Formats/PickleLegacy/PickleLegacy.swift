internal import BlyanPluginKit
public import CBlyanPlugin

/// PyTorch's and NumPy's pickles, read by a machine that builds tensors and nothing else.
///
/// See FORMAT.md.
final class PickleLegacy: Format {
    static let name = "pickle-legacy"
    static let version = "1.0.0"
    static let configSchema =
        #"{"type": "object", "additionalProperties": false, "properties": {}}"#

    init(host: HostServices, config: String) {}

    func list(_ payload: borrowing Payload) throws(PluginError) -> [blyan_tensor] {
        let stored = try StoredTensors(payload)
        var hidden: Set<Int> = []
        var result: [blyan_tensor] = []
        let scales = Self.scales(stored)
        hidden.formUnion(scales.values)
        for (i, tensor) in stored.tensors.enumerated() where !hidden.contains(i) {
            result.append(try describe(tensor, scales: scales[i].map { stored.tensors[$0] }))
        }
        return result
    }

    /// The scales of each int8 tensor that has them, by number.
    private static func scales(_ stored: StoredTensors) -> [Int: Int] {
        var numbers: [String: Int] = [:]
        for (i, tensor) in stored.tensors.enumerated() { numbers[tensor.name] = i }
        var scales: [Int: Int] = [:]
        for (i, tensor) in stored.tensors.enumerated() where tensor.shape.type == .i8 {
            guard let at = numbers[tensor.name + ".scale"] else { continue }
            let scale = stored.tensors[at]
            guard scale.shape.type == .f32, scale.shape.count == tensor.rows, scale.isContiguous
            else { continue }
            scales[i] = at
        }
        return scales
    }

    private func describe(
        _ stored: StoredTensor, scales: StoredTensor?
    ) throws(PluginError) -> blyan_tensor {
        guard stored.name.utf8.count <= Int(BLYAN_TENSOR_NAME_MAX) else {
            throw exceeded(
                "the name \(stored.name.prefix(100))... has \(stored.name.utf8.count) bytes, at most \(BLYAN_TENSOR_NAME_MAX)"
            )
        }
        var tensor = try blyan_tensor(name: stored.name)
        tensor.rows = stored.rows
        tensor.columns = stored.columns
        tensor.dtype = stored.shape.type.code ?? UInt32(BLYAN_DTYPE_F32)
        tensor.quantisation = UInt32(
            scales == nil ? BLYAN_QUANT_NONE : BLYAN_QUANT_ROW_SYMMETRIC)
        let scalePlace = scales.map { $0.place }
        // A tensor whose scales do not lie where the host can read them is decoded, as a whole.
        guard let place = stored.place, scalePlace != .some(nil) else { return tensor }
        tensor.row_stride = stored.columns * stored.shape.type.size
        tensor.data_offset = place
        tensor.data_length = stored.shape.count * stored.shape.type.size
        if let scalePlace, let at = scalePlace {
            tensor.scale_offset = at
            tensor.scale_length = stored.rows * 4
        }
        return tensor
    }

    func decode(
        _ payload: borrowing Payload, index: Int, rows: Range<UInt64>,
        into out: UnsafeMutableBufferPointer<Float>
    ) throws(PluginError) {
        let stored = try StoredTensors(payload)
        let scales = Self.scales(stored)
        let hidden = Set(scales.values)
        let shown = stored.tensors.indices.filter { !hidden.contains($0) }
        guard shown.indices.contains(index), rows.upperBound <= stored.tensors[shown[index]].rows,
            stored.tensors[shown[index]].columns.times(UInt64(rows.count)) == UInt64(out.count)
        else {
            throw PluginError(BLYAN_E_ARGUMENT, "tensor \(index) of \(shown.count), rows \(rows)")
        }
        let tensor = stored.tensors[shown[index]]
        try unsafe Elements(tensor).decode(payload, rows, into: out)
        guard let at = scales[shown[index]] else { return }
        let scale = stored.tensors[at]
        var factors = [Float](repeating: 0, count: Int(tensor.rows))
        try Elements(scale).decodeAll(payload, into: &factors)
        let columns = Int(tensor.columns)
        for row in 0..<rows.count {
            let factor = factors[Int(rows.lowerBound) + row]
            for i in row * columns..<(row + 1) * columns { unsafe out[i] *= factor }
        }
    }

    func selfTest() throws(PluginError) {
        guard Checksum.of(Array("123456789".utf8)) == 0xCBF4_3926,
            Conversion.half(0x3555) == 0.333251953125, Conversion.half(0x8001) == -0x1p-24,
            Conversion.half(0xFC00) == -.infinity, Conversion.e4m3(0x7E) == 448,
            Global.allowed["os\nsystem"] == nil
        else {
            throw PluginError(BLYAN_E_INTERNAL, "numbers or names are not read as they should be")
        }
    }
}

private let table = PluginTable.format(PickleLegacy.self, abilities: [.view, .encode])

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
