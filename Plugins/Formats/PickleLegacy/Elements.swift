internal import BlyanPluginKit
internal import CBlyanPlugin

/// Reads a tensor's elements through its strides.
struct Elements {
    private let tensor: StoredTensor

    init(_ tensor: StoredTensor) { self.tensor = tensor }

    func decodeAll(_ payload: borrowing Payload, into out: inout [Float]) throws(PluginError) {
        var values = out
        let result = unsafe values.withUnsafeMutableBufferPointer { buffer in
            Result { () throws(PluginError) in
                try unsafe decode(payload, 0..<tensor.rows, into: buffer)
            }
        }
        try result.get()
        out = values
    }

    /// Rows `rows` as f32; the caller has checked that they are there and that `out` holds exactly them.
    func decode(
        _ payload: borrowing Payload, _ rows: Range<UInt64>,
        into out: UnsafeMutableBufferPointer<Float>
    ) throws(PluginError) {
        guard !rows.isEmpty else { return }
        if rows.lowerBound == 0 { try check(payload) }
        let shape = tensor.shape
        let isMatrix = shape.sizes.count >= 2
        let rowStride = isMatrix ? shape.strides[0] : 0
        let sizes = Array(isMatrix ? shape.sizes.dropFirst() : shape.sizes[...])
        let strides = Array(isMatrix ? shape.strides.dropFirst() : shape.strides[...])
        // The elements between the first and the last one that the rows need; bounds were checked with the shape.
        let first = shape.offset + rows.lowerBound * rowStride
        var last = shape.offset + (rows.upperBound - 1) * rowStride
        for (size, stride) in zip(sizes, strides) { last += (size - 1) * stride }
        let width = shape.type.size
        var scratch: [UInt8] = []
        let direct = try unsafe tensor.blob.pointer(
            payload, at: first * width, count: (last - first + 1) * width, scratch: &scratch)
        let fits: Bool
        if let direct = unsafe direct {
            fits = unsafe walk(
                UnsafeRawPointer(direct), rows.count, Int(rowStride), sizes, strides, out)
        } else {
            fits = unsafe scratch.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return false }
                return unsafe walk(base, rows.count, Int(rowStride), sizes, strides, out)
            }
        }
        guard fits else {
            throw unsupported(
                "tensor \(tensor.name) of \(shape.type) holds a number that f32 cannot hold")
        }
    }

    /// The storage's CRC-32, in the call that begins with row 0: whoever reads all rows checks once.
    private func check(_ payload: borrowing Payload) throws(PluginError) {
        guard let checksum = tensor.checksum else { return }
        let start = try unsafe payload.pointer(at: tensor.blob.offset, count: tensor.blob.length)
        var sum = Checksum()
        unsafe sum.add(UnsafeRawBufferPointer(start: start, count: Int(tensor.blob.length)))
        guard sum.value == checksum else {
            throw malformed(
                "tensor \(tensor.name): its storage does not have the CRC-32 of its zip entry")
        }
    }

    private func walk(
        _ base: UnsafeRawPointer, _ rows: Int, _ rowStride: Int, _ sizes: [UInt64],
        _ strides: [UInt64], _ out: UnsafeMutableBufferPointer<Float>
    ) -> Bool {
        let width = Int(tensor.shape.type.size)
        let count = out.count / rows
        // Rows without gaps, and dimensions without gaps inside a row, are one run.
        var inner = 1
        var dimensions = sizes.count
        while dimensions > 0, sizes[dimensions - 1] == 1 || Int(strides[dimensions - 1]) == inner {
            inner *= Int(sizes[dimensions - 1])
            dimensions -= 1
        }
        var (run, step) = (inner, 1)
        if run == 1, dimensions > 0 {
            dimensions -= 1
            (run, step) = (Int(sizes[dimensions]), Int(strides[dimensions]))
        }
        if dimensions == 0, rowStride == count, step == 1 || rows == 1 {
            return unsafe Conversion.convert(tensor.shape.type, base, stride: step, to: out)
        }
        var written = 0
        var fits = true
        for row in 0..<rows {
            var counters = [Int](repeating: 0, count: dimensions)
            var at = row * rowStride
            for _ in 0..<count / run {
                let part = unsafe UnsafeMutableBufferPointer(rebasing: out[written..<written + run])
                fits =
                    unsafe Conversion.convert(
                        tensor.shape.type, base + at * width, stride: step, to: part) && fits
                written += run
                for i in stride(from: dimensions - 1, through: 0, by: -1) {
                    counters[i] += 1
                    // A dimension of one element may have any stride: the sum may pass all bounds and come back.
                    at &+= Int(strides[i])
                    if counters[i] < Int(sizes[i]) { break }
                    at &-= counters[i] &* Int(strides[i])
                    counters[i] = 0
                }
            }
        }
        return fits
    }
}
