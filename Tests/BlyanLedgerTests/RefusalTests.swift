import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// What LEDGER.md says that a reader refuses, by its numbers: written straight onto chain C, past the ledger.
@Suite struct RefusalTests {
    /// A block that breaks a rule, and words of the error.
    struct Case: Sendable, CustomTestStringConvertible {
        let rule: Int
        let words: String
        let make: @Sendable (Bank) throws -> Void
        var testDescription: String { "rule \(rule): \(words)" }

        init(_ rule: Int, _ words: String, _ make: @escaping @Sendable (Bank) throws -> Void) {
            (self.rule, self.words, self.make) = (rule, words, make)
        }

        /// A good document with one thing changed.
        init(
            _ rule: Int, _ words: String, changing old: String, to new: String,
            _ transactions: @escaping @Sendable (Bank) throws -> [Transaction] = {
                try [.transfer($0.transfer(0, $0.account(1), 10, nonce: 0))]
            }
        ) {
            self.init(rule, words) { bank in
                let document = LedgerDocument(transactions: try transactions(bank), supply: 140)
                let text = String(decoding: document.bytes, as: UTF8.self)
                try #require(text.contains(old))
                try bank.forge(
                    text.replacing(old, with: new), type: document.blockType,
                    dependsOn: document.dependencies)
            }
        }
    }

    /// Transactions that are well-formed and break the books.
    static func books(
        _ rule: Int, _ words: String, supply: Int64 = 140,
        _ transactions: @escaping @Sendable (Bank) throws -> [Transaction]
    ) -> Case {
        Case(rule, words) { bank in
            let document = LedgerDocument(transactions: try transactions(bank), supply: supply)
            try bank.forge(
                String(decoding: document.bytes, as: UTF8.self), type: document.blockType,
                dependsOn: document.dependencies)
        }
    }

    static func clawback(
        _ bank: Bank, _ amount: Int64, block: Int64 = 0, transaction: Int64 = 1, from: Int = 0
    ) -> Transaction {
        .clawback(
            Clawback(
                from: bank.account(from), amount: amount, block: block, transaction: transaction,
                reason: bank.reason))
    }

