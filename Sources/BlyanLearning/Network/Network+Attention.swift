internal import BlyanModel
internal import CBlyanMath

/// Attention, forward and backward.
extension Network {
    /// Queries whose scores are held at once, in each task.
    private static let queryBlock = 128

    /// x += o(attention(norm(x))).
    func attend(_ layer: Int, _ tape: Tape, _ sequences: [Range<Int>], _ n: Int) throws {
        let part = "layer\(layer).attention"
        let all = 0..<n
        copy(x, to: tape.input, n)
        normalise(x, weights.matrix(part, "norm"), into: tape.attentionInput, n)
        let input = tape.attentionInput.rows(all)
        multiplier.run([
            .init(
                (tape.rawQuery ?? tape.query).rows(all), input, weights.matrix(part, "q"),
                .secondTransposed),
            .init(
                (tape.rawKey ?? tape.key).rows(all), input, weights.matrix(part, "k"),
                .secondTransposed),
            .init(tape.value.rows(all), input, weights.matrix(part, "v"), .secondTransposed),
        ])
        finishProjections(part, tape, n)
        forEachHead(sequences) { sequence, keyHead, heads in
            let scores = Matrix(
                rows: min(Self.queryBlock, sequence.count), columns: sequence.count)
            let k = tape.key.rows(sequence).columns(span(keyHead))
            let v = tape.value.rows(sequence).columns(span(keyHead))
            for head in heads {
                let q = tape.query.rows(sequence).columns(span(head))
                let out = tape.attended.rows(sequence).columns(span(head))
                forEachBlock(sequence.count, layer) { queries, keys in
                    let p = probabilities(q, k, queries, keys, layer, scores)
                    multiplier.compute(.init(out.rows(queries), p, v.rows(keys)))
                }
            }
        }
        multiplier.run([
            .init(
                normed.rows(all), tape.attended.rows(all), weights.matrix(part, "o"),
                .secondTransposed)
        ])
        let bias = weights.optional(part, "o_bias")
        multiplier.byRows(n) { rows in
            for row in rows {
                x.addRow(row, normed, row)
                if let bias { x.addRow(row, bias, 0) }
            }
        }
        copy(x, to: tape.middle, n)
    }

    /// From ``dx`` behind the attention to ``dx`` before it.
    func attendBack(
        _ layer: Int, _ tape: Tape, _ gradients: Gradients, _ depth: Depth,
        _ sequences: [Range<Int>], _ n: Int
    ) {
        let part = "layer\(layer).attention"
        let all = 0..<n
        addColumns(dx, n, to: gradients.matrix(part, "o_bias"))
        var products = [
            Multiplier.Product(dattended.rows(all), dx.rows(all), weights.matrix(part, "o"))
        ]
        if let derivative = gradients.matrix(part, "o") {
            products.append(
                .init(
                    derivative, dx.rows(all), tape.attended.rows(all), .firstTransposed, adds: true)
            )
        }
        multiplier.run(products)
        forEachHead(sequences) { sequence, keyHead, heads in
            let block = min(Self.queryBlock, sequence.count)
            let scores = Matrix(rows: block, columns: sequence.count)
            let derivatives = Matrix(rows: block, columns: sequence.count)
            let k = tape.key.rows(sequence).columns(span(keyHead))
            let v = tape.value.rows(sequence).columns(span(keyHead))
            let dk = dkey.rows(sequence).columns(span(keyHead))
            let dv = dvalue.rows(sequence).columns(span(keyHead))
            dk.clear()
            dv.clear()
            for head in heads {
                let q = tape.query.rows(sequence).columns(span(head))
                let dq = dquery.rows(sequence).columns(span(head))
                let dout = dattended.rows(sequence).columns(span(head))
                forEachBlock(sequence.count, layer) { queries, keys in
                    let p = probabilities(q, k, queries, keys, layer, scores)
                    let dp = derivatives.rows(0..<queries.count).columns(0..<keys.count)
                    let dOut = dout.rows(queries)
                    multiplier.compute(.init(dv.rows(keys), p, dOut, .firstTransposed, adds: true))
                    multiplier.compute(.init(dp, dOut, v.rows(keys), .secondTransposed))
                    for row in 0..<queries.count {
                        unsafe blyan_math_softmax_back(
                            p.row(row), dp.row(row), UInt64(keys.count), scoreScale)
                    }
                    multiplier.compute(.init(dq.rows(queries), dp, k.rows(keys)))
                    multiplier.compute(
                        .init(dk.rows(keys), dp, q.rows(queries), .firstTransposed, adds: true))
                }
            }
        }
        finishProjectionsBack(part, tape, gradients, n)
        let projections = [(dquery, "q"), (dkey, "k"), (dvalue, "v")]
        multiplier.run(
            projections.compactMap { d, name in
                gradients.matrix(part, name).map {
                    .init(
                        $0, d.rows(all), tape.attentionInput.rows(all), .firstTransposed, adds: true
                    )
                }
            })
        guard depth.goesBelow(layer) || gradients.matrix(part, "norm") != nil else { return }
        for (i, (d, name)) in projections.enumerated() {
            multiplier.run([
                .init(dnormed.rows(all), d.rows(all), weights.matrix(part, name), adds: i > 0)
            ])
        }
        normaliseBack(
            tape.input, weights.matrix(part, "norm"), gradients.matrix(part, "norm"), n)
    }

