package import BlyanJSON
package import BlyanKernel

// The document of a block with transactions, as LEDGER.md describes it. The numbers are those of its list of what a
// reader refuses.

/// The payload of a `reward` or `transfer` block.
package struct LedgerDocument: Sendable, Equatable {
    /// The transactions, in the order in which they apply.
    package var transactions: [Transaction]
    /// Micro-BLY that there are after the block.
    package var supply: Int64

    package static let format = "blyan-ledger/1"
    /// Transactions of a block.
    package static let limit = 50_000
    /// Blocks over which a reward may vest.
    package static let vestingLimit: Int64 = 10_000_000

    package init(transactions: [Transaction], supply: Int64) {
        (self.transactions, self.supply) = (transactions, supply)
    }

    /// The block type that its transactions make.
    package var blockType: String {
        let issues = transactions.contains { transaction in
            switch transaction {
            case .reward, .clawback: true
            case .transfer, .fee: false
            }
        }
        return issues ? "reward" : "transfer"
    }

    /// The blocks that its reasons name, once each, in byte order: what the header depends on.
    package var dependencies: [Digest] {
        let named = transactions.flatMap { transaction -> [Digest] in
            switch transaction {
            case .reward(let reward): reward.reason.dependencies
            case .clawback(let clawback): clawback.reason.dependencies
            case .transfer, .fee: []
            }
        }
        return Set(named).sorted()
    }

    /// The canonical form.
    package var bytes: [UInt8] {
        var out = Array(
            "{\"format\":\"\(Self.format)\",\"supply\":\"\(supply)\",\"transactions\":[".utf8)
        out.reserveCapacity(500 * transactions.count)
        for (i, transaction) in transactions.enumerated() {
            if i > 0 { out.append(UInt8(ascii: ",")) }
            if case .transfer(let transfer) = transaction {
                transfer.write(to: &out)
            } else {
                Canonical.write(transaction.document, to: &out)
            }
        }
        out.append(contentsOf: "]}".utf8)
        return out
    }

    /// Reads a payload.
    ///
    /// - Throws: ``KernelError`` with code `malformed` or `limit` naming transaction and field.
    package init(_ bytes: [UInt8]) throws(KernelError) {
        let value = try KernelError.parsing { () throws(JSONError) in
            try JSONValue(canonical: bytes)
        }
        try self.init(value)
    }

    /// Reads a document that is known to be canonical.
    package init(_ value: JSONValue) throws(KernelError) {
        let fields = Fields(value, "the ledger document")
        let format = try fields.text("format")
        guard format == Self.format else {
            throw fields.broken("has format \"\(format)\", expected \"\(Self.format)\"")
        }
        try fields.expect(["format", "supply", "transactions"])
        guard case .array(let items)? = value["transactions"] else {
            throw fields.broken("lacks the list transactions")
        }
        guard !items.isEmpty else { throw fields.broken("holds no transaction") }
        guard items.count <= Self.limit else {
            throw KernelError(
                .limit, "a ledger document holds \(items.count) transactions, at most \(Self.limit)"
            )
        }
        supply = try fields.number("supply")
        transactions = []
        transactions.reserveCapacity(items.count)
        for (i, item) in items.enumerated() {
            transactions.append(try Transaction(Fields(item, "transaction \(i)")))
        }
    }
}

extension Transaction {
    /// The form that a document has.
    var document: JSONValue {
        func text(_ number: Int64) -> JSONValue { .string(String(number)) }
        switch self {
        case .transfer(let transfer):
            return .object([
                "kind": .string(kind), "from": .string(transfer.from.description),
                "to": .string(transfer.to.description), "amount": text(transfer.amount),
                "fee": text(transfer.fee), "nonce": text(transfer.nonce),
                "signature": .string(Hex.encode(transfer.signature)),
            ])
        case .reward(let reward):
            return .object([
                "kind": .string(kind), "to": .string(reward.to.description),
                "amount": text(reward.amount), "vesting": .int(reward.vesting),
                "reason": reward.reason.document,
            ])
        case .clawback(let clawback):
            return .object([
                "kind": .string(kind), "from": .string(clawback.from.description),
                "amount": text(clawback.amount), "block": .int(clawback.block),
                "transaction": .int(clawback.transaction), "reason": clawback.reason.document,
            ])
        case .fee(let fee):
            return .object([
                "kind": .string(kind), "to": .string(fee.to.description),
                "amount": text(fee.amount),
            ])
        }
    }

    /// Reads one that stands alone.
    init(checking value: JSONValue) throws(KernelError) {
        try self.init(Fields(value, "the transaction"))
    }