    static let documents: [Case] = [
        Case(1, "canonical", changing: "{\"format\"", to: "{ \"format\""),
        Case(1, "JSON", changing: "]}", to: "]"),
        Case(
            1, "twice", changing: "\"supply\":\"140\"",
            to: "\"supply\":\"140\",\"supply\":\"140\""),
        Case(1, "expected json") { try $0.forge("{}", payloadType: "raw") },
        Case(2, "expected \"blyan-ledger/1\"", changing: "ledger/1", to: "ledger/2"),
        Case(3, "unknown field \"z\"", changing: "]}", to: "],\"z\":1}"),
        Case(
            3, "unknown field \"memo\"", changing: "\"kind\"", to: "\"kind\":\"transfer\",\"memo\""
        ) {
            try [.transfer($0.transfer(0, $0.account(1), 10, nonce: 0))]
        },
        Case(3, "lacks the field \"fee\"", changing: "\"fee\":\"0\",", to: ""),
        Case(3, "lacks the text \"kind\"", changing: "[{", to: "[1,{"),
        Case(4, "holds no transaction") {
            try $0.forge("{\"format\":\"blyan-ledger/1\",\"supply\":\"140\",\"transactions\":[]}")
        },
        Case(4, "at most 50000") { bank in
            let one = Transaction.fee(Fee(to: bank.account(0), amount: 1))
            let many = LedgerDocument(
                transactions: [Transaction](repeating: one, count: 50_001), supply: 140)
            try bank.forge(String(decoding: many.bytes, as: UTF8.self))
        },
        Case(5, "kind \"gift\"", changing: "\"kind\":\"transfer\"", to: "\"kind\":\"gift\""),
        Case(6, "\"amount\" \"-10\"", changing: "\"amount\":\"10\"", to: "\"amount\":\"-10\""),
        Case(6, "\"amount\" \"010\"", changing: "\"amount\":\"10\"", to: "\"amount\":\"010\""),
        Case(6, "\"amount\"", changing: "\"amount\":\"10\"", to: "\"amount\":10"),
        Case(
            6, "\"fee\" \"9223372036854775808\"", changing: "\"fee\":\"0\"",
            to: "\"fee\":\"9223372036854775808\""),
        Case(6, "\"nonce\" \"0.5\"", changing: "\"nonce\":\"0\"", to: "\"nonce\":\"0.5\""),
        Case(6, "\"supply\" \"-140\"", changing: "\"supply\":\"140\"", to: "\"supply\":\"-140\""),
        Case(7, "amount 0", changing: "\"amount\":\"10\"", to: "\"amount\":\"0\""),
        Case(8, "compressed public key", changing: "\"from\":\"0", to: "\"from\":\"1"),
        Case(8, "compressed public key", changing: "\"to\":\"0", to: "\"to\":\"00"),
        books(8, "no public key") { bank in
            // No point of the curve has this x coordinate.
            let hex = "02" + String(repeating: "f", count: 64)
            let nobody = try #require(Account(hex))
            return try [.transfer(bank.transfer(0, nobody, 1, nonce: 0))]
        },
        Case(9, "128 lower-case hex", changing: "\"signature\":\"", to: "\"signature\":\"00"),
        Case(9, "not signed by account", changing: "\"amount\":\"10\"", to: "\"amount\":\"11\""),
        books(9, "not signed by account") { bank in
            let mine = try bank.transfer(1, bank.account(2), 10, nonce: 0)
            // Somebody else's money.
            return [
                .transfer(
                    Transfer(
                        from: bank.account(0), to: mine.to, amount: 10, fee: 0, nonce: 0,
                        signature: mine.signature))
            ]
        },
        books(9, "on this network") { bank in
            [
                .transfer(
                    try Transfer(
                        signedBy: bank.keys[0], to: bank.account(1), amount: 1, nonce: 0,
                        genesis: .zero))
            ]
        },
        Case(10, "neither a block nor a verdict") { bank in
            let document = LedgerDocument(
                transactions: [
                    .reward(
                        Reward(
                            to: bank.account(0), amount: 1, vesting: 0,
                            reason: Reason(blocks: [], verdict: nil, policy: bank.policy)))
                ], supply: 141)
            try bank.forge(String(decoding: document.bytes, as: UTF8.self), type: "reward")
        },
        Case(10, "list of different hashes") { bank in
            let reason = Reason(
                blocks: [bank.genesis, bank.genesis], verdict: nil, policy: bank.policy)
            let document = LedgerDocument(
                transactions: [
                    .reward(Reward(to: bank.account(0), amount: 1, vesting: 0, reason: reason))
                ], supply: 141)
            try bank.forge(
                String(decoding: document.bytes, as: UTF8.self), type: "reward",
                dependsOn: document.dependencies)
        },
        Case(10, "name of 0 bytes", changing: "\"name\":\"flat\"", to: "\"name\":\"\"") {
            [$0.reward(0, 1)]
        },
        Case(10, "no hash", changing: "\"library\":\"0", to: "\"library\":\"") {
            [$0.reward(0, 1)]
        },
        Case(11, "at most 10000000", changing: "\"vesting\":0", to: "\"vesting\":10000001") {
            [$0.reward(0, 1)]
        },
        Case(11, "an integer from 0", changing: "\"vesting\":0", to: "\"vesting\":-1") {
            [$0.reward(0, 1)]
        },
    ]

