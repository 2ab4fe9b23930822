internal import BlyanModel
internal import CBlyanMath
internal import Foundation

/// Experts and what picks them, forward and backward.
extension Network {
    /// x += feed-forward(norm(x)).
    func feedForward(
        _ layer: Int, _ tape: Tape, _ sequences: [Range<Int>], _ routers: [(any RequestRouter)?],
        _ n: Int
    ) throws {
        let shape = config.layers[layer]
        let isDense = shape.expertCount == 0
        let normPart = isDense ? "layer\(layer).expert0" : "layer\(layer).router"
        normalise(x, weights.matrix(normPart, "norm"), into: tape.feedInput, n)
        var groups: [(part: String, expert: Int?, width: Int, rows: [Int], shares: [Float])] = []
        let ones = [Float](repeating: 1, count: n)
        if isDense {
            groups = [(normPart, nil, shape.intermediateSize, Array(0..<n), ones)]
        } else {
            groups = try route(layer, tape, sequences, routers, n)
            if shape.sharedIntermediateSize > 0 {
                let part = "layer\(layer).shared"
                var shares = ones
                if let gate = weights.optional(part, "shared_gate") {
                    for row in 0..<n {
                        shares[row] = blyan_math_sigmoid(tape.feedInput.dot(row, gate, 0))
                    }
                }
                groups.append(
                    (part, nil, shape.sharedIntermediateSize, Array(0..<n), shares))
            }
        }
        tape.layOut(groups, hidden: config.hiddenSize)
        forEachRow(tape.groups) { group, i, row in
            group.input.copyRow(i, from: tape.feedInput, row)
        }
        multiplier.run(
            tape.groups.flatMap { group -> [Multiplier.Product] in
                [
                    .init(
                        group.gate, group.input, weights.matrix(group.part, "gate"),
                        .secondTransposed),
                    .init(
                        group.up, group.input, weights.matrix(group.part, "up"),
                        .secondTransposed),
                ]
            })
        let hidden = hiddenValues(tape.groups)
        forEachRow(tape.groups, hidden) { group, h, i, _ in
            unsafe blyan_math_swiglu(
                group.gate.row(i), group.up.row(i), h.row(i), UInt64(h.columns))
        }
        multiplier.run(
            zip(tape.groups, hidden).map { group, h in
                .init(group.output, h, weights.matrix(group.part, "down"), .secondTransposed)
            })
        multiplier.byRows(n) { rows in
            for group in tape.groups {
                for i in group.indices(in: rows) {
                    x.addRow(group.rows[i], group.output, i, times: group.shares[i])
                }
            }
        }
    }

    /// From ``dx`` behind the feed-forward to ``dx`` before it; derivatives of trained experts, router and norm.
    func feedForwardBack(
        _ layer: Int, _ tape: Tape, _ gradients: Gradients, _ depth: Depth, _ n: Int
    ) {
        let wantsInput = depth.needsFeedInput(layer, config)
        let groups = tape.groups.filter { wantsInput || gradients.parts.contains($0.part) }
        // Outputs are no longer needed: their rows take the derivatives by them.
        forEachRow(groups) { group, i, row in group.output.copyRow(i, from: dx, row) }
        let hidden = hiddenValues(groups)
        multiplier.run(
            zip(groups, hidden).map { group, h in
                .init(h, group.output, weights.matrix(group.part, "down"))
            })
        let dshares = groups.map { Matrix(rows: $0.rows.count, columns: 1) }
        forEachRow(groups, Array(zip(hidden, dshares))) { group, outs, i, _ in
            let (h, dshare) = outs
            dshare[i, 0] = unsafe blyan_math_swiglu_back(
                group.gate.row(i), group.up.row(i), h.row(i), group.shares[i], group.gate.row(i),
                group.up.row(i), UInt64(h.columns))
            group.output.scaleRow(i, by: group.shares[i])
        }
        multiplier.run(
            zip(groups, hidden).flatMap { group, h -> [Multiplier.Product] in
                [
                    (gradients.matrix(group.part, "gate"), group.gate, group.input),
                    (gradients.matrix(group.part, "up"), group.up, group.input),
                    (gradients.matrix(group.part, "down"), group.output, h),
                ].compactMap { derivative, d, input in
                    derivative.map { .init($0, d, input, .firstTransposed, adds: true) }
                }
            })
        guard wantsInput else { return }
        feedInputBack(layer, tape, groups, dshares, gradients, depth, n)
    }

