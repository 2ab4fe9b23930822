import BlyanJSON
import BlyanKernel
import Foundation
import Testing

/// Blocks in memory, as rules see them.
private struct World: ChainView {
    let key: SigningKey
    let stranger: SigningKey
    var blocks: [Digest: Block] = [:]
    var heads: [String: Block] = [:]
    var documents: [Digest: JSONValue] = [:]
    var genesis: Digest?
    var pact: GenesisPact?

    func head(of chain: String) throws(KernelError) -> Block? { heads[chain] }
    func block(_ hash: Digest) throws(KernelError) -> Block? { blocks[hash] }
    func document(_ block: Block) throws(KernelError) -> JSONValue {
        documents[block.header.payloadHash ?? .zero] ?? .null
    }

    init() throws {
        key = try SigningKey([UInt8](repeating: 3, count: 32))
        stranger = try SigningKey([UInt8](repeating: 4, count: 32))
        pact = GenesisPact(name: "test", rules: [], validators: [key.publicKey])
    }

    mutating func describe(_ document: JSONValue, in header: inout BlockHeader) {
        let bytes = document.canonical()
        let hash = SHA256.hash(bytes)
        documents[hash] = document
        header.payloadHash = hash
        header.payloadSize = Int64(bytes.count)
        header.payloadType = "json"
        header.merkleRoot = bytes.withUnsafeBytes { Merkle.root([Merkle.leaf($0)]) }
        header.metadata = ["covered": .int(Int64(bytes.count)), "leaf_size": .int(65_536)]
    }

    func linear(_ type: String, on chain: String = "A") -> BlockHeader {
        let head = heads[chain]
        return BlockHeader(
            chainID: chain, blockType: type, index: head.map { $0.header.index + 1 } ?? 0,
            previous: head?.hash ?? (chain == "A" ? nil : genesis), timestamp: 1)
    }

    func part(_ name: String, of model: Digest, replacing old: Block? = nil) -> BlockHeader {
        var header = BlockHeader(
            chainID: "B", blockType: "parameters",
            index: old.map { $0.header.index + 1 } ?? 0, previous: old?.hash ?? genesis,
            timestamp: 1)
        header.dependsOn = [model] + (old.map { [$0.hash] } ?? [])
        header.expertName = name
        return header
    }

    func check(_ header: BlockHeader, _ spec: ChainSpec, by other: SigningKey? = nil) throws
        -> Block
    {
        let block = try Block(signing: header, with: other ?? key)
        try spec.check(block, in: self)
        return block
    }

    mutating func add(_ header: BlockHeader, _ spec: ChainSpec) throws -> Block {
        let block = try check(header, spec)
        blocks[block.hash] = block
        if genesis == nil { genesis = block.hash }
        if spec.shape == .linear { heads[spec.id] = block }
        return block
    }
}

/// A network with two models of one part each, and the headers that could come next.
private struct Network {
    var world: World
    let meta: Block, otherMeta: Block, part: Block, otherPart: Block

    init() throws {
        var world = try World()
        _ = try world.add(world.linear("genesis"), .a)
        meta = try world.add(world.linear("meta"), .a)
        otherMeta = try world.add(world.linear("meta"), .a)
        var header = world.part("norm", of: meta.hash)
        world.describe(.string("weights"), in: &header)
        part = try world.add(header, .b)
        header = world.part("norm", of: otherMeta.hash)
        world.describe(.string("others"), in: &header)
        otherPart = try world.add(header, .b)
        self.world = world
    }

    func newPart(replacing old: Block? = nil) -> BlockHeader {
        var header = world.part("norm", of: meta.hash, replacing: old)
        let model = part.header
        header.payloadHash = model.payloadHash
        header.payloadSize = model.payloadSize
        header.payloadType = model.payloadType
        header.merkleRoot = model.merkleRoot
        header.metadata = model.metadata
        return header
    }

    mutating func version(_ change: (inout [String: JSONValue]) -> Void = { _ in }) -> BlockHeader {
        var members: [String: JSONValue] = [
            "format": .string("blyan-version/1"), "model": .string("\(meta.hash)"),
            "parts": .object(["norm": .string("\(part.hash)")]), "parent": .string(""),
            "verdict": .string(""),
        ]
        change(&members)
        var header = world.linear("version")
        world.describe(.object(members), in: &header)
        header.dependsOn = [meta.hash]
        return header
    }
}