    static let rules: [Case] = [
        books(12, "expected 0") { try [.transfer($0.transfer(0, $0.account(1), 1, nonce: 1))] },
        books(12, "double spend") {
            try [
                .transfer($0.transfer(0, $0.account(1), 1, nonce: 0)),
                .transfer($0.transfer(0, $0.account(2), 1, nonce: 0)),
            ]
        },
        books(13, "has nothing") { try [.transfer($0.transfer(1, $0.account(0), 1, nonce: 0))] },
        // 100 at once, 10 of 40 vested.
        books(13, "can spend 0.00011 BLY") {
            try [.transfer($0.transfer(0, $0.account(1), 110, fee: 1, nonce: 0))]
        },
        books(14, "pays itself") { try [.transfer($0.transfer(0, $0.account(0), 1, nonce: 0))] },
        books(15, "together exceed") {
            try [.transfer($0.transfer(0, $0.account(1), .max, fee: 1, nonce: 0))]
        },
        books(15, "beyond 9223372036854775807", supply: .max) { [$0.reward(0, .max)] },
        books(16, "that has not vested", supply: 100) { [clawback($0, 40, transaction: 0)] },
        books(16, "that has not vested", supply: 100) { [clawback($0, 30, from: 1)] },
        books(16, "30 have not vested", supply: 109) { [clawback($0, 31)] },
        books(16, "that has not vested", supply: 80) { [clawback($0, 30), clawback($0, 30)] },
        books(16, "that has not vested", supply: 140) {
            [$0.reward(0, 8, vesting: 4), clawback($0, 8, block: 1, transaction: 0)]
        },
        books(17, "no last transaction gives them") {
            try [.transfer($0.transfer(0, $0.account(1), 1, fee: 2, nonce: 0))]
        },
        books(17, "expected the block's signer") {
            try [
                .transfer($0.transfer(0, $0.account(1), 1, fee: 2, nonce: 0)),
                .fee(Fee(to: $0.account(2), amount: 2)),
            ]
        },
        books(17, "transfers paid 2") {
            try [
                .transfer($0.transfer(0, $0.account(1), 1, fee: 2, nonce: 0)),
                .fee(Fee(to: Account($0.key), amount: 3)),
            ]
        },
        books(17, "transfers paid 0") { [.fee(Fee(to: Account($0.key), amount: 3))] },
        books(17, "which come last") {
            try [
                .transfer($0.transfer(0, $0.account(1), 1, fee: 2, nonce: 0)),
                .fee(Fee(to: Account($0.key), amount: 2)),
                .transfer($0.transfer(0, $0.account(1), 1, nonce: 1)),
            ]
        },
        books(18, "states a total supply of 141", supply: 141) {
            try [.transfer($0.transfer(0, $0.account(1), 1, nonce: 0))]
        },
        books(18, "its transactions give 150", supply: 140) { [$0.reward(0, 10)] },
        Case(19, "make it a transfer block") { bank in
            let document = LedgerDocument(
                transactions: [.transfer(try bank.transfer(0, bank.account(1), 1, nonce: 0))],
                supply: 140)
            try bank.forge(String(decoding: document.bytes, as: UTF8.self), type: "reward")
        },
        Case(20, "reasons name 1") { bank in
            let document = LedgerDocument(transactions: [bank.reward(0, 1)], supply: 141)
            try bank.forge(String(decoding: document.bytes, as: UTF8.self), type: "reward")
        },
    ]

    private func setUp() throws -> Bank {
        let bank = try Bank()
        try bank.append(bank.reward(0, 100), bank.reward(0, 40, vesting: 4))
        return bank
    }

