import BlyanKernel
import Foundation
import Synchronization
import Testing

/// Disks that fail, logs that were cut, bytes that rotted.
@Suite struct DurabilityTests {
    /// Which call on the disk fails with what.
    struct Fault: Sendable, CustomTestStringConvertible {
        let call: Disk.Call
        let code: Int32
        var testDescription: String { "\(call.rawValue) \(code)" }
    }

    static let faults = Disk.Call.allCases.flatMap { call in
        [EIO, ENOSPC, EROFS].map { Fault(call: call, code: $0) }
    }

    /// A genesis block and `count` records of one block with a payload each.
    static func fill(_ store: ChainStore, records count: Int) throws -> [Block] {
        let maker = try ChainMaker(store)
        var blocks: [Block] = []
        for i in 0..<count {
            let block = try maker.document(
                store.genesis == nil ? "genesis" : "meta", "{\"number\":\(i)}")
            try store.append([block])
            blocks.append(block)
        }
        return blocks
    }

    /// The n-th call of a kind fails, for every n that the run reaches.
    @Test(arguments: faults) func everyCallMayFail(_ fault: Fault) throws {
        var reached = 0
        for n in 0... {
            let home = try TemporaryHome()
            let calls = Mutex(0), failed = Mutex<String?>(nil)
            let disk = Disk { call, path in
                guard call == fault.call else { return nil }
                let number = calls.withLock { count in
                    count += 1
                    return count - 1
                }
                // Opening makes hundreds of folders in the same way; a few stand for all.
                guard number == (call == .open && n >= 3 ? n + 250 : n) else { return nil }
                failed.withLock { $0 = path }
                return fault.code
            }
            var acknowledged: [Block] = []
            var refusals = 0
            do {
                let store = try ChainStore(home: home.url, disk: disk)
                let maker = try ChainMaker(store)
                for i in 0..<4 {
                    do {
                        let block = try maker.document(
                            store.genesis == nil ? "genesis" : "meta", "{\"number\":\(i)}")
                        try store.append([block])
                        acknowledged.append(block)
                        // No acknowledgement after a failed sync.
                        if fault.call == .sync { #expect(failed.withLock { $0 } == nil) }
                    } catch {
                        refusals += 1
                        let known = error as? KernelError
                        #expect(known?.code == .io)
                        if refusals == 1 {
                            #expect(known?.message.contains("errno \(fault.code)") == true)
                            #expect(known?.hint != nil)
                        }
                    }
                }
                store.close()
            } catch {
                refusals += 1
            }
            guard let path = failed.withLock({ $0 }) else { break }
            reached += 1
            #expect(refusals > 0, "the failure at \(path) was passed over")
            try ChainStore(home: home.url).close()
            try removeCuts(home.url)
            let store = try ChainStore(home: home.url)
            let found = try store.blocks(.arrival)
            #expect(found.count - acknowledged.count <= 1)
            #expect(Array(found.prefix(acknowledged.count)) == acknowledged)
            #expect(try store.verify().failures.isEmpty)
            #expect(try store.check(readData: true).failures.isEmpty)
            let named = Set(found.compactMap(\.header.payloadHash?.description))
            // Beside an empty log nothing is removed: a copy of it may turn up.
            #expect(try payloadFiles(home.url) == named || named.isEmpty)
            store.close()
        }
        #expect(reached >= 3)
    }

    /// Power fails: of the last records, every number of bytes may be on the disk, and the index may be gone.
    @Test func everyPrefixOfTheLogOpensWithItsWholeRecords() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let log = home.url.appendingPathComponent("log/records.log")
        var ends: [Int] = []
        var blocks: [Block] = []
        for _ in 0..<4 {
            blocks += try Self.fill(store, records: 1)
            ends.append(try Data(contentsOf: log).count)
        }
        store.close()
        let whole = try Data(contentsOf: log)
        for length in ends[1]...ends[3] {
            try whole.prefix(length).write(to: log)
            try? FileManager.default.removeItem(at: home.url.appendingPathComponent("index"))
            let store = try ChainStore(home: home.url)
            let count = ends.count { $0 <= length }
            #expect(try store.blocks(.arrival) == Array(blocks.prefix(count)))
            #expect(store.repairs.isEmpty == ends.contains(length))
            store.close()
            guard Int(try Data(contentsOf: log).count) == ends[count - 1] else {
                Issue.record("the tail at \(length) was not cut")
                return
            }
        }
    }

