internal import BlyanKernel
internal import CBlyanMath
internal import CBlyanPlugin

/// Loads a part: maps its payload, asks its format where the numbers lie, and checks that they are what the model needs.
struct PartLoader: Sendable {
    let store: ChainStore
    let mode: VerifyMode
    /// The plugin for a payload type.
    let format: @Sendable (_ payloadType: String) throws -> FormatPlugin

    func load(_ layout: PartLayout, block hash: Digest) throws -> (
        weights: PartWeights, payload: MappedPayload
    ) {
        try load(layout, find(hash, layout))
    }

    /// As ``load(_:block:)``, of a block that need not stand on a chain.
    func load(_ layout: PartLayout, _ block: Block) throws -> (
        weights: PartWeights, payload: MappedPayload
    ) {
        let (payload, format, described) = try open(block)
        return (try weights(layout, described, payload, format), payload)
    }

    private func find(_ hash: Digest, _ layout: PartLayout) throws(KernelError) -> Block {
        guard let block = try store.block(hash) else {
            throw KernelError(
                .notFound, "block \(hash) of \(layout.name) is not in this home",
                hint: "run `blyan chain check`")
        }
        return block
    }

    /// A block's payload, verified as it is read, and where its tensors lie.
    func open(_ block: Block) throws -> (MappedPayload, FormatPlugin, [TensorDescription]) {
        let format = try format(block.header.payloadType)
        let payload = try store.map(block, mode: mode)
        do throws(KernelError) { return (payload, format, try format.describe(payload)) } catch {
            throw KernelError(
                error.code, "\(payload.label): \(error.message)",
                hint: error.hint
                    ?? "run `blyan chain check --read-data`: if it names this payload, restore it or import the model again"
            )
        }
    }

    /// All tensors of a part as f32: what a payload says, whatever its layout and dtype.
    ///
    /// - Throws: As ``load(_:block:)``.
    func decode(_ layout: PartLayout, block hash: Digest) throws -> [String: AlignedBuffer<Float>] {
        try decode(layout, find(hash, layout))
    }

    /// As ``decode(_:block:)``, of a block that need not stand on a chain.
    func decode(_ layout: PartLayout, _ block: Block) throws -> [String: AlignedBuffer<Float>] {
        let (payload, format, described) = try open(block)
        return try decode(layout, described, payload, format)
    }

    private func decode(
        _ layout: PartLayout, _ described: [TensorDescription], _ payload: MappedPayload,
        _ format: FormatPlugin
    ) throws -> [String: AlignedBuffer<Float>] {
        var tensors: [String: AlignedBuffer<Float>] = [:]
        for tensor in layout.tensors {
            guard let (index, found) = try find(tensor, in: described, payload) else { continue }
            let count = found.rows * found.columns
            let buffer = AlignedBuffer<Float>(count: count)
            try unsafe format.decode(
                payload, tensor: found, index: index, rows: 0..<found.rows,
                into: UnsafeMutableBufferPointer(start: buffer.pointer, count: count))
            tensors[tensor.name] = buffer
        }
        try payload.checkFault()
        return tensors
    }

    /// The tensor of a layout among those that a payload has, or nil if it may lack it.
    private func find(
        _ tensor: PartLayout.Tensor, in described: [TensorDescription], _ payload: MappedPayload
    ) throws(ModelError) -> (index: Int, found: TensorDescription)? {
        guard let index = described.firstIndex(where: { $0.name == tensor.name }) else {
            if tensor.optional { return nil }
            throw ModelError(
                "\(payload.label) lacks the tensor \(tensor.name), expected [\(tensor.rows), \(tensor.columns)]"
            )
        }
        let found = described[index]
        guard found.rows == tensor.rows, found.columns == tensor.columns else {
            throw ModelError(
                "\(payload.label): tensor \(tensor.name) has shape [\(found.rows), \(found.columns)], expected [\(tensor.rows), \(tensor.columns)]"
            )
        }
        return (index, found)
    }

