internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import Foundation
internal import Synchronization

/// Signed headers of a linear chain, made before anything is timed.
struct HeaderMaker {
    let key: SigningKey
    private var previous: Digest?
    private var index: Int64 = 0

    init() throws { key = try SigningKey() }

    mutating func next() throws -> Block {
        var header = BlockHeader(
            chainID: "A", blockType: index == 0 ? "genesis" : "policy", index: index,
            previous: previous,
            timestamp: 1_700_000_000_000 + index)
        header.metadata = ["note": .string("block \(index) of a benchmark"), "value": .int(index)]
        let block = try Block(signing: header, with: key)
        previous = block.hash
        index += 1
        return block
    }

    mutating func next(_ count: Int) throws -> [Block] { try (0..<count).map { _ in try next() } }
}

struct ChainBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chain", abstract: "Verify whole chains, beside libsecp256k1's own rate.")

    @Option(help: "Blocks of the large chain.")
    var blocks = 100_000

    @Option(help: "Folder for the temporary home.")
    var folder: String?

    func run() throws {
        var figures: [String: Double] = [:]
        let cores = ProcessInfo.processInfo.activeProcessorCount
        for count in [1000, blocks] {
            let folder = try TemporaryFolder(in: folder)
            let store = try ChainStore(home: folder.url)
            var maker = try HeaderMaker()
            var sample: [Block] = []
            for start in stride(from: 0, to: count, by: 1000) {
                let part = try maker.next(min(1000, count - start))
                sample = part
                try store.append(part)
            }
            var times: [Double] = []
            var rates: [Double] = []
            var shares: [Double] = []
            for _ in 0..<(count > 10_000 ? 5 : 25) {
                // Before and after: the machine's speed drifts within seconds.
                let each = max(1000, count / cores / 4)
                let before = signatureRate(sample, each, threads: cores)
                var failures = 0
                let time = try seconds { failures = try store.verify().failures.count }
                let rate = (before + signatureRate(sample, each, threads: cores)) / 2
                times.append(time)
                rates.append(rate)
                shares.append(Double(count) / time / rate)
                guard failures == 0 else {
                    throw KernelError(.integrity, "the benchmark's own chain does not verify")
                }
            }
            figures["verify_\(count)_ms"] = median(times) * 1000
            figures["verify_\(count)_blocks_per_s"] = Double(count) / median(times)
            figures["verify_\(count)_share_of_secp256k1"] = median(shares)
            figures["secp256k1_verify_per_s"] = median(rates)
            store.close()
        }
        figures["cores"] = Double(cores)
        try report(figures)
    }

    /// Signatures a second that libsecp256k1 verifies on all cores.
    private func signatureRate(_ blocks: [Block], _ each: Int, threads: Int) -> Double {
        let taken = seconds {
            DispatchQueue.concurrentPerform(iterations: threads) { _ in
                // Different ones: of one signature the processor learns the branches.
                for i in 0..<each where !blocks[i % blocks.count].isSignatureValid {
                    preconditionFailure("a valid signature")
                }
            }
        }
        return Double(each * threads) / taken
    }
}

struct AppendBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "append",
        abstract: "Durable appends: one client, grouped, with payloads, and along a growing chain.")

    @Option(help: "Headers of the growing chain.")
    var headers = 1_000_000

    @Option(help: "Folder for the temporary home: on the disk that is to be measured.")
    var folder: String?

    func run() throws {
        var figures: [String: Double] = [:]
        try single(&figures)
        for clients in [1, 4] { try payloads(clients, &figures) }
        try growing(&figures)
        try report(figures)
    }

    private func single(_ figures: inout [String: Double]) throws {
        let folder = try TemporaryFolder(in: folder)
        let store = try ChainStore(home: folder.url)
        var maker = try HeaderMaker()
        let blocks = try maker.next(5000)
        figures["one_client_per_s"] =
            5000 / (try seconds { for block in blocks { try store.append([block]) } })
        let more = try maker.next(40_000)
        figures["grouped_by_100_per_s"] =
            40_000
            / (try seconds {
                for start in stride(from: 0, to: more.count, by: 100) {
                    try store.append(Array(more[start..<start + 100]))
                }
            })
        store.close()
    }

    /// Parts with a payload of 4 KiB each, every one durable before its client goes on.
    private func payloads(_ clients: Int, _ figures: inout [String: Double]) throws {
        let folder = try TemporaryFolder(in: folder)
        let store = try ChainStore(home: folder.url)
        let key = try SigningKey()
        let genesis = try Block(
            signing: BlockHeader(
                chainID: "A", blockType: "genesis", index: 0, previous: nil, timestamp: 1),
            with: key)
        let meta = try Block(
            signing: BlockHeader(
                chainID: "A", blockType: "meta", index: 1, previous: genesis.hash, timestamp: 1),
            with: key)
        try store.append([genesis, meta])
        let each = 2000 / clients
        let failure = Mutex<(any Error)?>(nil)
        let taken = seconds {
            // Threads of their own: they wait for the disk most of the time.
            let running = DispatchGroup()
            for client in 0..<clients {
                running.enter()
                Thread.detachNewThread {
                    defer { running.leave() }
                    do {
                        for number in client * each..<(client + 1) * each {
                            let writer = try store.payloads.makeWriter()
                            // Different bytes in each; what they are does not matter.
                            try writer.write(
                                (0..<4096).map {
                                    UInt8(truncatingIfNeeded: $0 &* 31 &+ number &* ($0 / 256 + 7))
                                })
                            var header = BlockHeader(
                                chainID: "B", blockType: "parameters", index: 0,
                                previous: genesis.hash, timestamp: 1)
                            header.dependsOn = [meta.hash]
                            header.expertName = "part\(number)"
                            try writer.finish().describe(in: &header, type: "raw")
                            try store.append([Block(signing: header, with: key)])
                        }
                    } catch {
                        failure.withLock { $0 = error }
                    }
                }
            }
            running.wait()
        }
        if let error = failure.withLock({ $0 }) { throw error }
        figures["with_4KiB_payload_\(clients)_clients_per_s"] = Double(each * clients) / taken
        store.close()
    }

    /// Microseconds a header, in groups of 1,000, at the beginning and at the end of the chain.
    private func growing(_ figures: inout [String: Double]) throws {
        let folder = try TemporaryFolder(in: folder)
        let store = try ChainStore(home: folder.url)
        var maker = try HeaderMaker()
        var first: [Double] = []
        var last: [Double] = []
        let groups = headers / 1000
        let window = max(1, min(50, groups / 4))
        for group in 0..<groups {
            let blocks = try maker.next(1000)
            let taken = try seconds { try store.append(blocks) }
            if group < window { first.append(taken) }
            if group >= groups - window { last.append(taken) }
        }
        figures["append_us_at_start"] = median(first) * 1000
        figures["append_us_at_\(headers)"] = median(last) * 1000
        figures["append_growth"] = median(last) / median(first)
        store.close()
    }
}