    /// Derivatives by the feed-forward's input, through experts, shares and norm.
    private func feedInputBack(
        _ layer: Int, _ tape: Tape, _ groups: [Tape.Group], _ dshares: [Matrix],
        _ gradients: Gradients, _ depth: Depth, _ n: Int
    ) {
        let isDense = config.layers[layer].expertCount == 0
        let normPart = isDense ? "layer\(layer).expert0" : "layer\(layer).router"
        dnormed.rows(0..<n).clear()
        for adds in [false, true] {
            multiplier.run(
                groups.map { group in
                    .init(
                        group.output, adds ? group.up : group.gate,
                        weights.matrix(group.part, adds ? "up" : "gate"), adds: adds)
                })
        }
        multiplier.byRows(n) { rows in
            for group in groups {
                for i in group.indices(in: rows) { dnormed.addRow(group.rows[i], group.output, i) }
            }
        }
        sharesBack(layer, tape, groups, dshares, gradients, n)
        normaliseBack(
            tape.middle, weights.matrix(normPart, "norm"), gradients.matrix(normPart, "norm"), n)
    }

    // MARK: Routing

    /// Asks each sequence's router which experts serve its rows.
    private func route(
        _ layer: Int, _ tape: Tape, _ sequences: [Range<Int>], _ routers: [(any RequestRouter)?],
        _ n: Int
    ) throws -> [(part: String, expert: Int?, width: Int, rows: [Int], shares: [Float])] {
        let shape = config.layers[layer]
        let slots = config.expertsPerToken
        tape.reserveLogits(rows: n, experts: shape.expertCount)
        let logits = tape.logits.rows(0..<n)
        multiplier.run([
            .init(
                logits, tape.feedInput.rows(0..<n),
                weights.matrix("layer\(layer).router", "weight"),
                .secondTransposed)
        ])
        for row in 0..<n {
            for expert in 0..<shape.expertCount where !logits[row, expert].isFinite {
                throw ModelError("the logits of layer\(layer).router are not finite")
            }
        }
        var ids = [UInt32](repeating: .max, count: n * slots)
        var shares = [Float](repeating: 0, count: n * slots)
        for (sequence, router) in zip(sequences, routers) {
            guard let router else {
                throw ModelError("layer \(layer) has experts, and there is no router")
            }
            let first = sequence.lowerBound
            try unsafe ids.withUnsafeMutableBufferPointer { ids in
                try unsafe shares.withUnsafeMutableBufferPointer { shares in
                    guard let ids = ids.baseAddress, let shares = shares.baseAddress else { return }
                    try unsafe router.route(
                        layer: layer, rows: sequence.count, slots: slots, position: 0,
                        logits: logits.row(first), ids: ids + first * slots,
                        weights: shares + first * slots)
                }
            }
        }
        var rows: [[Int]] = Array(repeating: [], count: shape.expertCount)
        var weights: [[Float]] = Array(repeating: [], count: shape.expertCount)
        for slot in 0..<n * slots where ids[slot] != .max && shares[slot] != 0 {
            rows[Int(ids[slot])].append(slot / slots)
            weights[Int(ids[slot])].append(shares[slot])
        }
        return rows.indices.filter { !rows[$0].isEmpty }.map { expert in
            (
                "layer\(layer).expert\(expert)", expert, shape.intermediateSize, rows[expert],
                weights[expert]
            )
        }
    }

    /// From derivatives by shares to those by the router's logits, its weights and its input.
    private func sharesBack(
        _ layer: Int, _ tape: Tape, _ groups: [Tape.Group], _ dshares: [Matrix],
        _ gradients: Gradients, _ n: Int
    ) {
        let shape = config.layers[layer]
        guard shape.expertCount > 0 else { return }
        let part = "layer\(layer).router"
        let router = weights.matrix(part, "weight")
        let dlogits = Matrix(rows: n, columns: shape.expertCount)
        dlogits.clear()
        // share · d(loss)/d(share), summed over a row's experts: what the softmax takes from each.
        let taken = Matrix(rows: n, columns: 1)
        taken.clear()
        for (group, dshare) in zip(groups, dshares) {
            guard let expert = group.expert else { continue }
            for (i, row) in group.rows.enumerated() {
                dlogits[row, expert] = group.shares[i] * dshare[i, 0]
                taken[row, 0] += dlogits[row, expert]
            }
        }
        let all = checkpointShares(tape, groups, n)
        for row in 0..<n { dlogits.addRow(row, all, row, times: -taken[row, 0]) }
        var products = [Multiplier.Product(dnormed.rows(0..<n), dlogits, router, adds: true)]
        if let derivative = gradients.matrix(part, "weight") {
            products.append(
                .init(
                    derivative, dlogits, tape.feedInput.rows(0..<n), .firstTransposed, adds: true))
        }
        multiplier.run(products)
        sharedGateBack(layer, tape, groups, dshares, gradients, n)
    }

