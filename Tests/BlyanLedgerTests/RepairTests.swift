import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// Balances that are gone, damaged, behind, or those of something else.
@Suite struct RepairTests {
    private func setUp() throws -> (Bank, [[UInt8]]) {
        let bank = try Bank()
        try bank.append(bank.reward(0, 1_000, vesting: 3), bank.reward(1, 500))
        for i in 0..<5 {
            _ = bank.submit(
                try bank.transfer(1, bank.account(2), 10 + Int64(i), fee: 1),
                try bank.transfer(2, bank.account(0), 1, fee: 0))
        }
        return (bank, try bank.ledger.dump())
    }

    @Test func deletedBalancesAreMadeAgain() throws {
        let (bank, expected) = try setUp()
        try bank.reopen(deleting: true)
        #expect(try bank.ledger.dump() == expected)
    }

    /// As a kill between the record of a block and the write of the balances leaves them.
    @Test func balancesThatAreBehindAreCarriedForward() throws {
        let (bank, _) = try setUp()
        let block = try bank.ledger.prepare([bank.reward(2, 9)], key: bank.key, time: 1)
        try bank.store.append([block])
        #expect(bank.ledger.position.height == 6)
        try bank.reopen()
        #expect(bank.ledger.position == (height: 7, supply: 1_509))
        #expect(bank.ledger.repairs.isEmpty)
        let carried = try bank.ledger.dump()
        try bank.reopen(deleting: true)
        #expect(try bank.ledger.dump() == carried)
    }

    @Test(arguments: ["CURRENT", ".log", "MANIFEST"]) func damagedFilesAreMadeAgain(name: String)
        throws
    {
        let (bank, expected) = try setUp()
        bank.close()
        let folder = bank.home.appendingPathComponent("ledger")
        let file = try #require(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).first {
                $0.hasPrefix(name) || $0.hasSuffix(name)
            })
        let url = folder.appendingPathComponent(file)
        var bytes = try Data(contentsOf: url)
        bytes[bytes.count / 2] ^= 0x55
        try bytes.write(to: url)
        try bank.open()
        #expect(bank.ledger.fault == nil)
        #expect(try bank.ledger.dump() == expected)
        #expect(bank.ledger.repairs.count == 1)
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    @Test func balancesOfAnotherNetworkOrChainAreMadeAgain() throws {
        let (bank, expected) = try setUp()
        let (other, _) = try setUp()
        try other.append(other.reward(0, 77))
        bank.close()
        other.close()
        for changed in [true, false] {
            let mine = bank.home.appendingPathComponent("ledger")
            try FileManager.default.removeItem(at: mine)
            if changed {
                // The same network and a longer chain, as after the log was put back from a copy.
                try FileManager.default.copyItem(
                    at: other.home.appendingPathComponent("ledger"), to: mine)
            } else {
                let stranger = try LedgerState(path: mine.path)
                try stranger.write([:], [], mark: .init(genesis: .zero, count: 1, hash: .zero))
            }
            try bank.open()
            #expect(bank.ledger.fault == nil)
            #expect(bank.ledger.repairs.count == 1)
            #expect(try bank.ledger.dump() == expected)
            bank.close()
        }
    }

    /// A balance that somebody wrote into the store by hand.
    @Test func forgedBalancesAreFound() throws {
        let (bank, expected) = try setUp()
        bank.close()
        do {
            let state = try LedgerState(path: bank.home.appendingPathComponent("ledger").path)
            let mark = try #require(try state.mark())
            var rich = AccountState()
            rich.total = 1_000_000
            try state.write([bank.account(2): rich], [], mark: mark)
        }
        try bank.open()
        let failures = bank.ledger.verify().failures
        try #require(failures.count == 1)
        #expect(failures[0].reason.contains("\(bank.account(2)) has 1000000 micro-BLY"))
        #expect(failures[0].reason.contains("made again from chain C"))
        try bank.reopen(deleting: true)
        #expect(try bank.ledger.dump() == expected)
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    /// A total that was forged and signed by the validator itself.
    @Test func aForgedTotalIsFound() throws {
        let (bank, _) = try setUp()
        let honest = LedgerDocument(
            transactions: [.transfer(try bank.transfer(1, bank.account(2), 1))], supply: 1_500)
        let text = String(decoding: honest.bytes, as: UTF8.self)
        let block = try bank.forge(
            text.replacing("\"supply\":\"1500\"", with: "\"supply\":\"1501\""))
        let failures = bank.ledger.verify().failures
        #expect(failures.map(\.block) == ["\(block.hash)"])
        #expect(failures.first?.reason.contains("total supply of 1501") == true)
    }

    /// A payload that is gone says nothing against the balances that are written already.
    @Test func aLostPayloadDoesNotCloseTheBooks() throws {
        let (bank, expected) = try setUp()
        let block = try #require(try bank.store.blocks(.chain("C", from: 2), limit: 1).first)
        let payload = try #require(block.header.payloadHash)
        try FileManager.default.removeItem(atPath: bank.store.payloads.path(of: payload))
        try bank.reopen()
        #expect(bank.ledger.fault == nil)
        #expect(try bank.ledger.dump() == expected)
        #expect(bank.ledger.verify().failures.map(\.block) == ["\(block.hash)"])
        try bank.reopen(deleting: true)
        #expect(bank.ledger.fault != nil)
    }

    @Test func homesWithoutChainCOpen() throws {
        let bank = try Bank()
        bank.close()
        // As earlier builds left it.
        try FileManager.default.removeItem(at: bank.home.appendingPathComponent("ledger"))
        let old = try ChainStore(home: bank.home)
        old.close()
        try bank.open()
        #expect(bank.ledger.fault == nil)
        #expect(bank.ledger.verify().failures.isEmpty)
        try bank.append(bank.reward(0, 1))
    }
}

