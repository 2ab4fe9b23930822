public import BlyanKernel

/// One step of the books; LEDGER.md has its form in a document.
public enum Transaction: Sendable, Equatable {
    /// One account pays another.
    case transfer(Transfer)
    /// New money for work that a verdict or blocks prove.
    case reward(Reward)
    /// What has not vested of a reward goes back.
    case clawback(Clawback)
    /// The fees of a block's transfers go to its signer; made by the ledger itself.
    case fee(Fee)

    /// The kind's name in documents and histories.
    public var kind: String {
        switch self {
        case .transfer: "transfer"
        case .reward: "reward"
        case .clawback: "clawback"
        case .fee: "fee"
        }
    }
}

/// A payment, signed by the account that pays.
public struct Transfer: Sendable, Equatable {
    /// Who pays, and signs.
    public let from: Account
    /// Who is paid.
    public let to: Account
    /// Micro-BLY for `to`, above 0.
    public let amount: Int64
    /// Micro-BLY for the signer of the block, from 0 on.
    public let fee: Int64
    /// The number of transfers that `from` has made before this one.
    public let nonce: Int64
    /// ECDSA over ``digest(genesis:)``, r‖s, 64 bytes.
    public let signature: [UInt8]

    package init(
        from: Account, to: Account, amount: Int64, fee: Int64, nonce: Int64, signature: [UInt8]
    ) {
        (self.from, self.to, self.amount) = (from, to, amount)
        (self.fee, self.nonce, self.signature) = (fee, nonce, signature)
    }

    /// A signed transfer on the network of a genesis block.
    ///
    /// - Parameters:
    ///   - amount: micro-BLY.
    ///   - fee: micro-BLY.
    ///   - nonce: ``Ledger/Balance/nonce`` of the key's account.
    /// - Throws: ``KernelError`` with code `key` if it cannot be signed.
    public init(
        signedBy key: SigningKey, to: Account, amount: Int64, fee: Int64 = 0, nonce: Int64,
        genesis: Digest
    ) throws(KernelError) {
        let draft = Transfer(
            from: Account(key), to: to, amount: amount, fee: fee, nonce: nonce, signature: [])
        self.init(
            from: draft.from, to: to, amount: amount, fee: fee, nonce: nonce,
            signature: try key.sign(draft.digest(genesis: genesis)))
    }

    /// The statement's body in canonical form; keys stand in canonical order here.
    private func write(to out: inout [UInt8], whole: Bool) {
        func field(_ name: StaticString) {
            unsafe out.append(
                contentsOf: UnsafeBufferPointer(
                    start: name.utf8Start, count: name.utf8CodeUnitCount))
        }
        func number(_ name: StaticString, _ value: Int64) {
            field(name)
            out.append(contentsOf: String(value).utf8)
        }
        func hex(_ name: StaticString, _ bytes: [UInt8]) {
            field(name)
            Account.appendHex(bytes, to: &out)
        }
        number("{\"amount\":\"", amount)
        number("\",\"fee\":\"", fee)
        hex("\",\"from\":\"", from.bytes)
        if whole { field("\",\"kind\":\"transfer") }
        number("\",\"nonce\":\"", nonce)
        if whole { hex("\",\"signature\":\"", signature) }
        hex("\",\"to\":\"", to.bytes)
        out.append(contentsOf: [UInt8(ascii: "\""), UInt8(ascii: "}")])
    }

    /// What is signed: the digest of the statement `transfer`, SHA-256("blyan/transfer/1\n" ‖ genesis hash ‖ JCS).
    public func digest(genesis: Digest) -> Digest {
        var out = Array("blyan/transfer/1\n".utf8) + genesis.bytes
        write(to: &out, whole: false)
        return SHA256.hash(out)
    }

    /// Appends the form that a document has.
    func write(to out: inout [UInt8]) { write(to: &out, whole: true) }
}

/// What a reward or clawback rests on, so that an auditor can recompute it.
public struct Reason: Sendable, Equatable {
    /// The policy that computed the amount.
    public struct Policy: Sendable, Equatable {
        /// Its name.
        public let name: String
        /// Its version, SemVer.
        public let version: String
        /// The hash of its published test vectors: what identifies it.
        public let vectors: Digest
        /// The hash of the library that computed, as evidence.
        public let library: Digest

        /// Makes one.
        public init(name: String, version: String, vectors: Digest, library: Digest) {
            (self.name, self.version) = (name, version)
            (self.vectors, self.library) = (vectors, library)
        }
    }

    /// Blocks that the amount follows from: usage, experts, versions; on any chain.
    public let blocks: [Digest]
    /// The verdict that it rests on, or nil.
    public let verdict: Digest?
    /// The policy.
    public let policy: Policy

    /// Makes a reason; it names at least one block or a verdict.
    public init(blocks: [Digest], verdict: Digest?, policy: Policy) {
        (self.blocks, self.verdict, self.policy) = (blocks, verdict, policy)
    }

    /// All blocks that it names.
    var dependencies: [Digest] { blocks + (verdict.map { [$0] } ?? []) }
}

/// New money.
public struct Reward: Sendable, Equatable {
    /// Who is paid.
    public let to: Account
    /// Micro-BLY, above 0.
    public let amount: Int64
    /// Usage and reward blocks over which it vests in equal steps; 0: all of it is spendable from the next transaction on.
    public let vesting: Int64
    /// What it rests on.
    public let reason: Reason

    /// Makes one.
    public init(to: Account, amount: Int64, vesting: Int64, reason: Reason) {
        (self.to, self.amount, self.vesting, self.reason) = (to, amount, vesting, reason)
    }
}

/// What has not vested of a reward is taken back.
public struct Clawback: Sendable, Equatable {
    /// Who got the reward.
    public let from: Account
    /// The rest that has not vested in the block that this stands in, micro-BLY.
    ///
    /// 0 asks the ledger to fill it in.
    public let amount: Int64
    /// The index on chain C of the block that has the reward.
    public let block: Int64
    /// The reward's position among that block's transactions.
    public let transaction: Int64
    /// What it rests on.
    public let reason: Reason

    /// Takes back whatever has not vested when the block is made.
    public init(from: Account, block: Int64, transaction: Int64, reason: Reason) {
        self.init(from: from, amount: 0, block: block, transaction: transaction, reason: reason)
    }

    package init(
        from: Account, amount: Int64, block: Int64, transaction: Int64, reason: Reason
    ) {
        (self.from, self.amount, self.block) = (from, amount, block)
        (self.transaction, self.reason) = (transaction, reason)
    }
}

/// The fees of a block's transfers.
public struct Fee: Sendable, Equatable {
    /// The signer of the block.
    public let to: Account
    /// The sum of the fees, micro-BLY.
    public let amount: Int64

    package init(to: Account, amount: Int64) { (self.to, self.amount) = (to, amount) }
}