    /// Shares by the checkpoint's own rule: a softmax of the router's logits over all experts, or over those that were picked.
    private func checkpointShares(_ tape: Tape, _ groups: [Tape.Group], _ n: Int) -> Matrix {
        let experts = tape.logits.columns
        let shares = Matrix(rows: n, columns: experts)
        for row in 0..<n {
            if config.normalisesExpertWeights {
                for expert in 0..<experts { shares[row, expert] = -.infinity }
            } else {
                shares.copyRow(row, from: tape.logits, row)
            }
        }
        if config.normalisesExpertWeights {
            for group in groups {
                guard let expert = group.expert else { continue }
                for row in group.rows { shares[row, expert] = tape.logits[row, expert] }
            }
        }
        multiplier.byRows(n) { rows in
            for row in rows { unsafe blyan_math_softmax(shares.row(row), UInt64(experts)) }
        }
        return shares
    }

    /// That the router weighs experts as the checkpoint does: of another rule the derivative is not known here.
    func checkShares(_ layer: Int, _ tape: Tape, _ n: Int) throws(ModelError) {
        guard config.layers[layer].expertCount > 0 else { return }
        let shares = checkpointShares(tape, tape.groups, n)
        for group in tape.groups {
            guard let expert = group.expert else { continue }
            for (i, row) in group.rows.enumerated()
            where abs(shares[row, expert] - group.shares[i]) > 1e-3 {
                throw ModelError(
                    "the router gives \(group.part) the weight \(group.shares[i]) where the checkpoint's own rule gives \(shares[row, expert]): it cannot be trained through",
                    hint: "train with the router that the model was made with")
            }
        }
    }

    /// The same for the gate of the shared expert, whose share is a sigmoid.
    private func sharedGateBack(
        _ layer: Int, _ tape: Tape, _ groups: [Tape.Group], _ dshares: [Matrix],
        _ gradients: Gradients, _ n: Int
    ) {
        let part = "layer\(layer).shared"
        guard let gate = weights.optional(part, "shared_gate"),
            let at = groups.firstIndex(where: { $0.part == part })
        else { return }
        for row in 0..<n {
            let share = groups[at].shares[row]
            let d = dshares[at][row, 0] * share * (1 - share)
            dnormed.addRow(row, gate, 0, times: d)
            gradients.matrix(part, "shared_gate")?.addRow(0, tape.feedInput, row, times: d)
        }
    }

    // MARK: Rows

    /// Memory for silu(gate) · up of each group.
    private func hiddenValues(_ groups: [Tape.Group]) -> [Matrix] {
        groups.map { Matrix(rows: $0.rows.count, columns: $0.gate.columns) }
    }

    /// Calls `body` for each row of each group, on several threads.
    private func forEachRow<Out>(
        _ groups: [Tape.Group], _ outs: [Out],
        _ body: (_ group: Tape.Group, _ out: Out, _ i: Int, _ row: Int) -> Void
    ) {
        let block = 32
        let pieces = groups.indices.flatMap { group in
            stride(from: 0, to: groups[group].rows.count, by: block).map { (group, $0) }
        }
        multiplier.pool.run(pieces.count) { piece in
            let (at, begin) = pieces[piece]
            let (group, out) = (groups[at], outs[at])
            for i in begin..<min(group.rows.count, begin + block) {
                body(group, out, i, group.rows[i])
            }
        }
    }

    private func forEachRow(
        _ groups: [Tape.Group], _ body: (_ group: Tape.Group, _ i: Int, _ row: Int) -> Void
    ) {
        forEachRow(groups, groups) { group, _, i, row in body(group, i, row) }
    }
}

extension Tape.Group {
    /// Places of its rows that lie in a range of the batch's rows.
    fileprivate func indices(in range: Range<Int>) -> Range<Int> {
        func first(notBelow row: Int) -> Int {
            var (low, high) = (0, rows.count)
            while low < high {
                let middle = (low + high) / 2
                if rows[middle] < row { low = middle + 1 } else { high = middle }
            }
            return low
        }
        return first(notBelow: range.lowerBound)..<first(notBelow: range.upperBound)
    }
}
