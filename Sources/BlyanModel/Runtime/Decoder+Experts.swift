internal import BlyanKernel
internal import CBlyanMath
internal import CBlyanPlugin

/// The rows of a step that one expert serves.
struct ExpertGroup {
    let weights: PartWeights
    /// Rows of gate and up.
    let width: Int
    /// Rows of the step, ascending.
    let rows: [Int]
    /// The expert's weight for each of `rows`.
    let shares: [Float]
}

/// One matrix times a batch of activations.
@unsafe struct Product {
    var matrix: blyan_matrix
    /// The activations, row after row.
    let x: UnsafePointer<Float>
    /// The same prepared for our own kernels; nil = the library multiplies them.
    let input: UnsafeRawPointer?
    let tokens: Int
    let output: UnsafeMutablePointer<Float>
    let stride: Int
}

extension Decoder {
    /// Prepares activations for matrices of a dtype.
    func prepare(
        _ dtype: UInt32, _ x: UnsafePointer<Float>, _ tokens: Int, _ columns: Int,
        into buffer: AlignedBuffer<UInt8>
    ) -> UnsafeRawPointer {
        buffer.reserve(Int(blyan_math_prepared_size(dtype, UInt64(tokens), UInt64(columns))))
        unsafe blyan_math_prepare(
            dtype, x, UInt64(columns), UInt64(tokens), UInt64(columns), buffer.pointer)
        return unsafe UnsafeRawPointer(buffer.pointer)
    }

    /// All products at once, rows shared out over the pool; then those that are the library's.
    func multiply(_ products: [Product]) {
        var tasks: [(product: Int, rows: Range<Int>)] = []
        for i in unsafe products.indices where unsafe products[i].input != nil {
            for rows in unsafe pool.shares(Int(products[i].matrix.rows)) { tasks.append((i, rows)) }
        }
        pool.run(tasks.count) { task in
            let (index, rows) = tasks[task]
            var product = unsafe products[index]
            unsafe blyan_math_matmul(
                &product.matrix, UInt64(rows.lowerBound), UInt64(rows.upperBound), product.input,
                UInt64(product.tokens), product.output, UInt64(product.stride))
        }
        for i in unsafe products.indices where unsafe products[i].input == nil {
            unsafe multiplyByLibrary(products[i])
        }
    }

    /// x[row] += Σ share · expert(normed[row]), groups in their order.
    func apply(_ groups: [ExpertGroup]) throws {
        let layouts = try unsafe layOut(groups)
        try unsafe runHidden(groups, layouts)
        try unsafe runOutput(groups, layouts)
    }

    /// Where a group's gathered inputs and hidden values lie in the scratch buffers.
    @unsafe struct GroupLayout {
        let x: UnsafeMutablePointer<Float>
        let gate: UnsafeMutablePointer<Float>
        let up: UnsafeMutablePointer<Float>
        let views: (gate: blyan_matrix, up: blyan_matrix, down: blyan_matrix)?
        /// The library multiplies, not our own kernels.
        let isLong: Bool
    }

    /// Gathers each group's rows, and verifies its matrices.
    private func layOut(_ groups: [ExpertGroup]) throws -> [GroupLayout] {
        let hidden = config.hiddenSize
        let rows = groups.reduce(0) { $0 + $1.rows.count }
        let floats = groups.reduce(0) { $0 + $1.rows.count * $1.width }
        scratch.gathered.reserve(rows * hidden)
        scratch.gate.reserve(floats)
        scratch.up.reserve(floats)
        while scratch.groupInputs.count < 3 * groups.count {
            scratch.groupInputs.append(AlignedBuffer<UInt8>(count: 0))
        }
        var layouts: [GroupLayout] = unsafe []
        var x = unsafe scratch.gathered.pointer
        var (gate, up) = unsafe (scratch.gate.pointer, scratch.up.pointer)
        for group in groups {
            for (i, row) in group.rows.enumerated() {
                unsafe (x + i * hidden).update(
                    from: scratch.normed.pointer + row * hidden, count: hidden)
            }
            let views =
                try unsafe group.weights.compute == nil
                ? (
                    group.weights.matrix("gate").verified(), group.weights.matrix("up").verified(),
                    group.weights.matrix("down").verified()
                ) : nil
            unsafe layouts.append(
                GroupLayout(
                    x: x, gate: gate, up: up, views: views,
                    isLong: views != nil && isLong(group.rows.count)))
            unsafe x += group.rows.count * hidden
            unsafe gate += group.rows.count * group.width
            unsafe up += group.rows.count * group.width
        }
        return unsafe layouts
    }

