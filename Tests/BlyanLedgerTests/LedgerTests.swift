import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Synchronization
import Testing

@Suite struct LedgerTests {
    @Test func rewardsTransfersAndFeesMoveMoneyAndKeepTheSum() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 1_000))
        let receipts = bank.submit(
            try bank.transfer(0, bank.account(1), 300, fee: 7),
            try bank.transfer(0, bank.account(2), 100, fee: 3, nonce: 1))
        #expect(try receipts.map { try $0.get().transaction } == [0, 1])
        #expect(try receipts.map { try $0.get().index } == [1, 1])
        #expect(try bank.totals() == [10, 590, 300, 100])
        #expect(try bank.ledger.balance(of: bank.account(0)).nonce == 2)
        #expect(bank.ledger.position == (height: 2, supply: 1_000))
        let block = try #require(try bank.store.block(receipts[0].get().block))
        #expect(block.header.blockType == "transfer")
        let document = try LedgerDocument(bank.store.document(block))
        #expect(document.transactions.last == .fee(Fee(to: Account(bank.key), amount: 10)))
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    @Test func everyTransactionSumsToZero() throws {
        let bank = try Bank()
        let clawback = Clawback(
            from: bank.account(0), amount: 4, block: 0, transaction: 0, reason: bank.reason)
        for transaction in [
            Transaction.transfer(
                try bank.transfer(0, bank.account(1), 5, fee: 2, nonce: 0)),
            bank.reward(0, 9), .clawback(clawback), .fee(Fee(to: bank.account(2), amount: 3)),
        ] {
            let postings = try Books.postings(transaction)
            #expect(postings.count >= 2)
            #expect(postings.reduce(0) { $0 + $1.amount } == 0)
        }
    }

    /// A transfer signs the statement that the kernel makes of its fields.
    @Test func aTransferSignsAStatement() throws {
        let bank = try Bank()
        let transfer = try bank.transfer(0, bank.account(1), 5, fee: 2, nonce: 3)
        let statement = try Statement(
            "transfer", genesis: bank.genesis,
            body: .object([
                "amount": .string("5"), "fee": .string("2"), "nonce": .string("3"),
                "from": .string(bank.account(0).description),
                "to": .string(bank.account(1).description),
            ]))
        #expect(transfer.digest(genesis: bank.genesis) == statement.digest)
        #expect(
            Signature.isValid(
                transfer.signature, over: statement.digest, publicKey: bank.keys[0].publicKey))
    }

    /// The example of LEDGER.md, for whoever writes a reader of their own.
    @Test func thePagesExampleIsRight() throws {
        let genesis = try #require(Digest([UInt8](repeating: 0x11, count: 32)))
        let transfer = try Transfer(
            signedBy: Bank.key(1), to: Account(Bank.key(2)), amount: 300, fee: 7, nonce: 0,
            genesis: genesis)
        let document = LedgerDocument(
            transactions: [
                .transfer(transfer), .fee(Fee(to: Account(try Bank.key(3)), amount: 7)),
            ], supply: 1_000)
        let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/BlyanLedger/LEDGER.md").standardized
        let text = try String(contentsOf: page, encoding: .utf8).replacing("\n    ", with: "")
        #expect(text.contains("\(transfer.digest(genesis: genesis))"))
        #expect(text.contains(String(decoding: document.bytes, as: UTF8.self)))
    }

    @Test func whatTheWriterWritesTheReaderReads() throws {
        let bank = try Bank()
        let reason = Reason(blocks: [], verdict: bank.genesis, policy: bank.policy)
        let document = LedgerDocument(
            transactions: [
                bank.reward(0, 1, vesting: 3),
                .transfer(try bank.transfer(0, bank.account(1), .max, fee: 0, nonce: .max)),
                .clawback(
                    Clawback(
                        from: bank.account(1), amount: 2, block: 3, transaction: 4, reason: reason)),
                .fee(Fee(to: bank.account(0), amount: 1)),
            ], supply: 77)
        #expect(try LedgerDocument(document.bytes) == document)
        #expect(try JSONValue(canonical: document.bytes).canonical() == document.bytes)
    }

    @Test func rewardsVestBlockByBlock() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 10, vesting: 4))
        var spendable: [Int64] = []
        for i in 0..<5 {
            spendable.append(try bank.ledger.balance(of: bank.account(0)).spendable)
            if i % 2 == 0 {
                try bank.append(bank.reward(1, 1))
            } else {
                // A usage block counts as a block.
                try bank.ledger.appendUsage(.object(["calls": .int(1)]), key: bank.key, time: 1)
            }
        }
        #expect(spendable == [2, 5, 7, 10, 10])
        #expect(try bank.ledger.balance(of: bank.account(0)).total == 10)
        #expect(try bank.ledger.grants(of: bank.account(0)).isEmpty)
    }

    /// Otherwise an author would send dust until a reward is out of a clawback's reach.
    @Test func transfersLetNothingVest() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 10, vesting: 4), bank.reward(1, 9))
        for _ in 0..<9 { _ = try bank.submit(bank.transfer(1, bank.account(2), 1))[0].get() }
        for deleting in [false, true] {
            try bank.reopen(deleting: deleting)
            #expect(try bank.ledger.balance(of: bank.account(0)).spendable == 2)
            #expect(bank.ledger.position.height == 10 && bank.ledger.verify().failures.isEmpty)
        }
        try bank.append(
            .clawback(
                Clawback(from: bank.account(0), block: 0, transaction: 0, reason: bank.reason)))
        #expect(try bank.ledger.balance(of: bank.account(0)).total == 2)
    }

    @Test func whatHasNotVestedCannotBeSpent() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 10, vesting: 4))
        let refusal = try error(bank.submit(try bank.transfer(0, bank.account(1), 3)).first)
        #expect(refusal.code == .rule)
        #expect(refusal.message.contains("can spend 0.000002 BLY"))
        #expect(refusal.message.contains("0.000008 BLY more have not vested"))
        #expect(bank.ledger.position.height == 1)
        _ = try bank.submit(try bank.transfer(0, bank.account(1), 2))[0].get()
        #expect(try bank.ledger.balance(of: bank.account(0)).spendable == 0)
        try bank.append(bank.reward(1, 1))
        // It has 8 of which 5 are vested and 2 are gone.
        #expect(try bank.ledger.balance(of: bank.account(0)).spendable == 3)
    }

    @Test func aClawbackTakesWhatHasNotVestedOnce() throws {
        let bank = try Bank()
        try bank.append(bank.reward(1, 5), bank.reward(0, 10, vesting: 4))
        let clawback = Transaction.clawback(
            Clawback(from: bank.account(0), block: 0, transaction: 1, reason: bank.reason))
        let block = try bank.append(clawback)
        #expect(block.header.blockType == "reward")
        #expect(try bank.ledger.balance(of: bank.account(0)).total == 2)
        #expect(try bank.ledger.balance(of: bank.account(0)).spendable == 2)
        #expect(bank.ledger.position.supply == 7)
        let refusal = #expect(throws: KernelError.self) { try bank.append(clawback) }
        #expect(refusal?.code == .rule)
        #expect(refusal?.message.contains("transaction 1 in block 0") == true)
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    @Test func historiesAreNewestFirst() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 100))
        _ = bank.submit(try bank.transfer(0, bank.account(1), 30, fee: 2))
        let history = try bank.ledger.history(of: bank.account(0), limit: 10)
        #expect(history.map(\.kind) == ["transfer", "reward"])
        #expect(history.map(\.change) == [-32, 100])
        #expect(history[0].fee == 2 && history[0].counterparty == bank.account(1))
        #expect(history[0].time == 6 && history[1].time == 5)
        #expect(try bank.ledger.history(of: bank.account(0), limit: 1).map(\.block) == [1])
        let other = try bank.ledger.history(of: bank.account(1), limit: 10)
        #expect(other.map(\.change) == [30] && other[0].counterparty == bank.account(0))
        #expect(try bank.ledger.history(of: Account(bank.key), limit: 9).map(\.kind) == ["fee"])
    }

    /// A double spend, a repeated transfer, a skipped nonce: each is told what is next.
    @Test func noncesAreStrictlySequential() throws {
        let bank = try Bank()
        try bank.append(bank.reward(0, 100))
        let one = try bank.transfer(0, bank.account(1), 60)
        let twin = try bank.transfer(0, bank.account(2), 60)
        let results = bank.submit(one, twin, one)
        _ = try results[0].get()
        for result in results[1...] {
            let refusal = try error(result)
            #expect(refusal.message.contains("nonce 0"))
            #expect(refusal.message.contains("double spend"))
            #expect(refusal.message.contains("expected 1"))
            #expect(refusal.hint?.contains("sign the transfer again with 1") == true)
        }
        let skipped = try error(
            bank.submit(try bank.transfer(0, bank.account(1), 1, nonce: 2)).first)
        #expect(skipped.message.contains("nonce 2") && skipped.message.contains("expected 1"))
        #expect(try bank.totals() == [0, 40, 60, 0])
        #expect(bank.ledger.position.height == 2)
    }

    @Test func aBatchAsAWholeIsRefusedByNamingTheTransaction() throws {
        let bank = try Bank()
        let error = #expect(throws: KernelError.self) {
            try bank.append(
                bank.reward(0, 5),
                .transfer(try bank.transfer(0, bank.account(1), 6, nonce: 0)))
        }
        #expect(error?.message.contains("transaction 1 is refused") == true)
        #expect(try bank.totals() == [0, 0, 0, 0])
        #expect(bank.store.next(on: "C").index == 0)
    }

    /// Expert, verdict and reward are one record: all stand, or none.
    @Test func aLedgerBlockStandsInOneRecordWithOthers() throws {
        let bank = try Bank()
        func policy(_ previous: Digest, _ index: Int64, by key: SigningKey) throws -> Block {
            try Block(
                signing: BlockHeader(
                    chainID: "A", blockType: "policy", index: index, previous: previous,
                    timestamp: 2), with: key)
        }
        let verdict = try policy(bank.genesis, 1, by: bank.key)
        let paid = Reward(
            to: bank.account(0), amount: 5, vesting: 0,
            reason: Reason(blocks: [verdict.hash], verdict: nil, policy: bank.policy))
        let stranger = try policy(bank.genesis, 1, by: bank.keys[0])
        #expect(throws: KernelError.self) {
            try bank.ledger.append([.reward(paid)], key: bank.key, time: 1) {
                (_) throws(KernelError) in [stranger]
            }
        }
        #expect(bank.ledger.position.height == 0 && bank.store.next(on: "C").index == 0)
        let block = try bank.ledger.append([.reward(paid)], key: bank.key, time: 1) {
            (block) throws(KernelError) in
            #expect(block.header.dependsOn == [verdict.hash])
            return [verdict]
        }
        #expect(
            try bank.store.blocks(.arrival).suffix(2).map(\.hash) == [verdict.hash, block.hash])
        #expect(try bank.totals() == [0, 5, 0, 0])
    }

    @Test func aPreparedBlockIsAppendedByOthersAndAppliedAfterwards() throws {
        let bank = try Bank()
        let block = try bank.ledger.prepare([bank.reward(0, 5)], key: bank.key, time: 1)
        #expect(try bank.totals() == [0, 0, 0, 0])
        // Somebody else was faster: the record is refused, and prepared again.
        try bank.append(bank.reward(1, 1))
        #expect(throws: KernelError.self) { try bank.store.append([block]) }
        let again = try bank.ledger.prepare([bank.reward(0, 5)], key: bank.key, time: 1)
        try bank.store.append([again])
        try bank.ledger.apply()
        #expect(try bank.totals() == [0, 5, 1, 0])
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    @Test func manyCallersShareBlocks() throws {
        let bank = try Bank(people: 8)
        for i in 0..<8 { try bank.append(bank.reward(i, 1_000)) }
        let before = bank.ledger.position.height
        let transfers = try (0..<8).map { i in
            try (0..<20).map { nonce in
                try bank.transfer(i, bank.account((i + 1) % 8), 1, fee: 1, nonce: nonce)
            }
        }
        let failures = Mutex<[KernelError]>([])
        let (ledger, key) = (bank.ledger, bank.key)
        DispatchQueue.concurrentPerform(iterations: 8) { i in
            for transfer in transfers[i] {
                if case .failure(let error) = ledger.submit([transfer], key: key, time: 1)[0] {
                    failures.withLock { $0.append(error) }
                }
            }
        }
        #expect(failures.withLock { $0.map(\.message) }.isEmpty)
        #expect(try bank.totals() == [160] + [Int64](repeating: 980, count: 8))
        #expect(bank.ledger.position.height <= before + 160)
        #expect(bank.ledger.verify().failures.isEmpty)
    }

    /// A disk that fails at any call: nothing changes, and what was acknowledged is there later.
    @Test(arguments: [Disk.Call.write, .sync, .rename]) func aFailingDiskChangesNothing(
        call: Disk.Call
    ) throws {
        for n in 0..<6 {
            let calls = Mutex(Int.min)
            let bank = try Bank(
                disk: Disk { asked, _ in
                    guard asked == call else { return nil }
                    return calls.withLock { count in
                        count &+= 1
                        return count == n + 1 ? ENOSPC : nil
                    }
                })
            try bank.append(bank.reward(0, 100))
            calls.withLock { $0 = 0 }
            var acknowledged = try bank.totals()
            for _ in 0..<3 {
                if case .success = bank.submit(try bank.transfer(0, bank.account(1), 10))[0] {
                    acknowledged[1] -= 10
                    acknowledged[2] += 10
                }
                #expect(try bank.totals() == acknowledged)
            }
            try bank.reopen()
            // A record whose sync failed was not acknowledged, and may be there all the same: whole.
            let more = [0, acknowledged[1] - 10, acknowledged[2] + 10, 0]
            #expect(try [acknowledged, more].contains(bank.totals()))
            #expect(bank.ledger.verify().failures.isEmpty)
        }
    }

    @Test func aStrangersBlockIsRefused() throws {
        let bank = try Bank()
        let error = #expect(throws: KernelError.self) {
            try bank.ledger.append([bank.reward(0, 5)], key: bank.keys[0], time: 1)
        }
        #expect(error?.message.contains("on chain C") == true)
        #expect(error?.message.contains("no validator") == true)
        #expect(bank.ledger.position.height == 0)
    }

    @Test func aHomeWithoutGenesisHasNoAccounts() throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-ledger-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let store = try ChainStore(home: folder, specs: [.a, .b, .c])
        let ledger = Ledger(store: store, home: folder)
        let key = try Bank.key(3)
        #expect(ledger.fault == nil)
        #expect(try ledger.balance(of: Account(key)).total == 0)
        #expect(ledger.verify().failures.isEmpty)
        let error = #expect(throws: KernelError.self) {
            try ledger.appendUsage(.object([:]), key: key, time: 1)
        }
        #expect(error?.code == .notFound)
    }
}