    @Test(arguments: documents + rules) func aBlockIsRefused(_ refusal: Case) throws {
        let bank = try setUp()
        try refusal.make(bank)
        let blocks = bank.ledger.verify().failures
        try #require(blocks.count == 1)
        #expect(blocks[0].reason.contains(refusal.words), "\(blocks[0].reason)")
        #expect(blocks[0].block == bank.store.next(on: "C").previous?.description)
        #expect(blocks[0].reason.contains("number 1 of chain C"), "\(blocks[0].reason)")
        // The chain's own links are whole: only the ledger knows.
        #expect(try bank.store.verify().failures.isEmpty)
        // Nothing builds on it, neither now nor after a restart; the home opens all the same.
        for _ in 0..<2 {
            let error = #expect(throws: KernelError.self) {
                try bank.ledger.append([bank.reward(1, 1)], key: bank.key, time: 1)
            }
            #expect(error?.message.contains(refusal.words) == true, "\(error?.message ?? "")")
            try bank.reopen()
            let fault = bank.ledger.fault?.message ?? "no fault"
            #expect(fault.contains(refusal.words), "\(fault)")
            #expect(throws: KernelError.self) { try bank.ledger.balance(of: bank.account(0)) }
        }
        // From the log alone, without index and balances.
        bank.close()
        let audit = LedgerAudit()
        let log = try ChainStore(reading: bank.home, specs: [.a, .b, audit.spec])
        let failures = try log.verify().failures
        #expect(failures.map(\.block) == blocks.map(\.block))
        // A document that was changed into other JSON is named by both, in other words.
        if refusal.rule != 1 {
            #expect(failures[0].reason.contains(refusal.words), "\(failures[0].reason)")
        }
    }

    /// The page's numbers all have a test here, or in the kernel's tests for the last.
    @Test func everyNumberOfThePageIsTested() throws {
        let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/BlyanLedger/LEDGER.md").standardized
        let text = try String(contentsOf: page, encoding: .utf8)
        let part = try #require(text.components(separatedBy: "## What a reader refuses").last)
        let section = part.components(separatedBy: "\n## ")[0]
        let numbers = section.split(separator: "\n").compactMap { line in
            line.firstMatch(of: #/^(\d+)\. /#).flatMap { Int($0.output.1) }
        }
        #expect(numbers == Array(1...22))
        #expect(Set((Self.documents + Self.rules).map(\.rule)).union([21, 22]) == Set(numbers))
    }

    /// Rule 21.
    @Test func tooManyOpenRewardsAreRefused() throws {
        let bank = try Bank()
        try bank.ledger.append(
            [Transaction](
                repeating: bank.reward(0, 1, vesting: 9), count: AccountState.grantLimit),
            key: bank.key, time: 1)
        let error = #expect(throws: KernelError.self) {
            try bank.append(bank.reward(0, 1, vesting: 9))
        }
        #expect(error?.code == .limit && error?.message.contains("16384") == true)
        // What vests at once is no open reward.
        try bank.append(bank.reward(0, 1))
    }

    /// Rule 22: what the chain itself refuses.
    @Test func theChainRefusesStrangersAndWrongPlaces() throws {
        let bank = try setUp()
        var header = BlockHeader(
            chainID: "C", blockType: "usage", index: 1, previous: bank.store.next(on: "C").previous,
            timestamp: 1)
        for (key, index, type, words) in [
            (bank.keys[0], 1, "usage", "no validator"), (bank.key, 2, "usage", "expected 1"),
            (bank.key, 1, "gift", "expected reward, transfer, usage"),
        ] {
            (header.index, header.blockType) = (Int64(index), type)
            let block = try Block(signing: header, with: key)
            let error = #expect(throws: KernelError.self) { try bank.store.append([block]) }
            #expect(error?.message.contains(words) == true)
        }
    }

    /// What the ledger is asked to write it refuses by the same rules.
    @Test func theWriterRefusesWhatTheReaderWould() throws {
        let bank = try setUp()
        let nothing = Reason(blocks: [], verdict: nil, policy: bank.policy)
        let nobody = try #require(Account("02" + String(repeating: "f", count: 64)))
        for (transaction, words) in [
            (bank.reward(0, 0), "amount 0"), (bank.reward(0, -5), "\"amount\""),
            (bank.reward(0, 1, vesting: -1), "vesting"),
            (
                .reward(Reward(to: bank.account(0), amount: 1, vesting: 0, reason: nothing)),
                "neither"
            ),
            (.reward(Reward(to: nobody, amount: 1, vesting: 0, reason: bank.reason)), "public key"),
            (.transfer(try bank.transfer(0, bank.account(1), -5)), "above 0"),
            (.transfer(try bank.transfer(0, bank.account(1), 5, fee: -5)), "0 or more"),
            (.transfer(try bank.transfer(0, bank.account(1), .max, fee: .max)), "exceed"),
            (Self.clawback(bank, 0, transaction: 7), "transaction 7 in block 0"),
        ] as [(Transaction, String)] {
            let error = #expect(throws: KernelError.self) { try bank.append(transaction) }
            #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
        }
        #expect(throws: KernelError.self) { try bank.ledger.append([], key: bank.key, time: 1) }
        #expect(bank.ledger.position == (height: 1, supply: 140))
        #expect(bank.ledger.verify().failures.isEmpty)
    }
}