    /// gate = silu(gate · x) * (up · x) for every group.
    private func runHidden(_ groups: [ExpertGroup], _ layouts: [GroupLayout]) throws {
        let hidden = config.hiddenSize
        var inputs: [(gate: UnsafeRawPointer, up: UnsafeRawPointer)?] = unsafe []
        for (i, group) in groups.enumerated() {
            let layout = unsafe layouts[i]
            guard let views = unsafe layout.views, unsafe !layout.isLong else {
                unsafe inputs.append(nil)
                continue
            }
            let n = group.rows.count
            let first = unsafe prepare(
                views.gate.dtype, layout.x, n, hidden, into: scratch.groupInputs[3 * i])
            let second =
                unsafe views.up.dtype == views.gate.dtype
                ? first
                : prepare(views.up.dtype, layout.x, n, hidden, into: scratch.groupInputs[3 * i + 1])
            unsafe inputs.append((first, second))
        }
        for (i, group) in groups.enumerated() where unsafe layouts[i].isLong {
            guard let views = unsafe layouts[i].views else { continue }
            for unsafe(matrix, output) in unsafe [
                (views.gate, layouts[i].gate), (views.up, layouts[i].up),
            ] {
                unsafe multiplyByLibrary(
                    Product(
                        matrix: matrix, x: layouts[i].x, input: nil, tokens: group.rows.count,
                        output: output, stride: group.width))
            }
        }
        let tasks = groups.enumerated().flatMap { i, group in
            pool.shares(group.width).map { (i, $0) }
        }
        let failure = FirstFailure()
        pool.run(tasks.count) { task in
            let (i, rows) = tasks[task]
            let group = groups[i]
            let layout = unsafe layouts[i]
            let (begin, end) = (UInt64(rows.lowerBound), UInt64(rows.upperBound))
            let n = group.rows.count
            guard var views = unsafe layout.views else {
                return failure.record {
                    var work = unsafe blyan_compute()
                    unsafe work.struct_size = UInt32(MemoryLayout<blyan_compute>.size)
                    unsafe work.stage = UInt32(BLYAN_COMPUTE_HIDDEN)
                    unsafe work.row_begin = begin
                    unsafe work.row_end = end
                    unsafe work.tokens = UInt64(n)
                    unsafe work.x = UnsafePointer(layout.x)
                    unsafe work.x_stride = UInt64(hidden)
                    unsafe work.h = layout.gate
                    unsafe work.h_stride = UInt64(group.width)
                    try unsafe group.weights.compute?(work)
                }
            }
            let width = UInt64(group.width)
            if let input = unsafe inputs[i] {
                unsafe blyan_math_matmul(
                    &views.gate, begin, end, input.gate, UInt64(n), layout.gate, width)
                unsafe blyan_math_matmul(
                    &views.up, begin, end, input.up, UInt64(n), layout.up, width)
            }
            for row in 0..<n {
                let at = row * group.width + rows.lowerBound
                unsafe blyan_math_swiglu(
                    layout.gate + at, layout.up + at, layout.gate + at, UInt64(rows.count))
            }
        }
        try failure.rethrow()
    }