@Suite struct AmountTests {
    @Test(arguments: [
        ("1.25", 1_250_000), ("0", 0), ("1.25 BLY", 1_250_000), ("0.000001", 1), ("007", 7_000_000),
        ("9223372036854.775807", Int64.max), ("3.10", 3_100_000),
    ])
    func peoplesAmountsAreExact(text: String, micro: Int64) throws {
        #expect(try Amount.parse(text) == micro)
        #expect(try Amount.parse(Amount.text(micro)) == micro)
    }

    @Test(arguments: [
        "", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", "1.2.3", "1 bly", "1 BLY ",
        " 1",
        "١", "9223372036854.775808", "99999999999999999999", "1  BLY",
    ])
    func othersAreRefused(text: String) throws {
        let error = #expect(throws: KernelError.self) { try Amount.parse(text) }
        #expect(error?.message.contains(text.isEmpty ? "no amount" : text) == true)
    }

    @Test func amountsAreWrittenWithTheDecimalsThatTheyNeed() {
        #expect(Amount.text(1_250_000) == "1.25 BLY")
        #expect(Amount.text(0) == "0 BLY")
        #expect(Amount.text(-1) == "-0.000001 BLY")
        #expect(Amount.text(.min) == "-9223372036854.775808 BLY")
    }

    @Test(arguments: ["", "00", "01", "-1", "+1", "1.0", " 1", "9223372036854775808", "1e1"])
    func documentsNumbersAreCanonical(text: String) {
        #expect(Amount.number(text) == nil)
    }
}