    fileprivate init(_ fields: Fields) throws(KernelError) {
        let kind = try fields.text("kind")
        switch kind {
        case "transfer":
            try fields.expect(["amount", "fee", "from", "kind", "nonce", "signature", "to"])
            guard let signature = Hex.decode(try fields.text("signature"), count: 64) else {
                throw fields.broken("has a signature that is not 128 lower-case hex digits")
            }
            self = .transfer(
                Transfer(
                    from: try fields.account("from"), to: try fields.account("to"),
                    amount: try fields.amount(), fee: try fields.number("fee"),
                    nonce: try fields.number("nonce"), signature: signature))
        case "reward":
            try fields.expect(["amount", "kind", "reason", "to", "vesting"])
            self = .reward(
                Reward(
                    to: try fields.account("to"), amount: try fields.amount(),
                    vesting: try fields.count("vesting", upTo: LedgerDocument.vestingLimit),
                    reason: try fields.reason()))
        case "clawback":
            try fields.expect(["amount", "block", "from", "kind", "reason", "transaction"])
            self = .clawback(
                Clawback(
                    from: try fields.account("from"), amount: try fields.amount(),
                    block: try fields.count("block", upTo: .max),
                    transaction: try fields.count("transaction", upTo: .max),
                    reason: try fields.reason()))
        case "fee":
            try fields.expect(["amount", "kind", "to"])
            self = .fee(Fee(to: try fields.account("to"), amount: try fields.amount()))
        default:
            throw fields.broken(
                "has kind \"\(kind)\", expected transfer, reward, clawback or fee")
        }
    }
}

extension Reason {
    fileprivate var document: JSONValue {
        .object([
            "blocks": .array(blocks.map { .string($0.description) }),
            "verdict": .string(verdict?.description ?? ""),
            "policy": .object([
                "name": .string(policy.name), "version": .string(policy.version),
                "vectors": .string(policy.vectors.description),
                "library": .string(policy.library.description),
            ]),
        ])
    }
}

/// A document's object and what it is called in errors.
private struct Fields {
    let value: JSONValue
    let name: String

    init(_ value: JSONValue, _ name: String) { (self.value, self.name) = (value, name) }

    func broken(_ what: String) -> KernelError { KernelError(.malformed, "\(name) \(what)") }

    /// That it is an object with these fields and no other.
    func expect(_ keys: Set<String>) throws(KernelError) {
        guard case .object(let members) = value else { throw broken("is no object") }
        if let unknown = members.keys.filter({ !keys.contains($0) }).min() {
            throw broken("has the unknown field \"\(unknown)\"")
        }
        if let missing = keys.filter({ members[$0] == nil }).min() {
            throw broken("lacks the field \"\(missing)\"")
        }
    }

    func text(_ key: String) throws(KernelError) -> String {
        guard let text = value[key]?.string else { throw broken("lacks the text \"\(key)\"") }
        return text
    }

    func number(_ key: String) throws(KernelError) -> Int64 {
        let text = try text(key)
        guard let number = Amount.number(text) else {
            throw broken(
                "has \"\(key)\" \"\(text.prefix(40))\", expected decimal digits from 0 to \(Int64.max) without sign or leading zeros"
            )
        }
        return number
    }

    func amount() throws(KernelError) -> Int64 {
        let amount = try number("amount")
        guard amount > 0 else { throw broken("has amount 0, expected above 0") }
        return amount
    }

    func count(_ key: String, upTo limit: Int64) throws(KernelError) -> Int64 {
        guard let count = value[key]?.int, count >= 0 else {
            throw broken("lacks \"\(key)\" as an integer from 0 on")
        }
        guard count <= limit else {
            throw KernelError(.limit, "\(name) has \"\(key)\" \(count), at most \(limit)")
        }
        return count
    }

    func account(_ key: String) throws(KernelError) -> Account {
        let text = try text(key)
        guard let account = Account(text) else {
            throw broken(
                "has \"\(key)\" \"\(text.prefix(70))\", expected a compressed public key of 66 lower-case hex digits"
            )
        }
        return account
    }

    func digest(_ key: String) throws(KernelError) -> Digest {
        guard let digest = Digest(hex: try text(key)) else {
            throw broken("has \"\(key)\" that is no hash of 64 lower-case hex digits")
        }
        return digest
    }

    func reason() throws(KernelError) -> Reason {
        let reason = Fields(value["reason"] ?? .null, "the reason of \(name)")
        try reason.expect(["blocks", "policy", "verdict"])
        let policy = Fields(reason.value["policy"] ?? .null, "the policy of \(name)")
        try policy.expect(["library", "name", "vectors", "version"])
        let hashes = reason.value["blocks"]?.strings ?? []
        let blocks = hashes.compactMap { Digest(hex: $0) }
        guard reason.value["blocks"]?.strings != nil, blocks.count == hashes.count,
            Set(blocks).count == blocks.count
        else {
            throw reason.broken("has \"blocks\" that are no list of different hashes")
        }
        let verdict = try reason.text("verdict").isEmpty ? nil : reason.digest("verdict")
        guard !blocks.isEmpty || verdict != nil else {
            throw reason.broken("names neither a block nor a verdict that it rests on")
        }
        let name = try policy.text("name")
        guard (1...255).contains(name.utf8.count) else {
            throw policy.broken("has a name of \(name.utf8.count) bytes, expected 1 to 255")
        }
        return Reason(
            blocks: blocks, verdict: verdict,
            policy: Reason.Policy(
                name: name, version: try policy.text("version"),
                vectors: try policy.digest("vectors"), library: try policy.digest("library")))
    }
}
