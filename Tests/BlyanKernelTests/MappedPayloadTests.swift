import BlyanJSON
import BlyanKernel
import Foundation
import Synchronization
import Testing

/// Payloads that rot, shrink and are remembered.
@Suite struct MappedPayloadTests {
    /// A store with one expert whose payload has `leaves` leaves, with or without their hashes at its end.
    struct Fixture {
        let home: TemporaryHome
        let store: ChainStore
        let block: Block
        let bytes: [UInt8]
        var path: String { store.payloads.path(of: block.header.payloadHash ?? .zero) }

        init(leaves: Int, storesHashes: Bool, memory: (any CheckMemory)? = nil) throws {
            home = try TemporaryHome()
            store = try ChainStore(home: home.url, remembered: memory)
            let maker = try ChainMaker(store)
            let genesis = try maker.document("genesis", "{}")
            let meta = try maker.document("meta", "{}", after: genesis)
            try store.append([genesis, meta])
            var random = SeededRandom(state: 1)
            var bytes = (0..<leaves * 65_536 - 17).map { _ in
                UInt8(truncatingIfNeeded: random.next())
            }
            let writer = try store.payloads.makeWriter()
            try writer.write(bytes)
            var hashesAt: UInt64?
            if storesHashes {
                hashesAt = UInt64(bytes.count)
                let hashes = writer.closeLeaves().stored.flatMap(\.bytes)
                try writer.write(hashes)
                bytes += hashes
            }
            var header = BlockHeader(
                chainID: "B", blockType: "parameters", index: 0, previous: genesis.hash,
                timestamp: 2)
            header.dependsOn = [meta.hash]
            header.expertName = "layer0.expert0"
            try writer.finish(leafHashesAt: hashesAt).describe(in: &header, type: "raw")
            block = try Block(signing: header, with: maker.key)
            try store.append([block])
            self.bytes = bytes
        }

        /// Whether memory has the bytes that were written at `start`.
        func holds(_ memory: UnsafeRawPointer, _ start: Int, _ length: Int) -> Bool {
            bytes[start..<start + length].withUnsafeBytes { expected in
                expected.baseAddress.map { memcmp(memory, $0, length) == 0 } ?? true
            }
        }

        func overwrite(_ at: Int, _ byte: UInt8) {
            chmod(path, 0o600)
            let file = open(path, O_WRONLY)
            _ = pwrite(file, [byte], 1, off_t(at))
            close(file)
        }
    }

