import BlyanModel
import CBlyanPlugin
import Foundation
import Testing

/// Parts straight from a checkpoint's files: the forward pass without chains and plugins.
final class CheckpointParts: PartSource {
    private let parts: [String: PartWeights]
    let config: ModelConfig

    /// - Parameter computing: experts compute themselves, as those of a format that the host cannot view do.
    init(_ name: String, computing: Bool = false) throws {
        let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent()
            .appendingPathComponent("Fixtures/checkpoints/\(name)")
        let checkpoint = try openCheckpoint(at: fixtures.path)
        config = checkpoint.config
        var parts: [String: PartWeights] = [:]
        for layout in checkpoint.config.parts {
            var matrices: [String: WeightMatrix] = [:]
            var vectors: [String: [Float]] = [:]
            var buffers: [String: AlignedBuffer<Float>] = [:]
            for tensor in try checkpoint.tensors(of: layout) {
                let buffer = AlignedBuffer<Float>(count: tensor.rows * tensor.columns)
                try tensor.withBytes { bytes in
                    for i in 0..<tensor.rows * tensor.columns {
                        buffer.pointer[i] =
                            switch Int(tensor.dtype) {
                            case Int(BLYAN_DTYPE_F16):
                                Float(bytes.loadUnaligned(fromByteOffset: 2 * i, as: Float16.self))
                            case Int(BLYAN_DTYPE_BF16):
                                Float(
                                    bitPattern: UInt32(
                                        bytes.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
                                        << 16)
                            default: bytes.loadUnaligned(fromByteOffset: 4 * i, as: Float.self)
                            }
                    }
                }
                buffers[tensor.name] = buffer
                if tensor.rows == 1 {
                    vectors[tensor.name] = buffer.array(0..<tensor.columns)
                } else {
                    matrices[tensor.name] = WeightMatrix(
                        decoded: buffer, rows: tensor.rows, columns: tensor.columns)
                }
            }
            let isExpert = layout.name.contains(".expert") && computing
            parts[layout.name] = PartWeights(
                name: layout.name, mappedBytes: 0, ownedBytes: 0,
                matrices: isExpert ? [:] : matrices, vectors: vectors,
                compute: isExpert ? try ExpertArithmetic(buffers, config.hiddenSize).share : nil)
        }
        self.parts = parts
    }

    func part(_ name: String) throws -> PartWeights { try #require(parts[name]) }
}

/// What the contract says of a `compute` call, in plain loops, strides checked.
private struct ExpertArithmetic {
    let gate, up, down: AlignedBuffer<Float>
    let hidden: Int
    let width: Int

    init(_ buffers: [String: AlignedBuffer<Float>], _ hidden: Int) throws {
        gate = try #require(buffers["gate"])
        up = try #require(buffers["up"])
        down = try #require(buffers["down"])
        self.hidden = hidden
        width = gate.count / hidden
    }

    func dot(_ w: AlignedBuffer<Float>, _ row: Int, _ x: UnsafePointer<Float>, _ n: Int) -> Float {
        (0..<n).reduce(0) { $0 + w.pointer[row * n + $1] * x[$1] }
    }

    @Sendable func share(_ work: blyan_compute) throws {
        let rows = Int(work.row_begin)..<Int(work.row_end)
        let h = try #require(work.h)
        #expect(work.h_stride >= width)
        for token in 0..<Int(work.tokens) {
            let line = h + token * Int(work.h_stride)
            if work.stage == UInt32(BLYAN_COMPUTE_HIDDEN) {
                let x = try #require(work.x) + token * Int(work.x_stride)
                for row in rows {
                    let g = dot(gate, row, x, hidden)
                    line[row] = g / (1 + exp(-g)) * dot(up, row, x, hidden)
                }
            } else {
                #expect(work.y_stride >= hidden)
                let y = try #require(work.y) + token * Int(work.y_stride)
                let weight = try #require(work.weight)[token]
                for row in rows { y[row] += weight * dot(down, row, line, width) }
            }
        }
    }
}

/// The two experts with the largest logits, half a share each: a router that no checkpoint has, so that the test needs none.
final class LargestTwo: RequestRouter {
    let experts: Int

    init(experts: Int) { self.experts = experts }

    func route(
        layer: Int, rows: Int, slots: Int, position: Int, logits: UnsafePointer<Float>,
        ids: UnsafeMutablePointer<UInt32>, weights: UnsafeMutablePointer<Float>
    ) throws {
        for row in 0..<rows {
            let order = (0..<experts).sorted {
                logits[row * experts + $0] > logits[row * experts + $1]
            }
            for slot in 0..<slots {
                ids[row * slots + slot] = UInt32(order[slot])
                weights[row * slots + slot] = 1 / Float(slots)
            }
        }
    }
}

@Suite struct DecoderTests {
    private func run(_ parts: CheckpointParts, threads: Int, chunks: [Int]) throws -> [UInt32] {
        try undisturbed { try runOnce(parts, threads: threads, chunks: chunks) }
    }

    private func runOnce(_ parts: CheckpointParts, threads: Int, chunks: [Int]) throws -> [UInt32] {
        let decoder = try Decoder(config: parts.config, parts: parts, threads: threads)
        let experts = parts.config.layers[0].expertCount
        let session = try decoder.makeSession(
            capacity: chunks.reduce(0, +), router: experts > 0 ? LargestTwo(experts: experts) : nil)
        var logits: [UInt32] = []
        var token = 3
        for chunk in chunks {
            let tokens = (0..<chunk).map { _ in
                token = (token * 31 + 7) % parts.config.vocabularySize
                return token
            }
            logits += try decoder.step(session, tokens, wanted: .all).map(\.bitPattern)
        }
        return logits
    }

    @Test(arguments: ["mixtral-tiny", "llama-tiny"])
    func chunksAndThreadsDoNotChangeABit(name: String) throws {
        let parts = try CheckpointParts(name)
        let whole = try run(parts, threads: 1, chunks: [37])
        #expect(whole.count == 37 * parts.config.vocabularySize)
        for threads in [1, 2, 3] {
            #expect(
                try run(parts, threads: threads, chunks: [Int](repeating: 1, count: 37)) == whole)
            #expect(try run(parts, threads: threads, chunks: [5, 20, 1, 11]) == whole)
        }
    }

    @Test(arguments: ["mixtral-tiny", "llama-tiny"], [1, 2, 3])
    func aFormatThatComputesGivesTheSame(name: String, threads: Int) throws {
        let viewed = try run(CheckpointParts(name), threads: 1, chunks: [9, 1])
        let computed = try run(
            CheckpointParts(name, computing: true), threads: threads, chunks: [9, 1])
        for (a, b) in zip(viewed, computed) {
            #expect(abs(Float(bitPattern: a) - Float(bitPattern: b)) < 2e-3)
        }
    }

    @Test func aFullContextIsAnErrorAndKeepsTheSession() throws {
        let parts = try CheckpointParts("llama-tiny")
        try undisturbed {
            let decoder = try Decoder(config: parts.config, parts: parts, threads: 1)
            let session = try decoder.makeSession(capacity: 4, router: nil)
            func isRefused(_ tokens: [Int]) throws -> Bool {
                do { _ = try decoder.step(session, tokens, wanted: .last) } catch is ModelError {
                    return true
                }
                return false
            }
            _ = try decoder.step(session, [1, 2, 3], wanted: .none)
            let isFull = try isRefused([1, 2])
            #expect(isFull && session.position == 3)
            let isUnknown = try isRefused([parts.config.vocabularySize])
            #expect(isUnknown && session.position == 3)
            _ = try decoder.step(session, [4], wanted: .last)
            #expect(session.position == 4)
        }
    }
}

@Suite struct SamplerTests {
    @Test func theSameSeedPicksTheSameTokens() throws {
        let logits = (0..<50).map { Float($0 % 7) }
        func picks(_ seed: UInt64) throws -> [Int] {
            var sampler = try Sampler(temperature: 0.8, topK: 20, topP: 0.9, seed: seed)
            return (0..<40).map { _ in sampler.next(logits) }
        }
        #expect(try picks(1) == picks(1))
        #expect(try picks(1) != picks(2))
    }

