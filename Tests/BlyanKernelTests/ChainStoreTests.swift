import BlyanJSON
import BlyanKernel
import Foundation
import Testing

/// A home in a temporary folder, removed at the end.
final class TemporaryHome: Sendable {
    let url: URL

    init() throws {
        // Memory where there is some: what is tested here is order and content, not the disk.
        let memory = "/dev/shm"
        let folder =
            access(memory, W_OK) == 0
            ? URL(fileURLWithPath: memory) : FileManager.default.temporaryDirectory
        url = folder.appendingPathComponent("blyan-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }
}

/// Makes chains for tests: a genesis block, a model, parameters.
struct ChainMaker {
    let key: SigningKey
    let store: ChainStore

    init(_ store: ChainStore) throws {
        key = try SigningKey([UInt8](repeating: 7, count: 32))
        self.store = store
    }

    func document(
        _ type: String, _ text: String, dependsOn: [Digest] = [], after last: Block? = nil
    ) throws -> Block {
        let writer = try store.payloads.makeWriter()
        try writer.write(Array(text.utf8))
        let place = last.map { ($0.header.index + 1, $0.hash) } ?? store.next(on: "A")
        var header = BlockHeader(
            chainID: "A", blockType: type, index: place.0, previous: place.1,
            timestamp: 1)
        header.dependsOn = dependsOn
        try writer.finish().describe(in: &header, type: "json")
        return try Block(signing: header, with: key)
    }

    func parameters(_ name: String, _ bytes: [UInt8], model: Digest, genesis: Digest) throws
        -> Block
    {
        let writer = try store.payloads.makeWriter()
        try writer.write(bytes)
        var header = BlockHeader(
            chainID: "B", blockType: "parameters", index: 0, previous: genesis, timestamp: 2)
        header.dependsOn = [model]
        header.expertName = name
        try writer.finish().describe(in: &header, type: "raw")
        return try Block(signing: header, with: key)
    }
}

@Suite struct ChainStoreTests {
    @Test func keepsWhatItAcknowledgedOverARestartAndALostIndex() throws {
        let home = try TemporaryHome()
        var expected: [Digest] = []
        do {
            let store = try ChainStore(home: home.url)
            let maker = try ChainMaker(store)
            let genesis = try maker.document("genesis", "{}")
            try store.append([genesis])
            let meta = try maker.document("meta", "{\"name\":\"m\"}")
            try store.append([meta])
            let experts = try (0..<5).map {
                try maker.parameters(
                    "layer0.expert\($0)", [UInt8](repeating: UInt8($0), count: 200_000),
                    model: meta.hash, genesis: genesis.hash)
            }
            try store.append(experts)
            expected = [genesis.hash, meta.hash] + experts.map(\.hash)
            store.close()
        }
        for rebuild in [false, true] {
            let store = try ChainStore(home: home.url, rebuild: rebuild)
            #expect(try store.blocks(.arrival).map(\.hash) == expected)
            #expect(try store.blocks(.expert("layer0.expert3")).map(\.hash) == [expected[5]])
            #expect(try store.blocks(.dependents(expected[1])).map(\.hash) == Array(expected[2...]))
            #expect(try store.blocks(.type(chain: "A", "meta")).map(\.hash) == [expected[1]])
            #expect(
                try store.blocks(.payloadType("raw"), limit: 2, reverse: true).map(\.hash) == [
                    expected[6], expected[5],
                ])
            #expect(store.next(on: "A").index == 2)
            let block = try #require(try store.block(expected[4]))
            let payload = try store.map(block, mode: .touch)
            let start = try payload.read(offset: 150_000, length: 10)
            #expect(start.load(as: UInt8.self) == 2)
            store.close()
        }
    }

    @Test func refusesABlockThatWasChangedAfterSigning() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        let line = String(decoding: genesis.line, as: UTF8.self)
        let forged = try Block(
            parsing: Array(line.replacing("\"timestamp\":1", with: "\"timestamp\":2").utf8))
        #expect(throws: KernelError.self) { try store.append([forged]) }
        try store.append([genesis])
        #expect(try store.blocks(.arrival).count == 1)
    }

