import BlyanLearning
import BlyanModel
import CBlyanMath
import Foundation
import Testing

/// A safetensors file as other people's scripts wrote it, read without our importer.
struct SafetensorsFixture {
    let metadata: [String: String]
    private let tensors: [String: (dtype: String, shape: [Int], bytes: Data)]

    init(_ url: URL) throws {
        let data = try Data(contentsOf: url)
        let length = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try #require(
            JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any])
        metadata = header["__metadata__"] as? [String: String] ?? [:]
        var tensors: [String: (String, [Int], Data)] = [:]
        for (name, value) in header where name != "__metadata__" {
            let entry = try #require(value as? [String: Any])
            let range = try #require(entry["data_offsets"] as? [Int])
            tensors[name] = try (
                #require(entry["dtype"] as? String), #require(entry["shape"] as? [Int]),
                data[8 + length + range[0]..<8 + length + range[1]]
            )
        }
        self.tensors = tensors
    }

    var names: [String] { tensors.keys.sorted() }

    func floats(_ name: String) throws -> [Float] {
        let tensor = try #require(tensors[name])
        try #require(tensor.dtype == "F32")
        return tensor.bytes.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map {
                bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self)
            }
        }
    }

    /// Rows of the last dimension.
    func rows(_ name: String) throws -> [[Int]] {
        let tensor = try #require(tensors[name])
        try #require(tensor.dtype == "I32")
        let width = try #require(tensor.shape.last)
        let all = tensor.bytes.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map {
                Int(bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self))
            }
        }
        return stride(from: 0, to: all.count, by: width).map { Array(all[$0..<$0 + width]) }
    }
}

/// A checkpoint's weights and arithmetic, without chains and plugins.
enum Checkpoints {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
    static let sample = root.appendingPathComponent("Examples/models/sample-moe")

    static func tiny(_ name: String) -> URL {
        root.appendingPathComponent("Tests/Fixtures/checkpoints/\(name)")
    }

    static func gradients(_ name: String) throws -> SafetensorsFixture {
        try SafetensorsFixture(
            root.appendingPathComponent("Tests/Fixtures/gradients/\(name).safetensors"))
    }

    static func weights(_ url: URL) throws -> Weights {
        let checkpoint = try openCheckpoint(at: url.path)
        let layouts = Dictionary(
            uniqueKeysWithValues: checkpoint.config.parts.map { ($0.name, $0) })
        return try Weights(checkpoint.config) { part in
            var tensors: [String: AlignedBuffer<Float>] = [:]
            for tensor in try checkpoint.tensors(of: #require(layouts[part])) {
                let buffer = AlignedBuffer<Float>(count: tensor.rows * tensor.columns)
                try tensor.withBytes { bytes in
                    blyan_math_to_f32(
                        tensor.dtype, bytes.baseAddress, UInt64(buffer.count), buffer.pointer)
                }
                tensors[tensor.name] = buffer
            }
            return tensors
        }
    }

    static func network(
        _ url: URL, threads: Int = 2, router: ((ModelConfig) -> any RequestRouter)? = nil
    ) throws -> Network {
        let weights = try weights(url)
        let library = try #require(
            GemmLibrary.openBLAS(), "Scripts/deps.sh installs libopenblas0-pthread")
        let config = weights.config
        return try Network(
            weights, multiplier: Multiplier(pool: WorkerPool(threads: threads), library: library)
        ) { router?(config) ?? RuleRouter(config) }
    }
}

/// The rule that checkpoints are trained with, in plain loops: the most probable experts, the lower number first.
final class RuleRouter: RequestRouter, @unchecked Sendable {
    private let config: ModelConfig
    /// Experts that rows are held to, by layer: a derivative is that of a smooth piece.
    var held: [Int: [[Int]]]?

    init(_ config: ModelConfig) { self.config = config }

    func route(
        layer: Int, rows: Int, slots: Int, position: Int, logits: UnsafePointer<Float>,
        ids: UnsafeMutablePointer<UInt32>, weights: UnsafeMutablePointer<Float>
    ) throws {
        let experts = config.layers[layer].expertCount
        for row in 0..<rows {
            let own = (0..<experts).map { logits[row * experts + $0] }
            let top = own.max() ?? 0
            let exponentials = own.map { exp($0 - top) }
            let sum = exponentials.reduce(0, +)
            var order = (0..<experts).sorted { (-own[$0], $0) < (-own[$1], $1) }
            order = Array(order.prefix(slots))
            if let held {
                if let known = held[layer], known.count > row {
                    order = known[row]
                } else {
                    self.held?[layer, default: []].append(order)
                }
            }
            let picked = order.reduce(0) { $0 + exponentials[$1] / sum }
            for (slot, expert) in order.enumerated() {
                ids[row * slots + slot] = UInt32(expert)
                weights[row * slots + slot] =
                    exponentials[expert] / sum / (config.normalisesExpertWeights ? picked : 1)
            }
        }
    }
}
