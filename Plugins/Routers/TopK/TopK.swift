internal import BlyanPluginKit
public import CBlyanPlugin

/// The router that checkpoints are trained with: softmax over all experts in f32, then the k most probable.
///
/// Equal probabilities go to the lower id. Mixtral and Qwen3-MoE divide the picked weights by their sum; OLMoE and
/// Qwen2-MoE do not: the model says which. As `MixtralTopKRouter` and its kin in Hugging Face transformers.
final class TopK: Router {
    static let name = "topk"
    static let version = "1.0.1"
    static let configSchema =
        #"{"type": "object", "additionalProperties": false, "properties": {}}"#

    /// A row depends on nothing but its logits: a request's state is the model's description and scratch space.
    final class Request {
        let model: RouterModel
        var probabilities: [Float]

        init(_ model: RouterModel) {
            self.model = model
            probabilities = [Float](repeating: 0, count: model.experts)
        }
    }

    init(host: HostServices, config: String) {}

    func open(_ model: RouterModel) throws(PluginError) -> Request {
        guard (1...65_536).contains(model.experts) else {
            throw PluginError(
                BLYAN_E_LIMIT, "a layer has \(model.experts) experts, expected 1 to 65536")
        }
        guard (1...model.experts).contains(model.expertsPerToken) else {
            throw PluginError(
                BLYAN_E_ARGUMENT,
                "\(model.expertsPerToken) experts per token, expected 1 to \(model.experts)")
        }
        return Request(model)
    }

    func clone(_ request: Request) -> Request { Request(request.model) }

    func route(
        _ logits: Span<Float>, request: Request, layer: UInt32, position: UInt64,
        ids: inout MutableSpan<UInt32>, weights: inout MutableSpan<Float>
    ) throws(PluginError) {
        guard ids.count == request.model.expertsPerToken else {
            throw PluginError(
                BLYAN_E_ARGUMENT,
                "\(ids.count) slots a row, expected \(request.model.expertsPerToken)")
        }
        try softmax(logits, into: &request.probabilities, layer: layer, position: position)
        var sum: Float = 0
        for slot in ids.indices {
            var best = -1
            for (expert, probability) in request.probabilities.enumerated()
            where best < 0 || probability > request.probabilities[best] {
                best = expert
            }
            ids[slot] = UInt32(best)
            weights[slot] = request.probabilities[best]
            sum += request.probabilities[best]
            request.probabilities[best] = -1  // below every probability: picked once
        }
        guard request.model.normalises else { return }
        for slot in ids.indices { weights[slot] /= sum }
    }

    /// Three experts, a tie between the first and the last, two slots: 0 before 2, and halves when normalised.
    func selfTest() throws(PluginError) {
        let request = try open(
            RouterModel(layers: 1, experts: 3, expertsPerToken: 2, normalises: true))
        let logits: [Float] = [1, 0, 1]
        var ids: [UInt32] = [0, 0]
        var weights: [Float] = [0, 0]
        var idSpan = ids.mutableSpan
        var weightSpan = weights.mutableSpan
        try route(
            logits.span, request: request, layer: 0, position: 0, ids: &idSpan, weights: &weightSpan
        )
        guard ids == [0, 2], weights == [0.5, 0.5] else {
            throw PluginError(BLYAN_E_INTERNAL, "self-test: found \(ids) with weights \(weights)")
        }
    }
}

private func softmax(
    _ logits: Span<Float>, into out: inout [Float], layer: UInt32, position: UInt64
) throws(PluginError) {
    var top = -Float.infinity
    for expert in logits.indices {
        guard logits[expert].isFinite else {
            throw PluginError(
                BLYAN_E_MALFORMED,
                "layer \(layer), position \(position): the logit of expert \(expert) is not finite")
        }
        top = max(top, logits[expert])
    }
    var sum: Float = 0
    for expert in logits.indices {
        out[expert] = exponential(logits[expert] - top)
        sum += out[expert]
    }
    for expert in logits.indices { out[expert] /= sum }
}

/// e^x of a number that is not above 0, to the last bit of f32 but for the rarest.
///
/// A C library's `expf` differs by version and processor, and so would weights. This is plain arithmetic of doubles,
/// each operation rounded once: x = n ln 2 + r with ln 2 in two parts (Cody and Waite), and the rational function
/// of the Cephes library (S. Moshier) for e^r. No fused multiply-add: without the instruction it is a call of that library.
private func exponential(_ x: Float) -> Float {
    // Below, half of the smallest number that f32 holds is not reached.
    guard x > -104 else { return 0 }
    let x = Double(x)
    let n = Int64(x * 1.442_695_040_888_963_4 - 0.5)
    let r = x - Double(n) * 6.93145751953125e-1 - Double(n) * 1.4286068203094172e-6
    let rr = r * r
    let p =
        r * ((1.261_771_930_748_105_9e-4 * rr + 3.029_944_077_074_419_6e-2) * rr + 1)
    let q =
        ((3.001_985_051_386_644_6e-6 * rr + 2.524_483_403_496_841e-3) * rr
            + 2.272_655_482_081_550_3e-1) * rr + 2
    let power = Double(bitPattern: UInt64(n + 1023) << 52)
    return Float((1 + 2 * (p / (q - p))) * power)
}

private let table = PluginTable.router(TopK.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