@Suite struct ChainRulesTests {
    private func refused(
        _ code: KernelError.Code, _ text: String, _ body: () throws -> Block,
        at location: SourceLocation = #_sourceLocation
    ) {
        let error = #expect(throws: KernelError.self, sourceLocation: location) { _ = try body() }
        #expect(error?.code == code, sourceLocation: location)
        #expect(
            error?.message.contains(text) == true, "\(error?.message ?? "")",
            sourceLocation: location)
    }

    @Test func linearBlocksFollowTheHead() throws {
        let network = try Network()
        let world = network.world
        let good = world.linear("policy")
        #expect(try world.check(good, .a).header.index == 3)
        let wrong: [(String, (inout BlockHeader) -> Void)] = [
            ("index", { $0.index += 1 }), ("index", { $0.index = 0 }),
            ("follows", { $0.previous = network.meta.hash }), ("follows", { $0.previous = nil }),
            ("chain", { $0.chainID = "B" }), ("type", { $0.blockType = "parameters" }),
            ("second genesis", { $0.blockType = "genesis" }),
            ("not here", { $0.dependsOn = [SHA256.hash([9])] }),
            ("without naming its hash", { $0.payloadSize = 5 }),
            ("merkle_root", { $0.payloadHash = .zero }),
        ]
        for (text, change) in wrong {
            var header = good
            change(&header)
            refused(.rule, text) { try world.check(header, .a) }
        }
    }

    @Test func onlyValidatorsWriteOnA() throws {
        let network = try Network()
        let world = network.world
        refused(.rule, "validator") {
            try world.check(world.linear("policy"), .a, by: world.stranger)
        }
        // Parameters may come from anyone.
        #expect(throws: Never.self) {
            try world.check(network.newPart(), .b, by: world.stranger)
        }
    }

    @Test func theFirstBlockIsAGenesisBlock() throws {
        let world = try World()
        refused(.rule, "before the genesis") { try world.check(world.linear("meta"), .a) }
        #expect(throws: Never.self) { try world.check(world.linear("genesis"), .a) }
    }

    @Test func aForgedSignatureOrStampIsNamed() throws {
        let world = try Network().world
        let block = try world.check(world.linear("policy"), .a)
        let forged = String(decoding: block.line, as: UTF8.self)
            .replacing("\"timestamp\":1", with: "\"timestamp\":2")
        refused(.integrity, "not signed") {
            let block = try Block(parsing: Array(forged.utf8))
            try ChainSpec.a.check(block, in: world)
            return block
        }
        var header = world.linear("policy")
        header.difficulty = 60
        refused(.integrity, "stamp") { try world.check(header, .a) }
    }

    @Test func theIndexOnBFollowsFromDependenciesAlone() throws {
        let network = try Network()
        let world = network.world
        #expect(try world.check(network.newPart(), .b).header.index == 0)
        let next = network.newPart(replacing: network.part)
        #expect(try world.check(next, .b).header.index == 1)
        let wrong: [(String, (inout BlockHeader) -> Void)] = [
            ("index", { $0.index = 2 }), ("index", { $0.dependsOn.removeLast() }),
            ("names no previous", { $0.previous = nil }),
            ("no version of", { $0.previous = network.meta.hash }),
            ("no version of", { $0.expertName = "head" }),
            ("of this model", { $0.previous = network.otherPart.hash }),
            ("of this model", { $0.dependsOn.removeFirst() }),
            ("of this model", { $0.dependsOn.append(network.otherMeta.hash) }),
            (
                "0 meta blocks",
                { header in
                    header.dependsOn.removeFirst()
                    header.previous = world.genesis
                }
            ),
            (
                "2 meta blocks",
                { header in
                    header.dependsOn.append(network.otherMeta.hash)
                    header.previous = world.genesis
                }
            ),
            (
                "expert_name",
                { header in
                    header.expertName = ""
                    header.previous = world.genesis
                }
            ),
            ("covered", { $0.metadata["covered"] = .int(1 << 40) }),
            ("covered", { $0.metadata["leaf_size"] = nil }),
            ("covered", { $0.metadata["covered"] = .int(0) }),
            ("covered", { $0.payloadSize += 4097 }),
            ("leaf_hashes_at", { $0.metadata["leaf_hashes_at"] = .int(-1) }),
            ("leaf_hashes_at", { $0.metadata["leaf_hashes_at"] = .string("9") }),
            ("leaf_hashes_at", { $0.metadata["leaf_hashes_at"] = .null }),
        ]
        for (text, change) in wrong {
            var header = next
            change(&header)
            refused(.rule, text) { try world.check(header, .b) }
        }
    }

    @Test func aVersionNamesPartsOfItsModel() throws {
        var network = try Network()
        let (meta, part) = (network.meta.hash, network.part.hash)
        let (otherMeta, otherPart) = (network.otherMeta.hash, network.otherPart.hash)
        let good = network.version()
        let first = try network.world.add(good, .a)
        let second = network.version { $0["parent"] = .string("\(first.hash)") }
        #expect(throws: Never.self) { try network.world.check(second, .a) }
        let wrong: [(String, (inout [String: JSONValue]) -> Void)] = [
            ("blyan-version/1", { $0["format"] = .string("blyan-version/2") }),
            ("blyan-version/1", { $0["model"] = .string("") }),
            ("blyan-version/1", { $0["model"] = .string("\(otherMeta)") }),
            ("blyan-version/1", { $0["parts"] = .object([:]) }),
            ("for norm", { $0["parts"] = .object(["norm": .string("\(otherPart)")]) }),
            ("for norm", { $0["parts"] = .object(["norm": .string("\(meta)")]) }),
            ("for norm", { $0["parts"] = .object(["norm": .int(1)]) }),
            ("for head", { $0["parts"] = .object(["head": .string("\(part)")]) }),
            ("parent", { $0["parent"] = .string("\(meta)") }),
            ("parent", { $0["parent"] = nil }),
            ("verdict", { $0["verdict"] = .string("\(first.hash)") }),
        ]
        for (text, change) in wrong {
            let header = network.version(change)
            refused(.rule, text) { try network.world.check(header, .a) }
        }
    }

    private let countsDown: ChainSpec.Rule = { (block, view) throws(KernelError) in
        let before = try view.head(of: "C")?.header.metadata["left"]?.int ?? 3
        guard block.header.metadata["left"]?.int == before - 1 else {
            throw KernelError(.rule, "block \(block.hash) does not count down")
        }
    }

    /// Adding a chain is adding a spec: a ledger that counts down.
    @Test func aThirdChainIsOneMoreSpec() throws {
        let spec = ChainSpec(
            id: "C", shape: .linear, blockTypes: ["transfer"],
            rules: [countsDown])
        let empty = try World()
        var early = empty.linear("transfer", on: "C")
        early.metadata = ["left": .int(2)]
        refused(.rule, "a genesis block") { try empty.check(early, spec) }

        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url, specs: [.a, .b, spec])
        defer { store.close() }
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        try store.append([genesis])
        func transfer(_ left: Int64) throws -> Block {
            let place = store.next(on: "C")
            var header = BlockHeader(
                chainID: "C", blockType: "transfer", index: place.index, previous: place.previous,
                timestamp: 1)
            header.metadata = ["left": .int(left)]
            return try Block(signing: header, with: maker.key)
        }
        let first = try transfer(2)
        #expect(first.header.previous == genesis.hash)
        try store.append([first])
        let repeated = try transfer(2)
        refused(.rule, "count down") {
            try store.append([repeated])
            return repeated
        }
        try store.append([try transfer(1)])
        #expect(try store.blocks(.chain("C", from: 0)).map(\.header.index) == [0, 1])
        #expect(try store.verify().failures.isEmpty)
    }

    @Test func aStrangersBlockIsRefusedByTheStore() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        defer { store.close() }
        let maker = try ChainMaker(store)
        let pact = GenesisPact(name: "n", rules: ["r"], validators: [maker.key.publicKey])
        let text = String(decoding: pact.document.canonical(), as: UTF8.self)
        try store.append([try maker.document("genesis", text)])
        var header = try maker.document("policy", "{}").header
        let stranger = try SigningKey([UInt8](repeating: 4, count: 32))
        refused(.rule, "validator") {
            let block = try Block(signing: header, with: stranger)
            try store.append([block])
            return block
        }
        header.metadata["note"] = .string("by a validator")
        try store.append([try Block(signing: header, with: maker.key)])
        #expect(try store.verify().failures.isEmpty)
    }
}

@Suite struct StampTests {
    @Test func isFoundCheckedAndStopped() throws {
        let key = try SigningKey([UInt8](repeating: 3, count: 32))
        var header = BlockHeader(
            chainID: "B", blockType: "parameters", index: 0, previous: nil, timestamp: 1)
        header.miner = key.publicKey
        header.difficulty = 8
        let stamped = try Stamp.search(header)
        #expect(stamped.hash.bytes[0] == 0)
        #expect(try Block(signing: stamped, with: key).hash == stamped.hash)
        #expect(!Stamp.isValid(stamped.hash, difficulty: 64))
        #expect(!Stamp.isValid(.zero, difficulty: 65))
        #expect(!Stamp.isValid(.zero, difficulty: -1))
        header.difficulty = 64
        let stopped = #expect(throws: KernelError.self) {
            try Stamp.search(header, isCancelled: { true })
        }
        #expect(stopped?.code == .cancelled)
        header.difficulty = 65
        let beyond = #expect(throws: KernelError.self) { try Stamp.search(header) }
        #expect(beyond?.code == .limit)
    }
}