/// A process that pays until it is killed.
@Suite struct LedgerCrashTests {
    @Test func balancesAreThoseOfTheChainAfterAnyKill() throws {
        let bank = try Bank(people: 0)
        bank.close()
        var acknowledged: Set<String> = []
        var random = SeededRandom(state: 5)
        for round in 0..<40 {
            let child = Process(), pipe = Pipe()
            child.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
                .deletingLastPathComponent().appendingPathComponent("LedgerCrashChild")
            child.arguments = [bank.home.path]
            child.standardOutput = pipe
            try child.run()
            var output = Data()
            while !String(decoding: output, as: UTF8.self).contains("opened\n") {
                let more = pipe.fileHandleForReading.availableData
                try #require(!more.isEmpty, "the child ended by itself")
                output += more
            }
            usleep(UInt32.random(in: 0...30_000, using: &random))
            kill(child.processIdentifier, SIGKILL)
            output += pipe.fileHandleForReading.readDataToEndOfFile()
            child.waitUntilExit()
            #expect(child.terminationReason == .uncaughtSignal)
            // The last line may be cut.
            for line in String(decoding: output, as: UTF8.self).split(
                separator: "\n", omittingEmptySubsequences: false
            ).dropLast() where line.hasPrefix("done ") {
                acknowledged.insert(String(line.dropFirst(5)))
            }
            guard round % 10 == 9 else { continue }
            try bank.open()
            #expect(bank.ledger.fault == nil)
            let blocks = Set(try bank.store.blocks(.chain("C", from: 0)).map(\.hash.description))
            #expect(acknowledged.isSubset(of: blocks))
            #expect(bank.ledger.verify().failures.map(\.reason).isEmpty)
            let grown = try bank.ledger.dump()
            try bank.reopen(deleting: true)
            #expect(try bank.ledger.dump() == grown)
            bank.close()
        }
        #expect(acknowledged.count > 40)
    }
}