    private func weights(
        _ layout: PartLayout, _ described: [TensorDescription], _ payload: MappedPayload,
        _ format: FormatPlugin
    ) throws -> PartWeights {
        var matrices: [String: WeightMatrix] = [:]
        var vectors: [String: [Float]] = [:]
        var owned = 0
        let compute = try computes(layout, described, payload, format)
        for tensor in layout.tensors {
            guard let (index, found) = try find(tensor, in: described, payload) else { continue }
            let isVector = tensor.rows == 1
            if !isVector, isViewable(found, format) {
                let raw = found.raw
                matrices[tensor.name] = WeightMatrix(
                    payload: payload, rows: found.rows, columns: found.columns, dtype: found.dtype,
                    rowStride: Int(raw.row_stride), data: found.data,
                    scales: found.scales.isEmpty ? nil : found.scales)
                continue
            }
            if !isVector, compute { continue }
            let buffer = AlignedBuffer<Float>(count: found.rows * found.columns)
            try unsafe format.decode(
                payload, tensor: found, index: index, rows: 0..<found.rows,
                into: UnsafeMutableBufferPointer(
                    start: buffer.pointer, count: found.rows * found.columns))
            if isVector {
                vectors[tensor.name] = buffer.array(0..<found.columns)
            } else {
                owned += 4 * found.rows * found.columns
                matrices[tensor.name] = WeightMatrix(
                    decoded: buffer, rows: found.rows, columns: found.columns)
            }
        }
        try payload.checkFault()
        // A router of one expert is one row, and still a matrix.
        for tensor in layout.tensors
        where tensor.rows == 1 && tensor.name == "weight" && layout.name != "norm" {
            guard let vector = vectors[tensor.name] else { continue }
            let buffer = AlignedBuffer<Float>(count: vector.count)
            for (i, value) in vector.enumerated() { unsafe buffer.pointer[i] = value }
            matrices[tensor.name] = WeightMatrix(decoded: buffer, rows: 1, columns: vector.count)
        }
        let run: PartWeights.ExpertCompute = { work in
            guard try unsafe format.compute(payload, work) else {
                throw ModelError("the format of \(payload.label) stopped computing its layout")
            }
        }
        return unsafe PartWeights(
            name: layout.name, mappedBytes: Int(payload.size), ownedBytes: owned,
            matrices: matrices,
            vectors: vectors, compute: compute ? run : nil, checkFault: payload.checkFault)
    }

    /// Whether the host has a kernel for a tensor as it lies.
    private func isViewable(_ tensor: TensorDescription, _ format: FormatPlugin) -> Bool {
        let isScaled = tensor.raw.quantisation == UInt32(BLYAN_QUANT_ROW_SYMMETRIC)
        return format.canView && tensor.raw.layout == UInt32(BLYAN_LAYOUT_ROWS)
            && blyan_math_knows(tensor.dtype) != 0
            && tensor.raw.quantisation <= UInt32(BLYAN_QUANT_ROW_SYMMETRIC)
            && isScaled == (tensor.dtype == UInt32(BLYAN_DTYPE_I8)) && !tensor.data.isEmpty
            && (!isScaled || tensor.scales.lowerBound % 4 == 0)
    }

    /// Whether the format computes this part itself: an expert with a matrix that the host cannot view, and a format
    /// that does not answer an empty share with "unsupported".
    private func computes(
        _ layout: PartLayout, _ described: [TensorDescription], _ payload: MappedPayload,
        _ format: FormatPlugin
    ) throws -> Bool {
        let isExpert = layout.name.contains(".expert") || layout.name.hasSuffix(".shared")
        guard isExpert, format.canCompute else { return false }
        guard described.contains(where: { $0.rows > 1 && !isViewable($0, format) }) else {
            return false
        }
        return try unsafe format.compute(payload, blyan_compute())
    }
}