    /// x[row] += share · (down · hidden) for every group; a task owns its output columns, in the residual stream and
    /// in the one scratch buffer that all groups use, so groups add in order.
    private func runOutput(_ groups: [ExpertGroup], _ layouts: [GroupLayout]) throws {
        let hidden = config.hiddenSize
        var inputs: [UnsafeRawPointer?] = unsafe []
        for (i, group) in groups.enumerated() {
            let layout = unsafe layouts[i]
            guard let views = unsafe layout.views, unsafe !layout.isLong else {
                unsafe inputs.append(nil)
                continue
            }
            unsafe inputs.append(
                prepare(
                    views.down.dtype, layout.gate, group.rows.count, group.width,
                    into: scratch.groupInputs[3 * i + 2]))
        }
        let largest = groups.map(\.rows.count).max() ?? 0
        let tasks = pool.shares(hidden)
        scratch.output.reserve(largest * hidden)
        let failure = FirstFailure()
        let out = unsafe scratch.output.pointer
        var begin = 0
        while begin < groups.count {
            // The library has all rows of the output for itself, so its groups come one by one.
            var end = begin + 1
            if unsafe layouts[begin].isLong, let down = unsafe layouts[begin].views?.down {
                unsafe multiplyByLibrary(
                    Product(
                        matrix: down, x: layouts[begin].gate, input: nil,
                        tokens: groups[begin].rows.count, output: out, stride: hidden))
            } else {
                while end < groups.count, unsafe !layouts[end].isLong { end += 1 }
            }
            let range = begin..<end
            pool.run(tasks.count) { task in
                for i in range {
                    failure.record {
                        try unsafe addOutput(groups[i], layouts[i], inputs[i], tasks[task], out)
                    }
                }
            }
            begin = end
        }
        try failure.rethrow()
    }

    /// Output columns `rows` of one group, added to the residual stream.
    ///
    /// - Parameter input: hidden values as prepared; nil = the format computes, or the library has left its product.
    private func addOutput(
        _ group: ExpertGroup, _ layout: GroupLayout, _ input: UnsafeRawPointer?,
        _ rows: Range<Int>, _ out: UnsafeMutablePointer<Float>
    ) throws {
        let hidden = config.hiddenSize
        if var down = unsafe layout.views?.down {
            if let input = unsafe input {
                unsafe blyan_math_matmul(
                    &down, UInt64(rows.lowerBound), UInt64(rows.upperBound), input,
                    UInt64(group.rows.count), out, UInt64(hidden))
            }
        } else {
            try unsafe computeOutput(group, layout.gate, rows, out)
        }
        for (j, row) in group.rows.enumerated() {
            unsafe blyan_math_axpy(
                group.shares[j], out + j * hidden + rows.lowerBound,
                scratch.x.pointer + row * hidden + rows.lowerBound, UInt64(rows.count))
        }
    }

    /// Stage OUTPUT by the format's own computation, with weight 1: y = down · h.
    private func computeOutput(
        _ group: ExpertGroup, _ h: UnsafeMutablePointer<Float>, _ rows: Range<Int>,
        _ y: UnsafeMutablePointer<Float>
    ) throws {
        let n = group.rows.count
        let stride = config.hiddenSize
        for j in 0..<n {
            unsafe (y + j * stride + rows.lowerBound).update(repeating: 0, count: rows.count)
        }
        let ones = [Float](repeating: 1, count: n)
        try unsafe ones.withUnsafeBufferPointer { ones in
            var work = unsafe blyan_compute()
            unsafe work.struct_size = UInt32(MemoryLayout<blyan_compute>.size)
            unsafe work.stage = UInt32(BLYAN_COMPUTE_OUTPUT)
            unsafe work.row_begin = UInt64(rows.lowerBound)
            unsafe work.row_end = UInt64(rows.upperBound)
            unsafe work.tokens = UInt64(n)
            unsafe work.h = h
            unsafe work.h_stride = UInt64(group.width)
            unsafe work.weight = ones.baseAddress
            unsafe work.y = y
            unsafe work.y_stride = UInt64(stride)
            try unsafe group.weights.compute?(work)
        }
    }
}