    /// Refused before anything is admitted, so that the home takes the next one.
    @Test func aBatchBeyondOneRecordIsRefused() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        try store.append([genesis])
        var header = BlockHeader(
            chainID: "A", blockType: "policy", index: 0, previous: genesis.hash, timestamp: 1)
        header.metadata = ["note": .string(String(repeating: "x", count: 1_040_000))]
        var blocks: [Block] = []
        for i in 1...65 {
            header.index = Int64(i)
            blocks.append(try Block(signing: header, with: maker.key))
            header.previous = blocks.last?.hash
        }
        let error = #expect(throws: KernelError.self) { try store.append(blocks) }
        #expect(error?.code == .limit)
        #expect(error?.message.contains("65 blocks") == true)
        #expect(store.next(on: "A").index == 1)
        try store.append(Array(blocks[..<2]))
        // Hashes alone: a test that fails prints what it compares.
        let hashes = blocks[..<2].map(\.hash)
        #expect(try store.blocks(.arrival).map(\.hash) == [genesis.hash] + hashes)
    }

    /// Two blocks of one payload, one of which says what is not so about it.
    @Test(arguments: ["root", "covered", "size"]) func everyClaimAboutAPayloadIsChecked(
        lie: String
    ) throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{\"a\":1}")
        try store.append([genesis])
        let honest = try maker.document("meta", "{\"b\":1}")
        try store.append([honest])
        #expect(try store.check(readData: true).payloads == 2)
        var header = honest.header
        header.index += 1
        header.previous = honest.hash
        switch lie {
        case "root": header.merkleRoot = genesis.hash
        case "covered": header.metadata["covered"] = .int(header.payloadSize - 1)
        default:
            // The store looks at the size when it takes a block: only a file that changes later gets here.
            header.payloadSize += 1
            header.metadata["covered"] = .int(header.payloadSize)
        }
        let lying = try Block(signing: header, with: maker.key)
        let path = store.payloads.path(of: try #require(header.payloadHash))
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        chmod(path, 0o600)
        if lie == "size" { try (whole + [0]).write(to: URL(fileURLWithPath: path)) }
        try store.append([lying])
        try whole.write(to: URL(fileURLWithPath: path))
        let report = try store.check(readData: true)
        #expect(report.failures.count == 1)
        #expect(report.failures.first?.contains("\(lying.hash)") == true)
    }

    @Test func namesTheTileThatRotted() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        try store.append([genesis])
        let meta = try maker.document("meta", "{}")
        try store.append([meta])
        let expert = try maker.parameters(
            "layer0.expert0", [UInt8](repeating: 1, count: 300_000), model: meta.hash,
            genesis: genesis.hash)
        try store.append([expert])
        let path = store.payloads.path(of: try #require(expert.header.payloadHash))
        chmod(path, 0o600)
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.seek(toOffset: 200_000)
        try file.write(contentsOf: [2])
        try file.close()
        let payload = try store.map(expert, mode: .touch)
        let error = #expect(throws: KernelError.self) {
            try payload.read(offset: 0, length: 300_000)
        }
        #expect(error?.code == .integrity)
        #expect(error?.message.contains("layer0.expert0") == true)
    }

    @Test func survivesAFileThatIsCutWhileMapped() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", String(repeating: " ", count: 100_000) + "{}")
        try store.append([genesis])
        let payload = try store.map(genesis, mode: .always)
        _ = try payload.read(offset: 0, length: payload.size)
        let path = store.payloads.path(of: try #require(genesis.header.payloadHash))
        chmod(path, 0o600)
        truncate(path, 4096)
        let error = #expect(throws: KernelError.self) {
            try payload.read(offset: 0, length: payload.size)
        }
        #expect(error?.code == .io)
        #expect(payload.faultOffset == 4096)
    }
}