    // MARK: Scores

    private var scoreScale: Float { 1 / Float(config.headSize).squareRoot() }

    private func span(_ head: Int) -> Range<Int> {
        head * config.headSize..<(head + 1) * config.headSize
    }

    /// Calls `body` for each sequence and key head with the query heads that read it, on several threads.
    private func forEachHead(
        _ sequences: [Range<Int>],
        _ body: (_ sequence: Range<Int>, _ keyHead: Int, _ heads: Range<Int>) -> Void
    ) {
        let group = config.headCount / config.keyValueHeadCount
        multiplier.pool.run(sequences.count * config.keyValueHeadCount) { task in
            let keyHead = task % config.keyValueHeadCount
            body(
                sequences[task / config.keyValueHeadCount], keyHead,
                keyHead * group..<(keyHead + 1) * group)
        }
    }

    /// Blocks of queries with the keys that some of them see.
    private func forEachBlock(
        _ count: Int, _ layer: Int, _ body: (_ queries: Range<Int>, _ keys: Range<Int>) -> Void
    ) {
        for begin in stride(from: 0, to: count, by: Self.queryBlock) {
            let end = min(count, begin + Self.queryBlock)
            let first = config.layers[layer].slidingWindow.map { max(0, begin + 1 - $0) } ?? 0
            body(begin..<end, first..<end)
        }
    }

    /// softmax(scale · q · k) of a block; 0 for keys that a query does not see.
    private func probabilities(
        _ q: Matrix, _ k: Matrix, _ queries: Range<Int>, _ keys: Range<Int>, _ layer: Int,
        _ room: Matrix
    ) -> Matrix {
        let p = room.rows(0..<queries.count).columns(0..<keys.count)
        multiplier.compute(
            .init(p, q.rows(queries), k.rows(keys), .secondTransposed), alpha: scoreScale)
        for (i, query) in queries.enumerated() {
            let end = query + 1 - keys.lowerBound
            let begin =
                config.layers[layer].slidingWindow.map {
                    max(0, query + 1 - $0 - keys.lowerBound)
                } ?? 0
            let row = unsafe p.row(i)
            unsafe row.update(repeating: 0, count: begin)
            unsafe (row + end).update(repeating: 0, count: keys.count - end)
            unsafe blyan_math_softmax(row + begin, UInt64(end - begin))
        }
        return p
    }

    // MARK: Queries, keys and values

    /// Biases, norms, clamping and rotation, in this order, as the decoder has them.
    private func finishProjections(_ part: String, _ tape: Tape, _ n: Int) {
        let projections = [
            (tape.query, tape.rawQuery, "q"), (tape.key, tape.rawKey, "k"), (tape.value, nil, "v"),
        ].map { matrix, raw, name in
            (
                matrix: matrix, raw: raw, bias: weights.optional(part, name + "_bias"),
                norm: raw == nil ? nil : weights.optional(part, name + "_norm"),
                turns: name != "v"
            )
        }
        multiplier.byRows(n) { rows in
            for (matrix, raw, bias, norm, turns) in projections {
                for row in rows {
                    if let bias { (raw ?? matrix).addRow(row, bias, 0) }
                    if let raw { matrix.copyRow(row, from: raw, row) }
                    normaliseHeads(matrix, row, norm)
                    clamp(matrix, row)
                    if turns { rotate(matrix, row, backwards: false) }
                }
            }
        }
    }

