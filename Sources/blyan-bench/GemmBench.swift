internal import ArgumentParser
internal import BlyanModel
internal import CBlyanMath
internal import CBlyanPlugin
internal import Foundation

struct GemmBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gemm",
        abstract: "Matrices times prompts: our own kernels beside OpenBLAS and oneDNN.",
        discussion: """
            The libraries are loaded where Debian's libopenblas0-pthread and libdnnl2 are installed; otherwise their \
            figures are absent. Both know f32 alone, so weights of another dtype are converted at each call; beside \
            that stands "_kept_f32", with all weights kept as f32 in two or four times the memory. "onednn_s8" is \
            the sums of bytes alone, without quantising and scaling. Sides are measured in turn.
            """)

    @Option(help: "Rounds; medians are reported.")
    var rounds = 5

    @Option(parsing: .upToNextOption, help: "Matrices, as rows x columns.")
    var shapes = ["576x1536", "1408x512", "4096x14336"]

    @Option(parsing: .upToNextOption, help: "Tokens of the prompts.")
    var tokens = [32, 128, 512]

    @Option(parsing: .upToNextOption, help: "Threads.")
    var threads = [1, 2]

    func validate() throws {
        guard shapes.allSatisfy({ parse($0) != nil }) else {
            throw ValidationError("a shape is rows x columns, such as 1408x512")
        }
        guard rounds > 0, (tokens + threads).allSatisfy({ 1...65536 ~= $0 }) else {
            throw ValidationError("rounds, tokens and threads are at least 1")
        }
    }

    func run() throws {
        let libraries = GemmLibrary.installed()
        let pools = try threads.map { try WorkerPool(threads: $0) }
        var report = GemmReport(
            kernels: unsafe String(cString: blyan_math_isa_name(blyan_math_isa())),
            libraries: Dictionary(uniqueKeysWithValues: libraries.map { ($0.name, $0.version) }))
        for (rows, columns) in shapes.compactMap(parse) {
            let sides = sides(rows, columns, libraries)
            var firstRows: [String: [Float]] = [:]
            for pool in pools {
                // One token first: whether a row depends on its batch shows there most.
                for count in [1] + tokens {
                    let prompt = GemmPrompt(tokens: count, rows: rows, columns: columns)
                    let right = check(sides, prompt, pool) { side in
                        let row = prompt.firstRow
                        let known = firstRows[side.id] ?? row
                        firstRows[side.id] = known
                        report.rowsKeepTheirBits[side.name, default: true] =
                            report.rowsKeepTheirBits[side.name, default: true] && known == row
                    }
                    guard count > 1 || tokens.contains(1) else { continue }
                    let rates = measure(right, prompt, pool).mapValues {
                        2e-9 * Double(rows) * Double(columns) * Double(count) / $0
                    }
                    report.products += table(right, rates).map { weights, rates in
                        GemmReport.Product(
                            rows: rows, columns: columns, tokens: count, threads: pool.threads,
                            weights: weights,
                            gflopPerS: rates.mapValues { ($0 * 10).rounded() / 10 })
                    }
                }
            }
        }
        try report.print()
    }

    private func parse(_ shape: String) -> (Int, Int)? {
        let parts = shape.split(separator: "x").compactMap { Int($0) }
        guard parts.count == 2, parts.allSatisfy({ 1...65536 ~= $0 }) else { return nil }
        return (parts[0], parts[1])
    }

    // MARK: Sides

    /// One way to compute a product.
    private struct Side {
        let name: String
        /// The dtype's name.
        let weights: String
        /// How far from our own result it may be, in its root mean square.
        let tolerance: Float
        let multiply: (GemmPrompt, WorkerPool) -> Void
        /// What makes y of it, not timed.
        var finish: (GemmPrompt) -> Void = { _ in }
        var id: String { "\(name) \(weights)" }
    }

    private func sides(_ rows: Int, _ columns: Int, _ libraries: [GemmLibrary]) -> [Side] {
        let dtypes: [(String, UInt32)] = [
            ("f32", UInt32(BLYAN_DTYPE_F32)), ("f16", UInt32(BLYAN_DTYPE_F16)),
            ("bf16", UInt32(BLYAN_DTYPE_BF16)), ("int8", UInt32(BLYAN_DTYPE_I8)),
        ]
        return dtypes.flatMap { name, dtype in
            let weights = GemmWeights(dtype, rows: rows, columns: columns)
            // Other orders of f32 sums; with int8 our own activations are rounded to 127ths of a block's largest.
            let tolerance: Float = name == "int8" ? 0.05 : 1e-4
            var sides = [
                Side(name: "blyan", weights: name, tolerance: 0) { weights.multiply($0, $1) }
            ]
            for library in libraries {
                sides.append(
                    Side(name: library.name, weights: name, tolerance: tolerance) { prompt, pool in
                        weights.convertAndMultiply(prompt, library, pool)
                    })
                guard name == "int8", let bytes = unsafe library.multiplyBytes else { continue }
                sides.append(
                    Side(name: "\(library.name)_s8", weights: name, tolerance: tolerance) {
                        prompt, pool in
                        unsafe weights.multiplyBytes(prompt, pool, bytes)
                    } finish: {
                        weights.scaleSums($0)
                    })
            }
            return sides
        }
    }

    /// Computes every side once; those that agree with our own, so that no two things are compared.
    private func check(
        _ sides: [Side], _ prompt: GemmPrompt, _ pool: WorkerPool, _ body: (Side) -> Void
    ) -> [Side] {
        var ours: [Float] = []
        return sides.filter { side in
            // One that writes nothing must not pass with the result of the side before.
            prompt.forget()
            side.multiply(prompt, pool)
            side.finish(prompt)
            let result = prompt.result
            if side.name == "blyan" { ours = result }
            let square = ours.reduce(0) { $0 + Double($1 * $1) } / Double(ours.count)
            let limit = side.tolerance * Float(square.squareRoot())
            guard zip(result, ours).allSatisfy({ abs($0 - $1) <= limit }) else {
                let text = "\(side.id), \(prompt.tokens) tokens: not our result, left out\n"
                FileHandle.standardError.write(Data(text.utf8))
                return false
            }
            body(side)
            return true
        }
    }

    // MARK: Time

    /// The median seconds of each side's product.
    private func measure(
        _ sides: [Side], _ prompt: GemmPrompt, _ pool: WorkerPool
    ) -> [String: Double] {
        var samples: [String: [Double]] = [:]
        for round in 0..<rounds {
            // Each round begins with another side, so that none always follows the same one.
            for i in sides.indices {
                let side = sides[(i + round) % sides.count]
                // Threads of the side before may spin for a while; they would take a core.
                usleep(50_000)
                let first = seconds { side.multiply(prompt, pool) }
                // A long product needs no second call to wake its threads and fill its caches.
                let calls = first > 0.1 ? 0 : max(1, Int(0.02 / first))
                let rest = seconds { for _ in 0..<calls { side.multiply(prompt, pool) } }
                samples[side.id, default: []].append(calls == 0 ? first : rest / Double(calls))
            }
        }
        return samples.mapValues(median)
    }

    /// Rates by dtype, with a library's rate for f32 beside the others.
    private func table(
        _ sides: [Side], _ rates: [String: Double]
    ) -> [(String, [String: Double])] {
        var table: [(String, [String: Double])] = []
        for side in sides {
            if table.last?.0 != side.weights { table.append((side.weights, [:])) }
            table[table.count - 1].1[side.name] = rates[side.id]
            table[table.count - 1].1["\(side.name)_kept_f32"] =
                side.weights == "f32" || side.name == "blyan" ? nil : rates["\(side.name) f32"]
        }
        return table
    }
}

/// What is printed.
private struct GemmReport: Encodable {
    struct Product: Encodable {
        let rows: Int
        let columns: Int
        let tokens: Int
        let threads: Int
        let weights: String
        let gflopPerS: [String: Double]
    }

    /// What our own kernels are compiled for.
    let kernels: String
    /// Releases by name.
    let libraries: [String: String]
    /// Whether a token's results had the same bits in every batch and with every number of threads: what our own promise.
    var rowsKeepTheirBits: [String: Bool] = [:]
    var products: [Product] = []

    func print() throws {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        Swift.print(String(decoding: try encoder.encode(self), as: UTF8.self))
    }
}