    @Test func samplesOnlyWhatIsAllowed() throws {
        var topK = try Sampler(temperature: 5, topK: 2, seed: 3)
        var topP = try Sampler(temperature: 1, topP: 0.5, seed: 3)
        for _ in 0..<200 {
            #expect([2, 3].contains(topK.next([0, 1, 3, 4, 2])))
            #expect(topP.next([0, 0, 9, 0]) == 2)
        }
        #expect(Sampler.greedy([1, 5, 5, 2]) == 1)
        #expect(throws: ModelError.self) { try Sampler(temperature: -1) }
        #expect(throws: ModelError.self) { try Sampler(topP: 0) }
    }

    /// Frequencies of 20,000 draws lie within five standard deviations of the softmax.
    @Test func drawsFollowTheSoftmax() throws {
        let logits: [Float] = [0, 1, 2]
        var sampler = try Sampler(temperature: 1, seed: 11)
        var counts = [0, 0, 0]
        for _ in 0..<20_000 { counts[sampler.next(logits)] += 1 }
        let total = logits.reduce(0) { $0 + exp(Double($1)) }
        for (logit, count) in zip(logits, counts) {
            let p = exp(Double(logit)) / total
            #expect(abs(Double(count) - 20_000 * p) < 5 * (20_000 * p * (1 - p)).squareRoot())
        }
    }
}