    /// From derivatives by what attention reads to those by the projections.
    private func finishProjectionsBack(
        _ part: String, _ tape: Tape, _ gradients: Gradients, _ n: Int
    ) {
        let hasNormGradient = gradients.matrix(part, "q_norm") != nil
        func back(_ rows: Range<Int>) {
            let room = Matrix(rows: 1, columns: tape.rawQuery?.columns ?? 0)
            for row in rows {
                for (d, raw, name) in [
                    (dquery, tape.rawQuery, "q_norm"), (dkey, tape.rawKey, "k_norm"),
                ] {
                    rotate(d, row, backwards: true)
                    guard let raw else { continue }
                    normaliseHeadsBack(
                        d, raw, row, weights.optional(part, name), gradients.matrix(part, name),
                        room.columns(0..<d.columns))
                }
                guard let clip = config.queryKeyValueClip else { continue }
                for k in 0..<dvalue.columns where abs(tape.value[row, k]) >= clip {
                    dvalue[row, k] = 0
                }
            }
        }
        if hasNormGradient { back(0..<n) } else { multiplier.byRows(n, back) }
        for (d, name) in [(dquery, "q_bias"), (dkey, "k_bias"), (dvalue, "v_bias")] {
            addColumns(d, n, to: gradients.matrix(part, name))
        }
    }

    private func normaliseHeads(_ matrix: Matrix, _ row: Int, _ norm: Matrix?) {
        guard let norm else { return }
        for start in stride(from: 0, to: matrix.columns, by: norm.columns) {
            let values = unsafe matrix.row(row) + start
            unsafe blyan_math_rms_norm(
                values, norm.row(0), UInt64(norm.columns), config.normEpsilon, values)
        }
    }

    /// Through clamping and norm of one row, whose values before both are in `raw`.
    private func normaliseHeadsBack(
        _ d: Matrix, _ raw: Matrix, _ row: Int, _ norm: Matrix?, _ derivative: Matrix?,
        _ room: Matrix
    ) {
        if let clip = config.queryKeyValueClip {
            room.copyRow(0, from: raw, row)
            normaliseHeads(room, 0, norm)
            for k in 0..<d.columns where abs(room[0, k]) >= clip { d[row, k] = 0 }
        }
        guard let norm else { return }
        room.clear()
        for start in stride(from: 0, to: d.columns, by: norm.columns) {
            unsafe blyan_math_rms_norm_back(
                raw.row(row) + start, norm.row(0), d.row(row) + start, UInt64(norm.columns),
                config.normEpsilon, room.row(0) + start, derivative?.row(0))
        }
        d.copyRow(row, from: room, 0)
    }

    private func clamp(_ matrix: Matrix, _ row: Int) {
        guard let clip = config.queryKeyValueClip else { return }
        let values = unsafe matrix.row(row)
        for k in 0..<matrix.columns { unsafe values[k] = min(max(values[k], -clip), clip) }
    }

    /// Turns each head's pairs by the row's position; its derivative is turned back.
    private func rotate(_ matrix: Matrix, _ row: Int, backwards: Bool) {
        let half = cosines.columns
        let cosine = unsafe cosines.row(row)
        let sine = unsafe sines.row(row)
        let sign: Float = backwards ? -1 : 1
        for start in stride(from: 0, to: matrix.columns, by: config.headSize) {
            let head = unsafe matrix.row(row) + start
            for i in 0..<half {
                let (a, b) = unsafe (head[i], head[i + half])
                let (c, s) = unsafe (cosine[i], sign * sine[i])
                unsafe head[i] = a * c - b * s
                unsafe head[i + half] = b * c + a * s
            }
        }
    }

    // MARK: Rows

    func copy(_ from: Matrix, to: Matrix, _ n: Int) {
        multiplier.byRows(n) { rows in for row in rows { to.copyRow(row, from: from, row) } }
    }

    /// The sums of a matrix's columns, added to a bias's derivative.
    private func addColumns(_ matrix: Matrix, _ n: Int, to derivative: Matrix?) {
        guard let derivative else { return }
        for row in 0..<n { derivative.addRow(0, matrix, row) }
    }
}