    /// Any flipped bit: no read that touches it returns, every other leaf is still served, the check names it.
    @Test(arguments: VerifyMode.allCases, [true, false])
    func wrongBytesAreNeverReturned(mode: VerifyMode, storesHashes: Bool) throws {
        let fixture = try Fixture(leaves: 5, storesHashes: storesHashes)
        var random = SeededRandom(state: 5)
        for _ in 0..<40 {
            let at = Int.random(in: 0..<fixture.bytes.count, using: &random)
            fixture.overwrite(at, fixture.bytes[at] ^ 1 << UInt8.random(in: 0..<8, using: &random))
            let payload = try fixture.store.map(fixture.block, mode: mode)
            var refused = 0
            for start in stride(from: 0, to: fixture.bytes.count, by: 40_000) {
                let length = min(40_000, fixture.bytes.count - start)
                do {
                    let found = try payload.read(offset: UInt64(start), length: UInt64(length))
                    #expect(fixture.holds(found, start, length))
                } catch {
                    refused += 1
                    #expect(error.code == .integrity)
                    #expect(error.message.contains("layer0.expert0"))
                    #expect(error.hint != nil)
                }
            }
            #expect(refused > 0, "nobody saw byte \(at)")
            if storesHashes, at < 5 * 65_536 - 17 {
                #expect(refused <= 3)
                let error = #expect(throws: KernelError.self) {
                    try payload.read(offset: UInt64(at), length: 1)
                }
                #expect(error?.message.contains("tile \(at / 65_536) ") == true)
            }
            let failures = try fixture.store.check(readData: true).failures
            #expect(failures.count == 1)
            fixture.overwrite(at, fixture.bytes[at])
        }
        #expect(try fixture.store.check(readData: true).failures.isEmpty)
    }

    /// Three branches, the last of one leaf: a flipped bit of a leaf, of its hash or of its branch's hash spoils what it
    /// must and leaves the rest readable; the index ends where the signed metadata say.
    @Test func branchesAreCheckedOneByOne() throws {
        let fixture = try Fixture(leaves: 257, storesHashes: true)
        let covered = 257 * 65_536 - 17
        #expect(fixture.bytes.count == covered + 32 * (257 + 3))
        let (leafHashes, branchHashes) = (covered, covered + 32 * 257)
        // Where a bit flips, and which of the leaves 0, 127, 128, 255, 256 can then not be read.
        let leaves = [0, 127, 128, 255, 256]
        let cases: [(at: Int, refused: [Int])] = [
            (128 * 65_536, [128]), (leafHashes + 32 * 130, [128, 255]),
            (leafHashes + 32 * 256 + 31, [256]), (branchHashes + 64, leaves),
            (branchHashes, leaves),
        ]
        for (at, refused) in cases {
            fixture.overwrite(at, fixture.bytes[at] ^ 4)
            let payload = try fixture.store.map(fixture.block, mode: .touch)
            for leaf in leaves {
                let found = try? payload.read(offset: UInt64(leaf) * 65_536, length: 9)
                #expect((found == nil) == refused.contains(leaf), "byte \(at), leaf \(leaf)")
                if let found { #expect(fixture.holds(found, leaf * 65_536, 9)) }
            }
            // The hashes themselves are refused too.
            if at >= covered {
                #expect(throws: KernelError.self) {
                    try payload.read(offset: UInt64(at), length: 1)
                }
            }
            #expect(try fixture.store.check(readData: true).failures.count == 1)
            fixture.overwrite(at, fixture.bytes[at])
        }
        let whole = try fixture.store.map(fixture.block, mode: .touch)
        let found = try whole.read(offset: 0, length: whole.size)
        #expect(fixture.holds(found, 0, fixture.bytes.count))
        #expect(
            LeafLayout(
                covered: UInt64(covered), leafSize: 65_536, hashesAt: UInt64(covered),
                payloadSize: UInt64(branchHashes + 64)) == nil)
    }

    /// A file is cut under its readers, over and over: they get an error or right bytes, and the process lives.
    @Test func aFileThatIsCutUnderItsReadersIsAnError() throws {
        let fixture = try Fixture(leaves: 4, storesHashes: true)
        let whole = try Data(contentsOf: URL(fileURLWithPath: fixture.path))
        chmod(fixture.path, 0o600)
        var random = SeededRandom(state: 6)
        var faults = 0
        for round in 0..<200 {
            let payload = try fixture.store.map(
                fixture.block, mode: round % 2 == 0 ? .always : .touch)
            let before = MappedPayload.faultCount
            // Whole pages: within a page the system shows zeros without a fault, as if somebody had written them, which
            // only hashing finds.
            let length = 4096 * UInt64.random(in: 0..<48, using: &random)
            let cut = DispatchWorkItem { truncate(fixture.path, off_t(length)) }
            DispatchQueue.global().async(execute: cut)
            let refused = Atomic<Int>(0)
            DispatchQueue.concurrentPerform(iterations: 4) { thread in
                for leaf in 0..<4 {
                    let start = leaf * 65_536
                    do {
                        let found = try payload.read(offset: UInt64(start), length: 60_000)
                        let equal = fixture.holds(found, start, 60_000)
                        // As a forward step does: a result counts if no fault came while it was made.
                        #expect(equal || MappedPayload.faultCount != before)
                    } catch {
                        refused.add(1, ordering: .relaxed)
                        let code = (error as? KernelError)?.code
                        #expect(code == .io || code == .integrity)
                    }
                }
            }
            cut.wait()
            if payload.faultOffset != nil {
                faults += 1
                let error = #expect(throws: KernelError.self) {
                    try payload.read(offset: 0, length: 1)
                }
                #expect(error?.message.contains("layer0.expert0") == true)
            }
            try whole.write(to: URL(fileURLWithPath: fixture.path))
        }
        #expect(faults > 0, "no reader met the cut")
    }

    /// Whoever reads a zero that the guard put there finds the fault counted, on another thread too.
    @Test func aFaultIsCountedBeforeItsZerosAreSeen() throws {
        let fixture = try Fixture(leaves: 1, storesHashes: false)
        let whole = try Data(contentsOf: URL(fileURLWithPath: fixture.path))
        chmod(fixture.path, 0o600)
        let unseen = Atomic<Int>(0)
        for round in 0..<3000 {
            try whole.write(to: URL(fileURLWithPath: fixture.path))
            let payload = try fixture.store.map(fixture.block, mode: .touch)
            nonisolated(unsafe) let start = try payload.read(offset: 0, length: payload.size)
            let before = MappedPayload.faultCount
            truncate(fixture.path, 0)
            let ready = Atomic<Int>(0)
            DispatchQueue.concurrentPerform(iterations: 2) { thread in
                ready.add(1, ordering: .sequentiallyConsistent)
                for _ in 0..<100_000 where ready.load(ordering: .sequentiallyConsistent) < 2 {}
                // One faults, the other comes a little later: each round at another moment.
                for _ in 0..<thread * (round % 600) { _ = ready.load(ordering: .relaxed) }
                let bytes = start.load(fromByteOffset: 0, as: UInt64.self)
                if bytes == 0, MappedPayload.faultCount == before {
                    unseen.add(1, ordering: .relaxed)
                }
            }
            #expect(payload.faultOffset == 0)
        }
        #expect(unseen.load(ordering: .relaxed) == 0)
    }

    /// An empty payload has no place in the table of mappings, and so does not free another's.
    @Test func anEmptyPayloadLeavesTheFaultTableAlone() throws {
        let fixture = try Fixture(leaves: 1, storesHashes: false)
        let maker = try ChainMaker(fixture.store)
        let block = try maker.document("policy", "")
        try fixture.store.append([block])
        var empty: MappedPayload? = try fixture.store.map(block, mode: .touch)
        #expect(empty?.faultOffset == nil)
        let payload = try fixture.store.map(fixture.block, mode: .always)
        withExtendedLifetime(empty) {}
        empty = nil
        chmod(fixture.path, 0o600)
        truncate(fixture.path, 0)
        let error = #expect(throws: KernelError.self) {
            try payload.read(offset: 0, length: payload.size)
        }
        #expect(error?.code == .io)
    }

    /// Leaves cover a payload but for their hashes and a stated few bytes, which the check compares.
    @Test func fewBytesStayUncovered() throws {
        let fixture = try Fixture(leaves: 1, storesHashes: false)
        func write(_ tail: Int, hashes: Bool) throws -> StoredPayload {
            let writer = try fixture.store.payloads.makeWriter()
            try writer.write([UInt8](repeating: 1, count: 100_000))
            let leaves = writer.closeLeaves().stored.flatMap(\.bytes)
            try writer.write([UInt8](repeating: 2, count: tail))
            if hashes { try writer.write(leaves) }
            return try writer.finish(
                leafHashesAt: hashes ? writer.size - UInt64(leaves.count) : nil)
        }
        for hashes in [true, false] {
            let stored = try write(4096, hashes: hashes)
            let error = #expect(throws: KernelError.self) { try write(4097, hashes: hashes) }
            #expect(error?.code == .malformed)
            var header = fixture.block.header
            header.metadata = [:]
            stored.describe(in: &header, type: "raw")
            let block = try Block(signing: header, with: ChainMaker(fixture.store).key)
            try fixture.store.append([block])
            let path = fixture.store.payloads.path(of: stored.hash)
            chmod(path, 0o600)
            let file = open(path, O_WRONLY)
            _ = pwrite(file, [3], 1, 100_000)
            close(file)
            let failures = try fixture.store.check(readData: true).failures
            #expect(failures.contains { $0.contains("\(block.hash)") && $0.contains("the hash") })
        }
    }

    /// Keeps identities in memory.
    final class Memory: CheckMemory {
        let files = Mutex<Set<FileIdentity>>([])
        func contains(_ file: FileIdentity) -> Bool { files.withLock { $0.contains(file) } }
        func add(_ file: FileIdentity) { files.withLock { _ = $0.insert(file) } }
    }

    @Test(arguments: [true, false]) func aRememberedFileIsNotHashedUntilItChanges(
        storesHashes: Bool
    )
        throws
    {
        let memory = Memory()
        let fixture = try Fixture(leaves: 3, storesHashes: storesHashes, memory: memory)
        let size = UInt64(fixture.bytes.count)
        let first = try fixture.store.map(fixture.block, mode: .remember)
        if storesHashes {
            _ = try first.read(offset: 0, length: 70_000)
            #expect(memory.files.withLock { $0.isEmpty }, "a part of a file is no whole file")
        }
        _ = try first.read(offset: 0, length: size)
        #expect(memory.files.withLock { $0.count } == 1)
        // The memory vouches for the file: what no read checks is not noticed (through the mapping, times stay).
        _ = try fixture.store.map(fixture.block, mode: .remember).read(offset: 0, length: size)
        // A write changes the file's identity, so that its bytes are hashed again.
        fixture.overwrite(100, fixture.bytes[100] ^ 1)
        let changed = try fixture.store.map(fixture.block, mode: .remember)
        #expect(throws: KernelError.self) { try changed.read(offset: 0, length: 200) }
    }
}
