internal import BlyanPluginKit
internal import CBlyanPlugin

extension TensorBlock {
    /// Bytes of rows decoded at a time: they stay in a core's second-level cache.
    private static let scratchSize = 256 << 10
    /// Columns of a block that is decoded to be multiplied: one row is 64 MiB.
    private static let columnLimit: UInt64 = 1 << 24
    /// Floats of one share's result.
    private static let resultLimit: UInt64 = 1 << 30

    /// One stage of an expert for one row range.
    ///
    /// Rows that lie as the host's mathematics wants them are multiplied where they are; others are decoded a
    /// few at a time.
    func compute(_ payload: borrowing Payload, _ work: blyan_compute) throws(PluginError) {
        guard let math = unsafe host.math else {
            throw PluginError(BLYAN_E_UNSUPPORTED, "the host offers no mathematics")
        }
        let expert = try Expert(Directory(payload).entries)
        let isHidden = unsafe work.stage == UInt32(BLYAN_COMPUTE_HIDDEN)
        guard unsafe isHidden || work.stage == UInt32(BLYAN_COMPUTE_OUTPUT) else {
            throw PluginError(BLYAN_E_ARGUMENT, "compute knows no stage \(unsafe work.stage)")
        }
        let shape = isHidden ? expert.gate.header : expert.down.header
        let (begin, end, tokens) = unsafe (work.row_begin, work.row_end, work.tokens)
        guard begin <= end, end <= shape.rows else {
            throw PluginError(
                BLYAN_E_ARGUMENT, "rows \(begin)..<\(end) of an expert of \(shape.rows)")
        }
        guard begin < end, tokens > 0 else { return }
        let (size, overflow) = tokens.multipliedReportingOverflow(by: end - begin)
        guard !overflow, size <= Self.resultLimit, shape.columns <= Self.columnLimit else {
            throw PluginError(
                BLYAN_E_LIMIT,
                "\(tokens) tokens by \(end - begin) rows of \(shape.columns) columns are too many at once"
            )
        }
        let result = UnsafeMutablePointer<Float>.allocate(capacity: Int(size))
        defer { unsafe result.deallocate() }
        if isHidden {
            try unsafe hidden(payload, expert, work, math, result)
        } else {
            try unsafe output(payload, expert, work, math, result)
        }
    }

    /// h = silu(gate · x) * (up · x); `second` holds tokens × rows floats.
    private func hidden(
        _ payload: borrowing Payload, _ expert: Expert, _ work: blyan_compute,
        _ math: UnsafePointer<blyan_math>, _ second: UnsafeMutablePointer<Float>
    ) throws(PluginError) {
        guard let x = unsafe work.x, let h = unsafe work.h,
            unsafe work.x_stride >= expert.gate.header.columns,
            unsafe work.h_stride >= expert.gate.header.rows
        else { throw PluginError(BLYAN_E_ARGUMENT, "compute got a null pointer or a short stride") }
        let rows = unsafe work.row_begin..<work.row_end
        let first = unsafe h + Int(work.row_begin)
        try unsafe multiply(
            payload, expert.gate, rows, math, x, work.x_stride, work.tokens, first, work.h_stride)
        try unsafe multiply(
            payload, expert.up, rows, math, x, work.x_stride, work.tokens, second,
            UInt64(rows.count))
        for token in unsafe 0..<Int(work.tokens) {
            let row = unsafe first + token * Int(work.h_stride)
            unsafe math.pointee.swiglu(row, second + token * rows.count, row, UInt64(rows.count))
        }
    }

    /// y += weight * (down · h); `product` holds tokens × rows floats.
    private func output(
        _ payload: borrowing Payload, _ expert: Expert, _ work: blyan_compute,
        _ math: UnsafePointer<blyan_math>, _ product: UnsafeMutablePointer<Float>
    ) throws(PluginError) {
        guard let h = unsafe work.h, let y = unsafe work.y, let weight = unsafe work.weight,
            unsafe work.h_stride >= expert.down.header.columns,
            unsafe work.y_stride >= expert.down.header.rows
        else { throw PluginError(BLYAN_E_ARGUMENT, "compute got a null pointer or a short stride") }
        let rows = unsafe work.row_begin..<work.row_end
        try unsafe multiply(
            payload, expert.down, rows, math, h, work.h_stride, work.tokens, product,
            UInt64(rows.count))
        for token in unsafe 0..<Int(work.tokens) {
            let out = unsafe y + token * Int(work.y_stride) + Int(work.row_begin)
            for row in 0..<rows.count {
                unsafe out[row] += weight[token] * product[token * rows.count + row]
            }
        }
    }

