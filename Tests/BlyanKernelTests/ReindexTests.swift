import BlyanKernel
import Foundation
import Synchronization
import Testing

/// Building the index again never makes a home worse, and a damaged log can always be reported on.
@Suite struct ReindexTests {
    /// A home of seven records that is closed, and its files.
    private struct Closed {
        let home = try? TemporaryHome()
        let blocks: [Block]
        let bytes: Data
        let payloads: Set<String>
        // Where each record begins.
        let starts: [Int]

        var url: URL { home?.url ?? URL(fileURLWithPath: "/nowhere") }
        var log: URL { url.appendingPathComponent("log/records.log") }
        var index: URL { url.appendingPathComponent("index") }

        init() throws {
            let url = try #require(home).url
            let log = url.appendingPathComponent("log/records.log")
            let store = try ChainStore(home: url)
            var blocks: [Block] = []
            var starts: [Int] = []
            let maker = try ChainMaker(store)
            for i in 0..<7 {
                starts.append(try Data(contentsOf: log).count)
                blocks.append(try maker.document(i == 0 ? "genesis" : "meta", "{\"number\":\(i)}"))
                try store.append(Array(blocks.suffix(1)))
            }
            store.close()
            self.blocks = blocks
            self.starts = starts
            bytes = try Data(contentsOf: log)
            payloads = try payloadFiles(url)
        }

        /// The log with one bit of a record's body flipped.
        func flip(record: Int) throws {
            var damaged = bytes
            damaged[starts[record] + 100] ^= 4
            try damaged.write(to: log)
        }

        func cuts() throws -> [String] {
            try FileManager.default.contentsOfDirectory(
                atPath: log.deletingLastPathComponent().path
            )
            .filter { $0.contains(".cut-") }
        }

        /// With the log as it was, everything is there.
        func checkThatNothingIsLost() throws {
            try bytes.write(to: log)
            let store = try ChainStore(home: url)
            defer { store.close() }
            #expect(try store.blocks(.arrival) == blocks)
            #expect(try store.verify().failures.isEmpty)
            #expect(try store.check(readData: true).failures.isEmpty)
            #expect(try payloadFiles(url) == payloads)
        }
    }

    /// The holder's log is cut under it, at a record's border and in the middle: verify ends and says so.
    @Test(arguments: [0, -1, 1]) func verifyEndsOnALogThatWasCut(offset: Int) throws {
        let home = try Closed()
        let store = try ChainStore(home: home.url)
        defer { store.close() }
        #expect(truncate(home.log.path, off_t(home.starts[4] + offset)) == 0)
        let report = try store.verify()
        #expect(!report.failures.isEmpty && report.failures.count < 7)
    }

    /// A log with whole records, whose blocks do not stand, is not served when the index is made from it.
    @Test(arguments: ["signature", "validator", "order"])
    func aForgedLogIsRefused(what: String) throws {
        let home = try Closed()
        var lines = home.blocks.map(\.line)
        switch what {
        case "signature":
            let other = try Block(
                signing: home.blocks[3].header, with: SigningKey([UInt8](repeating: 7, count: 32)))
            #expect(other.line == lines[3])
            let line = String(decoding: lines[3], as: UTF8.self)
            lines[3] = Array(
                line.replacing(
                    Hex.encode(other.signature), with: Hex.encode(home.blocks[2].signature)
                ).utf8)
        case "validator":
            lines[6] = try Block(signing: home.blocks[6].header, with: SigningKey()).line
        default: lines.swapAt(2, 3)
        }
        let log = lines.reduce(into: Data()) { $0.append(contentsOf: Self.record($1)) }
        try log.write(to: home.log)
        try FileManager.default.removeItem(at: home.index)
        let error = #expect(throws: KernelError.self) { try ChainStore(home: home.url) }
        #expect(error?.message.contains("does not stand") == true, "\(error as Any)")
        #expect(try payloadFiles(home.url) == home.payloads)
        let report = try ChainStore(reading: home.url).verify()
        #expect(!report.failures.isEmpty)
    }

    /// Log and index are both lost: payloads are kept, for a copy of the log may turn up.
    @Test func anEmptyLogRemovesNoPayload() throws {
        let home = try Closed()
        try FileManager.default.removeItem(at: home.log)
        try FileManager.default.removeItem(at: home.index)
        try ChainStore(home: home.url).close()
        #expect(try payloadFiles(home.url) == home.payloads)
        try FileManager.default.removeItem(at: home.index)
        try home.checkThatNothingIsLost()
    }

