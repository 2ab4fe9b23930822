internal import BlyanKernel
internal import CBlyanMath
internal import CBlyanPlugin
internal import Foundation

// Unchecked: `lock` is held for a whole step, and only a step touches the mutable state.
/// The forward pass of a decoder-only mixture of experts, on weights as they are stored.
///
/// Activations and sums are f32. A token's result does not depend on how its request was chunked, nor on the
/// number of threads: every product is in the canonical order of `blyan_math.h`, and the experts of a token are
/// added in ascending order. A library that multiplies long prompts gives the first of these up.
package final class Decoder: @unchecked Sendable {
    let config: ModelConfig
    let parts: any PartSource
    let pool: WorkerPool
    let library: GemmLibrary?
    let rotary: RotaryEmbedding
    let scratch = Scratch()
    private let lock = NSLock()
    private let names: Names
    private let onUse: @Sendable (RequestUse) -> Void
    private var breather = Breather()
    // Tokens by expert in the step under way.
    private var used: [String: Int] = [:]

    /// Names of parts, made once.
    private struct Names {
        let attention: [String]
        let router: [String]
        let shared: [String]
        let experts: [[String]]
    }

    /// Which rows of a step are wanted as logits.
    package enum Wanted: Sendable { case none, last, all }

    /// Makes a decoder.
    ///
    /// - Parameters:
    ///   - library: multiplies long prompts; nil = our own kernels do.
    ///   - onUse: told now and then, and at the end of a request, which experts served it.
    package init(
        config: ModelConfig, parts: any PartSource, threads: Int, library: GemmLibrary? = nil,
        onUse: @escaping @Sendable (RequestUse) -> Void = { _ in }
    ) throws {
        self.config = config
        self.onUse = onUse
        self.parts = parts
        pool = try WorkerPool(threads: threads)
        self.library = library
        rotary = RotaryEmbedding(config.rope, headSize: config.headSize)
        let layers = config.layers.indices
        names = Names(
            attention: layers.map { "layer\($0).attention" },
            router: layers.map { "layer\($0).router" },
            shared: layers.map { "layer\($0).shared" },
            experts: layers.map { layer in
                (0..<max(1, config.layers[layer].expertCount)).map { "layer\(layer).expert\($0)" }
            })
    }

    /// A request with room for `capacity` positions.
    package func makeSession(
        capacity: Int, router: (any RequestRouter)?, payer: String = ""
    ) throws -> Session {
        let cache = try KeyValueCache(
            layers: config.layers.count, capacity: capacity,
            width: config.keyValueHeadCount * config.headSize)
        return Session(cache: cache, router: router, payer: payer)
    }

    /// Runs tokens that follow those the session has seen.
    ///
    /// - Returns: Logits of the wanted rows, vocabulary after vocabulary.
    /// - Throws: If a token is unknown, the session is full, or a part cannot be loaded. Its router may have seen
    ///   the step, so a session whose step failed half-way refuses further ones.
    package func step(_ session: Session, _ tokens: [Int], wanted: Wanted) throws -> [Float] {
        lock.lock()
        defer { lock.unlock() }
        breather.stepBegins()
        defer { breather.stepEnds() }
        do { return try run(session, tokens, wanted) } catch let error as KernelError
            where [.io, .integrity].contains(error.code)
        {
            try parts.forget()
            throw error
        }
    }

    private func run(_ session: Session, _ tokens: [Int], _ wanted: Wanted) throws -> [Float] {
        guard !tokens.isEmpty else { throw ModelError("a step needs at least one token") }
        guard !session.isBroken else {
            throw ModelError(
                "an earlier step of this request failed half-way", hint: "begin a new conversation")
        }
        guard tokens.count <= session.capacity - session.position else {
            throw ModelError(
                "the context is full: \(session.position) of \(session.capacity) positions are used",
                hint: "ask for fewer tokens or begin a new conversation")
        }
        let n = tokens.count
        let hidden = config.hiddenSize
        let faults = MappedPayload.faultCount
        let start = ContinuousClock.now
        used.removeAll(keepingCapacity: true)
        scratch.reserve(config, tokens: n)
        try embed(tokens)
        let half = rotary.frequencies.count
        for row in 0..<n {
            unsafe rotary.angles(
                at: session.position + row, cosines: scratch.cosines.pointer + row * half,
                sines: scratch.sines.pointer + row * half)
        }
        session.isBroken = true
        for layer in config.layers.indices {
            try attend(layer, session, n)
            try feedForward(layer, session, n)
        }
        let rows: Range<Int>
        switch wanted {
        case .none:
            try finish(session, n, faults, start)
            return []
        case .last: rows = n - 1..<n
        case .all: rows = 0..<n
        }
        let norm = try parts.part("norm").vector("weight")
        for row in rows {
            unsafe blyan_math_rms_norm(
                scratch.x.pointer + row * hidden, norm, UInt64(hidden), config.normEpsilon,
                scratch.normed.pointer + row * hidden)
        }
        let head = try parts.part(config.tiedEmbeddings ? "embedding" : "head").matrix("weight")
        let logits = AlignedBuffer<Float>(count: rows.count * config.vocabularySize)
        let last = unsafe scratch.normed.pointer + rows.lowerBound * hidden
        let input = unsafe prepareUnlessLong(
            head.dtype, last, rows.count, hidden, into: scratch.prepared)
        let output = try unsafe Product(
            matrix: head.verified(), x: last, input: input, tokens: rows.count,
            output: logits.pointer,
            stride: config.vocabularySize)
        unsafe multiply([output])
        try finish(session, n, faults, start)
        return logits.array(0..<rows.count * config.vocabularySize)
    }

    /// Ends a step: its result counts only if the disk served every page that it read.
    private func finish(
        _ session: Session, _ n: Int, _ faults: UInt64, _ start: ContinuousClock.Instant
    ) throws {
        guard MappedPayload.faultCount == faults else {
            throw KernelError(
                .io,
                "the disk could not serve a page of a mapped payload: this step's result was discarded",
                hint: "run `blyan chain check --read-data`: it names the payload")
        }
        session.position += n
        session.isBroken = false
        let taken = (ContinuousClock.now - start).components
        let nanoseconds = taken.seconds * 1_000_000_000 + taken.attoseconds / 1_000_000_000
        for (expert, tokens) in used {
            var use =
                session.use[expert]
                ?? RequestUse.Expert(isFirst: session.served.insert(expert).inserted)
            use.tokens += tokens
            use.steps += 1
            use.nanoseconds += nanoseconds
            session.use[expert] = use
        }
        session.useSteps += 1
        if session.useSteps >= Self.reportedSteps { tell(session) }
    }

    /// Steps of a request that are told of at once: a message a step would cost a small model a tenth of its speed.
    private static let reportedSteps = 64

    /// Tells what a request took since it was told last; at its end, and now and then before.
    func report(_ session: Session) {
        lock.lock()
        defer { lock.unlock() }
        tell(session)
    }

    /// With `lock`.
    private func tell(_ session: Session) {
        guard session.useSteps > 0 else { return }
        onUse(RequestUse(experts: session.use, payer: session.payer))
        session.use.removeAll()
        session.useSteps = 0
    }

    private func embed(_ tokens: [Int]) throws {
        let table = try parts.part("embedding").matrix("weight")
        for (row, token) in tokens.enumerated() {
            guard token >= 0, token < config.vocabularySize else {
                throw ModelError("token id \(token) is not below \(config.vocabularySize)")
            }
            try unsafe table.decode(
                rows: token..<token + 1, into: scratch.x.pointer + row * config.hiddenSize)
        }
    }

    /// x += o(attention(norm(x))).
    private func attend(_ layer: Int, _ session: Session, _ n: Int) throws {
        let part = try parts.part(names.attention[layer])
        let hidden = config.hiddenSize
        let queryWidth = config.headCount * config.headSize
        let width = session.cache.width
        let first = session.position
        try normalise(part.vector("norm"), n)

        let keys = unsafe session.cache.keys(layer) + first * width
        let values = unsafe session.cache.values(layer) + first * width
        let projections = try unsafe [
            (part.matrix("q"), scratch.query.pointer, queryWidth),
            (part.matrix("k"), keys, width), (part.matrix("v"), values, width),
        ]
        var products: [Product] = unsafe []
        var prepared: [UInt32: UnsafeRawPointer] = unsafe [:]
        for unsafe(index, (matrix, output, stride)) in unsafe projections.enumerated() {
            let input =
                unsafe prepared[matrix.dtype]
                ?? prepareUnlessLong(
                    matrix.dtype, scratch.normed.pointer, n, hidden,
                    into: index == 0 ? scratch.prepared : scratch.preparedToo[index - 1])
            unsafe prepared[matrix.dtype] = unsafe input
            try unsafe products.append(
                Product(
                    matrix: matrix.verified(), x: scratch.normed.pointer, input: input, tokens: n,
                    output: output, stride: stride))
        }
        unsafe multiply(products)
        try unsafe finishProjections(part, n, keys, values)

        let window = config.layers[layer].slidingWindow
        let heads = config.headCount
        let group = heads / config.keyValueHeadCount
        let headSize = config.headSize
        let scale = 1 / Float(headSize).squareRoot()
        let allKeys = unsafe session.cache.keys(layer)
        let allValues = unsafe session.cache.values(layer)
        // One task a head, or a block of queries of one head where heads alone are too few to share out: each has
        // its own scores, as many as the context is long.
        let block = max(1, n / (1 + 4 * pool.threads / heads))
        let blocks = (n + block - 1) / block
        let reach = min(first + n, window ?? Int.max)
        scratch.scores.reserve(heads * blocks * reach)
        pool.run(heads * blocks) { task in
            let head = task % heads
            let scores = unsafe scratch.scores.pointer + task * reach
            for row in (task / heads) * block..<min(n, (task / heads + 1) * block) {
                let end = first + row + 1
                let begin = window.map { max(0, end - $0) } ?? 0
                let offset = head / group * headSize
                unsafe blyan_math_attend(
                    scratch.query.pointer + row * queryWidth + head * headSize, allKeys + offset,
                    allValues + offset, UInt64(width), UInt64(begin), UInt64(end), UInt64(headSize),
                    scale, scores, scratch.attended.pointer + row * queryWidth + head * headSize)
            }
        }
        let output = try part.matrix("o")
        let input = unsafe prepareUnlessLong(
            output.dtype, scratch.attended.pointer, n, queryWidth, into: scratch.prepared)
        try unsafe multiply([
            Product(
                matrix: output.verified(), x: scratch.attended.pointer, input: input, tokens: n,
                output: scratch.normed.pointer, stride: hidden)
        ])
        let bias = part.vectors["o_bias"]
        for row in 0..<n {
            let x = unsafe scratch.x.pointer + row * hidden
            unsafe blyan_math_axpy(1, scratch.normed.pointer + row * hidden, x, UInt64(hidden))
            if let bias { unsafe blyan_math_axpy(1, bias, x, UInt64(hidden)) }
        }
    }

    /// Biases, norms, clamping and rotation, in this order, of the new queries, keys and values.
    private func finishProjections(
        _ part: PartWeights, _ n: Int, _ keys: UnsafeMutablePointer<Float>,
        _ values: UnsafeMutablePointer<Float>
    ) throws {
        let queryWidth = config.headCount * config.headSize
        let width = config.keyValueHeadCount * config.headSize
        let headSize = config.headSize
        let (norms, biases) = try (
            config.queryKeyNorm == .none
                ? nil : (query: part.vector("q_norm"), key: part.vector("k_norm")),
            (
                query: part.vectors["q_bias"], key: part.vectors["k_bias"],
                value: part.vectors["v_bias"]
            )
        )
        pool.run(n) { row in
            let half = rotary.frequencies.count
            let cosines = unsafe scratch.cosines.pointer + row * half
            let sines = unsafe scratch.sines.pointer + row * half
            let query = unsafe scratch.query.pointer + row * queryWidth
            let key = unsafe keys + row * width
            let value = unsafe values + row * width
            for unsafe(vector, count, bias) in unsafe [
                (query, queryWidth, biases.query), (key, width, biases.key),
                (value, width, biases.value),
            ] {
                if let bias { unsafe blyan_math_axpy(1, bias, vector, UInt64(count)) }
            }
            for unsafe(vector, count, norm) in unsafe [
                (query, queryWidth, norms?.query), (key, width, norms?.key),
            ] {
                if let norm {
                    let span = config.queryKeyNorm == .whole ? count : headSize
                    for start in stride(from: 0, to: count, by: span) {
                        unsafe blyan_math_rms_norm(
                            vector + start, norm, UInt64(span), config.normEpsilon, vector + start)
                    }
                }
            }
            for unsafe(vector, count, turns) in unsafe [
                (query, queryWidth, true), (key, width, true), (value, width, false),
            ] {
                if let clip = config.queryKeyValueClip {
                    for i in 0..<count { unsafe vector[i] = min(max(vector[i], -clip), clip) }
                }
                for head in stride(from: 0, to: turns ? count : 0, by: headSize) {
                    unsafe rotate(vector + head, half, cosines, sines)
                }
            }
        }
    }

    private func rotate(
        _ head: UnsafeMutablePointer<Float>, _ half: Int, _ cosines: UnsafePointer<Float>,
        _ sines: UnsafePointer<Float>
    ) {
        for i in 0..<half {
            let (a, b) = unsafe (head[i], head[i + half])
            unsafe head[i] = a * cosines[i] - b * sines[i]
            unsafe head[i + half] = b * cosines[i] + a * sines[i]
        }
    }

    /// x += feed-forward(norm(x)): experts that the router picks, the shared expert, or the one dense expert.
    private func feedForward(_ layer: Int, _ session: Session, _ n: Int) throws {
        let shape = config.layers[layer]
        if shape.expertCount == 0 {
            let expert = try parts.part(names.experts[layer][0])
            used[names.experts[layer][0], default: 0] += n
            try normalise(expert.vector("norm"), n)
            let all = ExpertGroup(
                weights: expert, width: shape.intermediateSize, rows: Array(0..<n),
                shares: Array(repeating: 1, count: n))
            return try apply([all])
        }
        let router = try parts.part(names.router[layer])
        try normalise(router.vector("norm"), n)
        var groups = try route(layer, router, session, n)
        if shape.sharedIntermediateSize > 0 {
            try groups.append(sharedGroup(parts.part(names.shared[layer]), shape, n))
        }
        try apply(groups)
    }

    /// Asks the router which experts serve which rows, and loads those experts alone.
    private func route(_ layer: Int, _ part: PartWeights, _ session: Session, _ n: Int) throws
        -> [ExpertGroup]
    {
        guard let router = session.router else {
            throw ModelError("layer \(layer) has experts but the request has no router")
        }
        let shape = config.layers[layer]
        let slots = config.expertsPerToken
        let matrix = try part.matrix("weight")
        // Never the library: which experts serve a token is exact for what the layers before have made.
        let input = unsafe prepare(
            matrix.dtype, scratch.normed.pointer, n, config.hiddenSize, into: scratch.prepared)
        try unsafe multiply([
            Product(
                matrix: matrix.verified(), x: scratch.normed.pointer, input: input, tokens: n,
                output: scratch.routerLogits.pointer, stride: shape.expertCount)
        ])
        for i in 0..<n * shape.expertCount where unsafe !scratch.routerLogits.pointer[i].isFinite {
            throw ModelError(
                "the logits of \(names.router[layer]) are not finite at position \(session.position + i / shape.expertCount): its weights, or those before it, hold what is no number",
                hint:
                    "run `blyan chain check --read-data`; import the model again if it finds nothing"
            )
        }
        try unsafe router.route(
            layer: layer, rows: n, slots: slots, position: session.position,
            logits: scratch.routerLogits.pointer, ids: scratch.ids.pointer,
            weights: scratch.shares.pointer)
        var rows: [[Int]] = Array(repeating: [], count: shape.expertCount)
        var shares: [[Float]] = Array(repeating: [], count: shape.expertCount)
        for slot in 0..<n * slots {
            let id = unsafe scratch.ids.pointer[slot]
            let share = unsafe scratch.shares.pointer[slot]
            guard id != UInt32.max, share != 0 else { continue }
            rows[Int(id)].append(slot / slots)
            shares[Int(id)].append(share)
        }
        return try rows.indices.filter { !rows[$0].isEmpty }.map { expert in
            used[names.experts[layer][expert], default: 0] += rows[expert].count
            return try ExpertGroup(
                weights: parts.part(names.experts[layer][expert]), width: shape.intermediateSize,
                rows: rows[expert], shares: shares[expert])
        }
    }

    private func sharedGroup(_ part: PartWeights, _ shape: ModelConfig.Layer, _ n: Int)
        -> ExpertGroup
    {
        var shares = [Float](repeating: 1, count: n)
        if let gate = part.vectors["shared_gate"] {
            for row in 0..<n {
                let logit = unsafe blyan_math_dot(
                    gate, scratch.normed.pointer + row * config.hiddenSize,
                    UInt64(config.hiddenSize))
                shares[row] = blyan_math_sigmoid(logit)
            }
        }
        return ExpertGroup(
            weights: part, width: shape.sharedIntermediateSize, rows: Array(0..<n), shares: shares)
    }

    private func normalise(_ norm: [Float], _ n: Int) {
        let hidden = config.hiddenSize
        for row in 0..<n {
            unsafe blyan_math_rms_norm(
                scratch.x.pointer + row * hidden, norm, UInt64(hidden), config.normEpsilon,
                scratch.normed.pointer + row * hidden)
        }
    }
}