    /// out[t * stride + r] = row (rows.lowerBound + r) · x[t].
    private func multiply(
        _ payload: borrowing Payload, _ block: Directory.Entry, _ rows: Range<UInt64>,
        _ math: UnsafePointer<blyan_math>, _ x: UnsafePointer<Float>, _ xStride: UInt64,
        _ tokens: UInt64, _ out: UnsafeMutablePointer<Float>, _ stride: UInt64
    ) throws(PluginError) {
        let header = block.header
        let scales = try RowScales(payload, block, rows)
        if header.order == .rows {
            let data = try unsafe Directory.read(
                payload, block.offset + header.dataOffset + rows.lowerBound * header.stride,
                UInt64(rows.count) * header.stride, "block \(block.name)")
            var tensor = try Self.matrix(header.element, UInt64(rows.count), header.columns)
            tensor.quantisation = header.scaling.rawValue
            tensor.scale_length = unsafe scales.scales == nil ? 0 : tensor.rows * 4
            tensor.zero_length = unsafe scales.zeros == nil ? 0 : tensor.rows * 4
            let status = unsafe math.pointee.multiply(
                &tensor, data.baseAddress?.assumingMemoryBound(to: UInt8.self),
                scales.scales?.assumingMemoryBound(to: Float.self),
                scales.zeros?.assumingMemoryBound(to: Float.self), 0, tensor.rows, x, xStride,
                tokens, out, stride)
            if status == BLYAN_OK { return }
            guard status == BLYAN_E_UNSUPPORTED else { throw Self.failed(status, block) }
        }
        let columns = Int(header.columns)
        let piece = max(1, Self.scratchSize / (4 * columns))
        let scratch = UnsafeMutablePointer<Float>.allocate(
            capacity: min(piece, rows.count) * columns)
        defer { unsafe scratch.deallocate() }
        var row = rows.lowerBound
        while row < rows.upperBound {
            let end = min(rows.upperBound, row + UInt64(piece))
            let part = try RowScales(payload, block, row..<end)
            try unsafe decode(payload, block, row..<end, part, scratch)
            var tensor = try Self.matrix(.f32, end - row, header.columns)
            let status = unsafe math.pointee.multiply(
                &tensor, UnsafeRawPointer(scratch).assumingMemoryBound(to: UInt8.self), nil, nil, 0,
                tensor.rows, x, xStride, tokens, out + Int(row - rows.lowerBound), stride)
            guard status == BLYAN_OK else { throw Self.failed(status, block) }
            row = end
        }
    }

    /// Rows one after the other, as the host's mathematics takes them.
    private static func matrix(
        _ element: Element, _ rows: UInt64, _ columns: UInt64
    ) throws(PluginError) -> blyan_tensor {
        var tensor = try blyan_tensor(name: "rows")
        tensor.dtype = element.rawValue
        tensor.rows = rows
        tensor.columns = columns
        tensor.row_stride = columns * UInt64(element.width)
        tensor.data_length = rows * tensor.row_stride
        return tensor
    }

    private static func failed(_ status: blyan_status, _ block: Directory.Entry) -> PluginError {
        PluginError(status, "the host's product with block \(block.name) failed")
    }
}

/// The three matrices of an expert, whose shapes fit together.
private struct Expert {
    let gate: Directory.Entry
    let up: Directory.Entry
    let down: Directory.Entry

    init(_ entries: [Directory.Entry]) throws(PluginError) {
        func named(_ name: String) throws(PluginError) -> Directory.Entry {
            for entry in entries where entry.name == name { return entry }
            throw Layout.malformed("an expert has the blocks gate, up and down; \(name) is missing")
        }
        gate = try named("gate")
        up = try named("up")
        down = try named("down")
        let (rows, columns) = (gate.header.rows, gate.header.columns)
        for (entry, expected) in [(up, (rows, columns)), (down, (columns, rows))]
        where entry.header.rows != expected.0 || entry.header.columns != expected.1 {
            throw Layout.malformed(
                "block \(entry.name) is \(entry.header.rows) x \(entry.header.columns), expected \(expected.0) x \(expected.1) beside gate"
            )
        }
    }
}
