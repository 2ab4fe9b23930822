import BlyanKernel
import Foundation
import Testing

/// Random operations on a store and on plain arrays, side by side.
@Suite struct StoreModelTests {
    /// What the store should hold, in order of arrival.
    struct Model {
        var blocks: [Block] = []
        var chainA: [Block] { blocks.filter { $0.header.chainID == "A" } }
        var metas: [Block] { blocks.filter { $0.header.blockType == "meta" } }

        func answers(_ query: ChainStore.Query) -> [Block] {
            switch query {
            case .arrival: return blocks
            case .chain(let id, let from):
                return
                    blocks.filter { $0.header.chainID == id && $0.header.index >= from }
                    .sorted {
                        ($0.header.index, $0.hash) < ($1.header.index, $1.hash)
                    }
            case .expert(let name): return blocks.filter { $0.header.expertName == name }
            case .dependents(let hash):
                return blocks.filter { $0.header.dependsOn.contains(hash) }
            case .type(let chain, let type):
                return blocks.filter {
                    $0.header.chainID == chain && $0.header.blockType == type
                }
            case .payloadType(let type): return blocks.filter { $0.header.payloadType == type }
            }
        }
    }

    // Names one of which begins another, with the byte that would end a key among them.
    static let names = ["a", "a\u{0}", "a\u{0}\u{0}b", "layer0.expert1", "layer0.expert10"]

    @Test(arguments: 1...4) func answersAsPlainArraysDo(seed: UInt64) throws {
        var random = SeededRandom(state: seed)
        let home = try TemporaryHome()
        var store = try ChainStore(home: home.url)
        var model = Model()
        for _ in 0..<120 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0:
                store.close()
                store = try ChainStore(home: home.url, rebuild: Bool.random(using: &random))
            case 1...5:
                let batch = try makeBatch(store, model, &random)
                try store.append(batch)
                model.blocks += batch
            case 6:
                // What stands already is left out; what does not fit leaves nothing.
                try store.append(Array(model.blocks.shuffled(using: &random).prefix(3)))
                if var header = model.chainA.last?.header {
                    header.index += 2
                    let key = try SigningKey([UInt8](repeating: 9, count: 32))
                    let stray = try Block(signing: header, with: key)
                    let good = try makeBatch(store, model, &random)
                    #expect(throws: KernelError.self) { try store.append(good + [stray]) }
                }
            default:
                let name = Self.names.randomElement(using: &random) ?? ""
                let hash = model.blocks.randomElement(using: &random)?.hash ?? .zero
                let queries: [ChainStore.Query] = [
                    .arrival, .chain("A", from: Int64.random(in: 0...40, using: &random)),
                    .chain("B", from: Int64.random(in: 0...5, using: &random)), .expert(name),
                    .dependents(hash), .type(chain: "A", "meta"), .payloadType("raw"),
                ]
                for query in queries {
                    let expected = model.answers(query)
                    #expect(try store.blocks(query) == expected)
                    #expect(
                        try store.blocks(query, limit: 3, reverse: true)
                            == Array(expected.reversed().prefix(3)))
                }
                #expect(try store.block(hash) == model.blocks.first { $0.hash == hash })
            }
        }
        #expect(try store.verify().failures.isEmpty)
        #expect(try store.verify().blocks == model.blocks.count)
        let check = try store.check(readData: true)
        #expect(check.failures.isEmpty)
        #expect(
            check.payloads
                == Set(model.blocks.compactMap(\.header.payloadHash)).count)
    }

    private func makeBatch(
        _ store: ChainStore, _ model: Model, _ random: inout SeededRandom
    ) throws -> [Block] {
        let maker = try ChainMaker(store)
        guard let genesis = store.genesis else { return [try maker.document("genesis", "{}")] }
        guard let meta = model.metas.randomElement(using: &random), Bool.random(using: &random)
        else { return [try maker.document("meta", "\(model.blocks.count)")] }
        return try (0..<Int.random(in: 1...4, using: &random)).map { i in
            let byte = UInt8.random(in: 0..<3, using: &random)
            let writer = try store.payloads.makeWriter()
            try writer.write([UInt8](repeating: byte, count: 70_000))
            var header = BlockHeader(
                chainID: "B", blockType: "parameters", index: 0, previous: genesis,
                timestamp: Int64(model.blocks.count + i))
            header.dependsOn = [meta.hash]
            // One block may build on another of its batch or before.
            if let old = model.blocks.filter({ $0.header.chainID == "B" })
                .randomElement(using: &random), old.header.dependsOn.first == meta.hash
            {
                header.dependsOn.append(old.hash)
                header.index = old.header.index + 1
            }
            header.expertName = Self.names.randomElement(using: &random) ?? ""
            try writer.finish().describe(in: &header, type: "raw")
            return try Block(signing: header, with: maker.key)
        }
    }

    /// Callers on several threads share syncs; each block is there once when its caller returns.
    @Test func manyClientsAppendAtOnce() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        let meta = try maker.document("meta", "{}", after: genesis)
        try store.append([genesis, meta])
        let blocks = try (0..<64).map {
            try maker.parameters(
                "layer0.expert\($0)", [UInt8($0)], model: meta.hash, genesis: genesis.hash)
        }
        DispatchQueue.concurrentPerform(iterations: 8) { client in
            for i in 0..<8 {
                let block = blocks[client * 8 + i]
                do {
                    // Twice the same, from two clients: stored once.
                    try store.append([block, blocks[(client * 8 + i + 8) % 64]])
                    #expect(try store.block(block.hash) == block)
                } catch {
                    Issue.record(error)
                }
            }
        }
        let found = try store.blocks(.arrival).map(\.hash)
        #expect(found.count == 66)
        #expect(Set(found) == Set(([genesis, meta] + blocks).map(\.hash)))
        #expect(try store.verify().failures.isEmpty)
    }
}