    /// A flipped bit of the log is named, or lies in the last record alone and the index is gone.
    @Test(arguments: [true, false]) func flippedBitsOfTheLogAreSeen(keepsIndex: Bool) throws {
        let home = try TemporaryHome()
        var store = try ChainStore(home: home.url)
        let blocks = try Self.fill(store, records: 6)
        store.close()
        let log = home.url.appendingPathComponent("log/records.log")
        let whole = try Data(contentsOf: log)
        var random = SeededRandom(state: 3)
        for _ in 0..<150 {
            var bytes = whole
            let at = Int.random(in: 0..<bytes.count, using: &random)
            bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            try bytes.write(to: log)
            var named = 0
            do {
                let index = home.url.appendingPathComponent("index")
                if !keepsIndex { try? FileManager.default.removeItem(at: index) }
                store = try ChainStore(home: home.url)
                defer { store.close() }
                for block in blocks {
                    do {
                        let found = try store.block(block.hash)
                        // Only a tail that looks torn may be missing, and then it is reported.
                        if found == nil, !keepsIndex, !store.repairs.isEmpty { named += 1 }
                        #expect(found == block || found == nil && named > 0, "byte \(at)")
                    } catch {
                        named += 1
                        #expect(error.code == .integrity)
                    }
                }
                named += try store.verify().failures.count
            } catch {
                named += 1
                #expect(error.code == .integrity)
                #expect(error.hint != nil)
            }
            #expect(named > 0, "nobody saw the flipped bit of byte \(at)")
            try removeCuts(home.url)
        }
    }

    /// A damaged index is rebuilt, or named with the command that rebuilds it; it never answers wrongly.
    @Test func flippedBitsOfTheIndexNeverAnswer() throws {
        let home = try TemporaryHome()
        let store = try ChainStore(home: home.url)
        let blocks = try Self.fill(store, records: 30)
        store.close()
        // Opening once more turns what LevelDB holds in its own log into a table.
        try ChainStore(home: home.url).close()
        let index = home.url.appendingPathComponent("index")
        let copy = home.url.appendingPathComponent("copy")
        let manager = FileManager.default
        try manager.copyItem(at: index, to: copy)
        var random = SeededRandom(state: 4)
        for _ in 0..<120 {
            try manager.removeItem(at: index)
            try manager.copyItem(at: copy, to: index)
            let names = try manager.contentsOfDirectory(atPath: index.path).sorted()
            let file = index.appendingPathComponent(names.randomElement(using: &random) ?? "")
            var bytes = try Data(contentsOf: file)
            guard !bytes.isEmpty else { continue }
            bytes[Int.random(in: 0..<bytes.count, using: &random)] ^=
                1 << UInt8.random(in: 0..<8, using: &random)
            try bytes.write(to: file)
            do {
                let store = try ChainStore(home: home.url)
                defer { store.close() }
                #expect(try store.blocks(.arrival) == blocks)
                #expect(try store.blocks(.chain("A", from: 7)) == Array(blocks[7...]))
                #expect(try store.blocks(.type(chain: "A", "meta")) == Array(blocks[1...]))
                for block in blocks { #expect(try store.block(block.hash) == block) }
            } catch {
                #expect(error.hint?.contains("reindex") == true, "\(error)")
            }
        }
    }

    @Test(arguments: [
        ("Corruption: bad block", KernelError.Code.integrity),
        ("NotFound: x", .integrity), ("Invalid argument: x", .integrity),
        ("IO error: /x/000005.ldb: No such file or directory", .integrity),
        ("IO error: /x/000005.ldb: Invalid argument", .integrity),
        ("IO error: /x/CURRENT: Is a directory", .integrity),
        ("IO error: /x/LOCK: Resource temporarily unavailable", .io), ("other", .io),
        ("IO error: /x/000007.log: No space left on device", .io),
        ("IO error: lock /x/LOCK: already held by process", .io),
    ])
    func theIndexKnowsWhatItsErrorsMean(message: String, code: KernelError.Code) {
        #expect(IndexStore.code(of: message) == code)
    }
}