    /// STORAGE.md's record of one line.
    private static func record(_ line: [UInt8]) -> [UInt8] {
        let body = line + [10]
        let length = (0..<4).map { UInt8(truncatingIfNeeded: body.count >> (8 * $0)) }
        return Array("BLR1".utf8) + length + SHA256.hash(body).bytes[..<16] + body
    }

    @Test(arguments: [3, 6]) func reindexKeepsWhatTheIndexKnowsWasDurable(record: Int) throws {
        let home = try Closed()
        try home.flip(record: record)
        let damaged = try Data(contentsOf: home.log)
        for _ in 0..<2 {
            let error = #expect(throws: KernelError.self) {
                try ChainStore(home: home.url, rebuild: true)
            }
            #expect(error?.code == .integrity)
            #expect(error?.message.contains("byte \(home.starts[record])") == true)
            #expect(error?.hint?.contains("restore the log") == true)
            #expect(error?.hint?.contains("chain verify") == true)
            #expect(try Data(contentsOf: home.log) == damaged)
            #expect(try home.cuts().isEmpty)
        }
        // The old index still serves what the log still holds.
        if record == 3 {
            let store = try ChainStore(home: home.url)
            #expect(try store.block(home.blocks[5].hash) == home.blocks[5])
            store.close()
        }
        try home.checkThatNothingIsLost()
    }

    /// Whether the home opens or not, with an index and without: the record and the block in it are named.
    @Test(arguments: [0, 3, 6], [true, false])
    func aDamagedLogIsReportedOn(record: Int, keepsIndex: Bool) throws {
        let home = try Closed()
        try home.flip(record: record)
        if !keepsIndex { try FileManager.default.removeItem(at: home.index) }
        let before = try Data(contentsOf: home.log)
        let report = try ChainStore(reading: home.url).verify()
        #expect(report.blocks == 6)
        #expect(report.failures.contains { $0.reason.contains("byte \(home.starts[record])") })
        let lost = "\(home.blocks[record].hash)"
        if keepsIndex { #expect(report.failures.contains { $0.block == lost }) }
        #expect(try Data(contentsOf: home.log) == before)
        #expect(throws: KernelError.self) {
            try ChainStore(reading: home.url).append([home.blocks[record]])
        }
        try home.checkThatNothingIsLost()
    }

    /// Without an index a flipped bit of the last record looks like a torn tail: what is cut can be put back.
    @Test func whatWasCutCanBePutBackWithItsPayloads() throws {
        let home = try Closed()
        try home.flip(record: 6)
        try FileManager.default.removeItem(at: home.index)
        for round in 0..<3 {
            let store = try ChainStore(home: home.url)
            #expect(try store.blocks(.arrival).count == 6)
            #expect(store.repairs.isEmpty == (round > 0))
            store.close()
        }
        #expect(try home.cuts() == ["records.log.cut-\(home.starts[6])"])
        try home.checkThatNothingIsLost()
        // The same again: the first copy is kept.
        try home.flip(record: 6)
        try FileManager.default.removeItem(at: home.index)
        try ChainStore(home: home.url).close()
        #expect(try home.cuts().count == 2)
        // Only whoever removes what was cut lets go of its payloads.
        for cut in try home.cuts() {
            try FileManager.default.removeItem(
                at: home.log.deletingLastPathComponent().appendingPathComponent(cut))
        }
        let store = try ChainStore(home: home.url)
        #expect(store.repairs.count == 1)
        #expect(try payloadFiles(home.url).count == 6)
        store.close()
    }

    @Test func aLogThatIsShorterThanItsIndexIsRefused() throws {
        let home = try Closed()
        try home.bytes.prefix(home.starts[5]).write(to: home.log)
        for rebuild in [false, true] {
            let error = #expect(throws: KernelError.self) {
                try ChainStore(home: home.url, rebuild: rebuild)
            }
            #expect(error?.message.contains("byte \(home.bytes.count)") == true)
            #expect(error?.hint?.contains(home.index.path) == true)
        }
        let report = try ChainStore(reading: home.url).verify()
        #expect(report.failures.map(\.block) == home.blocks[5...].map { "\($0.hash)" })
        try home.checkThatNothingIsLost()
    }

    /// A store that serves and grows is indexed again and again, once with its folder gone: every query is answered in
    /// full, nothing that was appended meanwhile is missing.
    @Test func aServingStoreIsReindexed() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        try store.append([genesis])
        let stops = Atomic<Bool>(false)
        let appended = Atomic<Int>(1)
        let failures = Mutex<[String]>([])
        @Sendable func note(_ what: String) { failures.withLock { $0.append(what) } }
        let workers = DispatchGroup()
        // Threads of their own: other tests may keep the shared ones busy.
        func start(_ body: @escaping @Sendable () throws -> Void) {
            workers.enter()
            Thread.detachNewThread {
                defer { workers.leave() }
                do { try body() } catch { note("\(error)") }
            }
        }
        start {
            while !stops.load(ordering: .relaxed) {
                let number = appended.load(ordering: .relaxed)
                try store.append([maker.document("meta", "{\"number\":\(number)}")])
                appended.add(1, ordering: .sequentiallyConsistent)
            }
        }
        start {
            while !stops.load(ordering: .relaxed) {
                let least = appended.load(ordering: .sequentiallyConsistent)
                let count = try store.blocks(.arrival).count
                if count < least { note("\(count) of \(least) blocks") }
            }
        }
        // Two at once wait for one another.
        start { while !stops.load(ordering: .relaxed) { _ = try store.reindex() } }
        var rounds = 0
        while rounds < 12 || appended.load(ordering: .relaxed) < 50 {
            rounds += 1
            if rounds == 6 {
                try FileManager.default.removeItem(at: home.url.appendingPathComponent("index"))
            }
            let least = appended.load(ordering: .sequentiallyConsistent)
            #expect(try store.reindex() >= least)
        }
        stops.store(true, ordering: .relaxed)
        workers.wait()
        #expect(failures.withLock { $0 } == [])
        let blocks = try store.blocks(.arrival)
        #expect(blocks.count == appended.load(ordering: .relaxed))
        #expect(try store.verify().failures.isEmpty)
        store.close()
        let again = try ChainStore(home: home.url)
        #expect(try again.blocks(.arrival) == blocks)
        again.close()
    }

    /// The new index cannot be put in its place: whatever is left answers in full or not at all, nothing is added to a part,
    /// and the next start has everything.
    @Test(arguments: [1, 2]) func aSwapThatFailsLosesNothing(rename: Int) throws {
        let home = try Closed()
        let renames = Atomic<Int>(0)
        let isFailing = Atomic<Bool>(false)
        let disk = Disk { call, path in
            guard call == .rename, isFailing.load(ordering: .relaxed) else { return nil }
            return renames.add(1, ordering: .relaxed).newValue == rename ? EIO : nil
        }
        let store = try ChainStore(home: home.url, disk: disk)
        isFailing.store(true, ordering: .relaxed)
        #expect(throws: KernelError.self) { try store.reindex() }
        isFailing.store(false, ordering: .relaxed)
        if let found = try? store.blocks(.arrival) { #expect(found == home.blocks) }
        store.close()
        try home.checkThatNothingIsLost()
    }

    /// A log that is damaged under its holder is not indexed, and the old index goes on.
    @Test func aServingStoreKeepsItsIndexIfTheLogIsDamaged() throws {
        let home = try Closed()
        let store = try ChainStore(home: home.url)
        defer { store.close() }
        try home.flip(record: 3)
        let error = #expect(throws: KernelError.self) { try store.reindex() }
        #expect(error?.message.contains("byte \(home.starts[3])") == true)
        #expect(try store.block(home.blocks[5].hash) == home.blocks[5])
        #expect(try store.block(home.blocks[0].hash) == home.blocks[0])
    }

    /// A kill between the two renames of the swap, and after them.
    @Test func aHalfSwappedIndexIsStillAnIndex() throws {
        let home = try Closed()
        let old = home.url.appendingPathComponent("index.old")
        let new = home.url.appendingPathComponent("index.new")
        let manager = FileManager.default
        try manager.copyItem(at: home.index, to: new)
        try manager.moveItem(at: home.index, to: old)
        try home.flip(record: 6)
        // It still knows how much of the log was durable.
        #expect(throws: KernelError.self) { try ChainStore(home: home.url, rebuild: true) }
        #expect(try home.cuts().isEmpty)
        try home.checkThatNothingIsLost()
        try manager.copyItem(at: home.index, to: old)
        try ChainStore(home: home.url, rebuild: true).close()
        #expect(!manager.fileExists(atPath: old.path))
        #expect(!manager.fileExists(atPath: new.path))
        try home.checkThatNothingIsLost()
    }

    /// A disk that notes what is synced, in order.
    private final class Notes: Sendable {
        let synced = Mutex<[String]>([])
        var disk: Disk {
            Disk { [self] call, path in
                if call == .sync {
                    synced.withLock { $0.append(String(path.split(separator: "/").last ?? "")) }
                }
                return nil
            }
        }
    }

    /// Whoever made the log may have been killed before its name was durable.
    @Test func theLogsNameIsMadeDurableAtEveryOpening() throws {
        let home = try TemporaryHome()
        let failing = Disk { call, path in
            call == .sync && path.hasSuffix("/log") ? EIO : nil
        }
        #expect(throws: KernelError.self) { try ChainStore(home: home.url, disk: failing) }
        let notes = Notes()
        try ChainStore(home: home.url, disk: notes.disk).close()
        #expect(notes.synced.withLock { $0.contains("log") })
    }

    @Test func whatIsCutIsDurableBeforeItIsCut() throws {
        let home = try Closed()
        try (home.bytes + [1, 2, 3]).write(to: home.log)
        let notes = Notes()
        try ChainStore(home: home.url, disk: notes.disk).close()
        let name = "records.log.cut-\(home.bytes.count)"
        let order = notes.synced.withLock { $0 }.suffix(3)
        #expect(Array(order) == [name, "log", "records.log"])
    }

    /// Records that changed places: hash links show it.
    @Test func aBlockBeforeWhatItDependsOnIsNamed() throws {
        let home = try TemporaryHome()
        let log = home.url.appendingPathComponent("log/records.log")
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        let meta = try maker.document("meta", "{}", after: genesis)
        try store.append([genesis, meta])
        let first = try maker.parameters("norm", [1], model: meta.hash, genesis: genesis.hash)
        var header = first.header
        header.index = 1
        header.previous = first.hash
        header.dependsOn.append(first.hash)
        let second = try Block(signing: header, with: maker.key)
        var ends = [try Data(contentsOf: log).count]
        for block in [first, second] {
            try store.append([block])
            ends.append(try Data(contentsOf: log).count)
        }
        #expect(try store.verify().failures.isEmpty)
        store.close()
        let bytes = try Data(contentsOf: log)
        try (bytes[..<ends[0]] + bytes[ends[1]...] + bytes[ends[0]..<ends[1]]).write(to: log)
        let failures = try ChainStore(reading: home.url).verify().failures
        #expect(failures.allSatisfy { $0.block == "\(second.hash)" })
        #expect(
            failures.last?.reason
                == "block \(second.hash) comes before \(first.hash), on which it depends")
    }

    /// A cycle cannot be signed; ids that claim one are named with their path.
    @Test func aClaimedCycleIsNamed() {
        let ids = (0..<4).map { SHA256.hash([$0]) }
        let path = "\(ids[1]) → \(ids[2]) → \(ids[3])"
        let cycle = ChainStore.cycle(
            among: [(ids[0], [ids[1]]), (ids[1], [ids[2]]), (ids[2], [ids[3]]), (ids[3], [ids[1]])])
        #expect(cycle?.message.hasSuffix(path) == true)
        #expect(ChainStore.cycle(among: [(ids[0], [ids[1]]), (ids[1], [ids[2]])]) == nil)
    }

    /// More blocks than are kept in memory: those that are asked for later are read again.
    @Test func aLongLogIsVerified() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let maker = try ChainMaker(store)
        let genesis = try maker.document("genesis", "{}")
        let meta = try maker.document("meta", "{}", after: genesis)
        try store.append([genesis, meta])
        let first = try maker.parameters("norm", [1], model: meta.hash, genesis: genesis.hash)
        var header = first.header
        var blocks = [first]
        // Each hundredth replaces one that was read long before.
        for i in 1..<9000 {
            header.timestamp = Int64(10 + i)
            let old = i % 100 == 0 ? blocks[i / 200] : nil
            header.index = old.map { $0.header.index + 1 } ?? 0
            header.previous = old?.hash ?? genesis.hash
            header.dependsOn = [meta.hash] + (old.map { [$0.hash] } ?? [])
            blocks.append(try Block(signing: header, with: maker.key))
        }
        try store.append(blocks)
        let report = try store.verify()
        #expect(report.blocks == 9002)
        #expect(report.failures.isEmpty)
    }
}
