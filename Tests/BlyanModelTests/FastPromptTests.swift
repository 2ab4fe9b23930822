import BlyanModel
import Foundation
import Testing

// Unchecked: the lock guards the calls.
/// OpenBLAS, and how often it was called with how many tokens.
private final class CountedLibrary: @unchecked Sendable {
    private let lock = NSLock()
    private var calls: [Int] = []
    private let real: GemmLibrary

    init() throws {
        real = try #require(
            GemmLibrary.openBLAS(), "Scripts/deps.sh installs libopenblas0-pthread")
    }

    var library: GemmLibrary {
        GemmLibrary(
            name: real.name, version: real.version,
            product: { product in
                self.lock.withLock { self.calls.append(product.m) }
                self.real.product(product)
            })
    }

    /// Tokens of each call since the last time this was asked.
    func take() -> [Int] {
        lock.withLock {
            defer { calls = [] }
            return calls
        }
    }
}

/// Long prompts by OpenBLAS: the same within rounding, and our own kernels for all else.
@Suite struct FastPromptTests {
    private let prompt = 300

    private func decoder(
        _ parts: CheckpointParts, threads: Int = 2, _ library: GemmLibrary? = nil
    ) throws -> (Decoder, Session) {
        let experts = parts.config.layers[0].expertCount
        let decoder = try Decoder(
            config: parts.config, parts: parts, threads: threads, library: library)
        return try (
            decoder,
            decoder.makeSession(
                capacity: prompt + 8, router: experts > 0 ? LargestTwo(experts: experts) : nil)
        )
    }

    private func tokens(_ count: Int, _ parts: CheckpointParts) -> [Int] {
        (0..<count).map { ($0 * 31 + 7) % parts.config.vocabularySize }
    }

    private func agree(_ a: [Float], _ b: [Float]) {
        #expect(a.count == b.count)
        let scale = (a.reduce(0) { $0 + $1 * $1 } / Float(a.count)).squareRoot()
        let worst = zip(a, b).map { abs($0 - $1) }.max() ?? 0
        // f32 sums of some dozens of terms in another order, through two layers.
        #expect(worst <= 1e-3 * scale, "\(worst) beside \(scale)")
    }

    @Test(arguments: ["llama-tiny", "mixtral-tiny"], [1, 2])
    func agreesWithOurOwnWithinRounding(name: String, threads: Int) throws {
        try undisturbed {
            let parts = try CheckpointParts(name)
            let counted = try CountedLibrary()
            let (exact, exactSession) = try decoder(parts, threads: threads)
            let (fast, fastSession) = try decoder(parts, threads: threads, counted.library)
            let text = tokens(prompt, parts)
            let expected = try exact.step(exactSession, text, wanted: .all)
            #expect(counted.take().isEmpty)
            try agree(expected, fast.step(fastSession, text, wanted: .all))
            let calls = counted.take()
            let layers = parts.config.layers.count
            // Four of the attention in each layer and the head; then the experts that serve enough tokens.
            #expect(calls.filter { $0 == prompt }.count >= 4 * layers + 1)
            #expect(calls.count >= 7 * layers + 1)
            #expect(calls.allSatisfy { $0 >= Decoder.libraryTokens })
            // Decoding goes on from there, by our own kernels alone.
            for token in [5, 9, 2] {
                try agree(
                    exact.step(exactSession, [token], wanted: .last),
                    fast.step(fastSession, [token], wanted: .last))
            }
            #expect(counted.take().isEmpty)
        }
    }

    @Test func shortPromptsHaveTheBitsOfOurOwn() throws {
        try undisturbed {
            let parts = try CheckpointParts("mixtral-tiny")
            let counted = try CountedLibrary()
            let (exact, exactSession) = try decoder(parts)
            let (fast, fastSession) = try decoder(parts, counted.library)
            let text = tokens(Decoder.libraryTokens - 1, parts)
            let expected = try exact.step(exactSession, text, wanted: .all)
            let found = try fast.step(fastSession, text, wanted: .all)
            #expect(found == expected)
            #expect(counted.take().isEmpty)
        }
    }

    /// Experts of a format that computes itself never reach the library; the attention beside them does.
    @Test func aFormatThatComputesIsLeftToIt() throws {
        try undisturbed {
            let viewed = try CheckpointParts("llama-tiny")
            let parts = try CheckpointParts("llama-tiny", computing: true)
            let counted = try CountedLibrary()
            let (exact, exactSession) = try decoder(viewed)
            // One thread, so that each product is one call.
            let (fast, fastSession) = try decoder(parts, threads: 1, counted.library)
            let text = tokens(prompt, parts)
            let expected = try exact.step(exactSession, text, wanted: .all)
            try agree(expected, fast.step(fastSession, text, wanted: .all))
            #expect(counted.take().count == 4 * parts.config.layers.count + 1)
        }
    }

    @Test func aScoreIsExactWithAnyManifest() throws {
        try undisturbed {
            let parts = try CheckpointParts("llama-tiny")
            let counted = try CountedLibrary()
            let runner = try ModelRunner(
                config: parts.config, parts: parts, threads: 1, library: counted.library,
                openRouter: { nil })
            _ = try runner.evaluate(tokens(200, parts), greedy: 2)
            #expect(counted.take().isEmpty)
            var sampler = try Sampler()
            _ = try runner.generate(
                runner.makeSession(capacity: 210), prompt: tokens(200, parts), sampler: &sampler,
                limit: 2, ends: []
            ) { _ in true }
            #expect(!counted.take().isEmpty)
        }
    }
}
