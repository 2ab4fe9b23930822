import BlyanJSON
import BlyanKernel
import BlyanLedger
import Foundation
import Testing

/// The books as plain dictionaries, written apart from the ledger's own code.
struct PlainBooks {
    struct Grant {
        let owner: Int, block: Int, position: Int, since: Int, amount: Int, vesting: Int
        var isGone = false
    }
    var total: [Int]
    var nonce: [Int]
    var grants: [Grant] = []
    var issued = 0
    var height = 0
    /// Usage and reward blocks among them.
    var clock = 0

    init(people: Int) {
        total = [Int](repeating: 0, count: people)
        nonce = total
    }

    func locked(_ grant: Grant) -> Int {
        guard !grant.isGone, clock - grant.since < grant.vesting else { return 0 }
        return grant.amount - grant.amount * (clock - grant.since) / grant.vesting
    }

    func spendable(_ person: Int) -> Int {
        total[person] - grants.filter { $0.owner == person }.map { locked($0) }.reduce(0, +)
    }

    /// Whether it was possible; if so it has happened.
    mutating func transfer(_ from: Int, _ to: Int, _ amount: Int, _ fee: Int, _ number: Int) -> Bool
    {
        guard from != to, amount > 0, number == nonce[from], spendable(from) >= amount + fee
        else { return false }
        total[from] -= amount + fee
        total[to] += amount
        nonce[from] += 1
        return true
    }
}

/// Random work, compared after each block with a plain model, and with a replay bit for bit.
@Suite struct ModelTests {
    static let people = 6

    @Test(arguments: [1, 2, 4, 5] as [UInt64]) func randomWorkIsAsInThePlainBooks(seed: UInt64)
        throws
    {
        // The validator is the last person: fees come to it.
        let bank = try Bank(people: Self.people)
        let validator = Self.people
        let accounts = bank.keys.map { Account($0) } + [Account(bank.key)]
        let keys = bank.keys + [bank.key]
        var plain = PlainBooks(people: Self.people + 1)
        var random = SeededRandom(state: seed)
        var refusals = 0, clawbacks = 0
        for round in 0..<120 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<3:
                var rewards: [Transaction] = []
                for position in 0..<Int.random(in: 1...3, using: &random) {
                    let to = Int.random(in: 0...validator, using: &random)
                    let amount = Int.random(in: 1...1000, using: &random)
                    let vesting = Int.random(in: 0...6, using: &random)
                    rewards.append(
                        .reward(
                            Reward(
                                to: accounts[to], amount: Int64(amount), vesting: Int64(vesting),
                                reason: bank.reason)))
                    plain.total[to] += amount
                    plain.issued += amount
                    plain.grants.append(
                        .init(
                            owner: to, block: plain.height, position: position, since: plain.clock,
                            amount: amount, vesting: vesting))
                }
                try bank.ledger.append(rewards, key: bank.key, time: Int64(round))
                (plain.height, plain.clock) = (plain.height + 1, plain.clock + 1)
            case 3:
                guard let i = plain.grants.indices.randomElement(using: &random) else { continue }
                let grant = plain.grants[i]
                let clawback = Transaction.clawback(
                    Clawback(
                        from: accounts[grant.owner], block: Int64(grant.block),
                        transaction: Int64(grant.position), reason: bank.reason))
                let rest = plain.locked(grant)
                if rest > 0 {
                    try bank.ledger.append([clawback], key: bank.key, time: 1)
                    plain.grants[i].isGone = true
                    plain.total[grant.owner] -= rest
                    plain.issued -= rest
                    (plain.height, plain.clock) = (plain.height + 1, plain.clock + 1)
                    clawbacks += 1
                } else {
                    #expect(throws: KernelError.self) {
                        try bank.ledger.append([clawback], key: bank.key, time: 1)
                    }
                }
            case 4:
                try bank.ledger.appendUsage(
                    .object(["calls": .int(Int64(round))]), key: bank.key, time: 1)
                (plain.height, plain.clock) = (plain.height + 1, plain.clock + 1)
            default:
                var transfers: [Transfer] = []
                var expected: [Bool] = []
                var fees = 0
                for _ in 0..<Int.random(in: 1...8, using: &random) {
                    let from = Int.random(in: 0...validator, using: &random)
                    let to = Int.random(in: 0...validator, using: &random)
                    let amount = Int.random(in: 0...400, using: &random)
                    let fee = Int.random(in: 0...3, using: &random)
                    let wrong = Int.random(in: 0..<8, using: &random)
                    let nonce = max(0, plain.nonce[from] + (wrong == 0 ? 1 : wrong == 1 ? -1 : 0))
                    transfers.append(
                        try Transfer(
                            signedBy: keys[from], to: accounts[to], amount: Int64(amount),
                            fee: Int64(fee), nonce: Int64(nonce), genesis: bank.genesis))
                    expected.append(plain.transfer(from, to, amount, fee, nonce))
                    if expected.last == true { fees += fee }
                }
                let results = bank.ledger.submit(transfers, key: bank.key, time: 1)
                #expect(results.map { (try? $0.get()) != nil } == expected)
                plain.total[validator] += fees
                if expected.contains(true) { plain.height += 1 }
                refusals += expected.count { !$0 }
            }
            try compare(bank, accounts, plain)
            if round % 40 == 39 { try replays(bank) }
        }
        #expect(refusals > 20 && clawbacks > 0)
    }

    private func compare(_ bank: Bank, _ accounts: [Account], _ plain: PlainBooks) throws {
        for (i, account) in accounts.enumerated() {
            let balance = try bank.ledger.balance(of: account)
            #expect(balance.total == plain.total[i])
            #expect(balance.spendable == plain.spendable(i))
            #expect(balance.nonce == plain.nonce[i])
            #expect(balance.total >= 0 && balance.spendable >= 0)
            let history = try bank.ledger.history(of: account, limit: .max)
            #expect(history.reduce(0) { $0 + $1.change } == balance.total)
        }
        #expect(bank.ledger.position == (Int64(plain.height), Int64(plain.issued)))
        #expect(plain.total.reduce(0, +) == plain.issued)
    }

    /// Whatever way the balances come about, they are the same bytes.
    private func replays(_ bank: Bank) throws {
        let grown = try bank.ledger.dump()
        try #require(grown.count > 10)
        #expect(bank.ledger.verify().failures.map(\.reason).isEmpty)
        try bank.reopen()
        #expect(try bank.ledger.dump() == grown)
        #expect(bank.ledger.repairs.isEmpty)
        try bank.reopen(deleting: true)
        #expect(try bank.ledger.dump() == grown)
        #expect(bank.ledger.verify().failures.map(\.reason).isEmpty)
    }
}
