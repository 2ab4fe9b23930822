/// One block of a model on chain B: its name and the tensors that its payload must hold, in order.
public struct PartLayout: Sendable, Equatable {
    /// `embedding`, `layer4.attention`, `layer4.router`, `layer4.shared`, `layer4.expert7`, `norm` or `head`.
    public let name: String
    /// The layer, or -1 for a part outside the layers.
    public let layer: Int
    /// Tensors in payload order.
    public let tensors: [Tensor]

    /// A tensor's name in the payload and its shape; a vector is 1 × N.
    public struct Tensor: Sendable, Equatable {
        /// Short name, such as `gate`, `q`, `q_bias`, `norm`.
        public let name: String
        /// Output features.
        public let rows: Int
        /// Input features.
        public let columns: Int
        /// Whether the checkpoint may lack it (biases).
        public let optional: Bool
    }
}

extension ModelConfig {
    /// Every part of the model in import order: embedding, layers, final norm, head.
    ///
    /// Norms and biases travel with the part that uses them: the norm before the feed-forward lies with the router,
    /// in a dense layer with `expert0`.
    public var parts: [PartLayout] {
        typealias T = PartLayout.Tensor
        func t(_ name: String, _ rows: Int, _ columns: Int, optional: Bool = false) -> T {
            T(name: name, rows: rows, columns: columns, optional: optional)
        }
        let q = headCount * headSize
        let kv = keyValueHeadCount * headSize
        var parts = [
            PartLayout(
                name: "embedding", layer: -1, tensors: [t("weight", vocabularySize, hiddenSize)])
        ]
        for (i, layer) in layers.enumerated() {
            var attention = [
                t("norm", 1, hiddenSize), t("q", q, hiddenSize), t("k", kv, hiddenSize),
                t("v", kv, hiddenSize), t("o", hiddenSize, q),
                t("q_bias", 1, q, optional: true), t("k_bias", 1, kv, optional: true),
                t("v_bias", 1, kv, optional: true), t("o_bias", 1, hiddenSize, optional: true),
            ]
            switch queryKeyNorm {
            case .none: break
            case .perHead: attention += [t("q_norm", 1, headSize), t("k_norm", 1, headSize)]
            case .whole: attention += [t("q_norm", 1, q), t("k_norm", 1, kv)]
            }
            parts.append(
                PartLayout(name: "layer\(i).attention", layer: i, tensors: attention))
            func expert(_ width: Int) -> [T] {
                [
                    t("gate", width, hiddenSize), t("up", width, hiddenSize),
                    t("down", hiddenSize, width),
                ]
            }
            if layer.expertCount == 0 {
                parts.append(
                    PartLayout(
                        name: "layer\(i).expert0", layer: i,
                        tensors: expert(layer.intermediateSize) + [t("norm", 1, hiddenSize)]))
                continue
            }
            parts.append(
                PartLayout(
                    name: "layer\(i).router", layer: i,
                    tensors: [t("norm", 1, hiddenSize), t("weight", layer.expertCount, hiddenSize)])
            )
            if layer.sharedIntermediateSize > 0 {
                parts.append(
                    PartLayout(
                        name: "layer\(i).shared", layer: i,
                        tensors: expert(layer.sharedIntermediateSize)
                            + [t("shared_gate", 1, hiddenSize, optional: true)]))
            }
            for e in 0..<layer.expertCount {
                parts.append(
                    PartLayout(
                        name: "layer\(i).expert\(e)", layer: i,
                        tensors: expert(layer.intermediateSize)))
            }
        }
        parts.append(PartLayout(name: "norm", layer: -1, tensors: [t("weight", 1, hiddenSize)]))
        if !tiedEmbeddings {
            parts.append(
                PartLayout(
                    name: "head", layer: -1, tensors: [t("weight", vocabularySize, hiddenSize)]))
        }
        return parts
    }
}
