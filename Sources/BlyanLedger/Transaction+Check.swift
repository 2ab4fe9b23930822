internal import Foundation
package import BlyanKernel
internal import Synchronization

extension Transaction {
    /// Transactions that one step of a thread checks.
    private static let piece = 64

    /// What is wrong with transactions by themselves: keys that are none, signatures that are not their account's, in
    /// order of position.
    ///
    /// On all cores.
    package static func check(_ transactions: [Transaction], genesis: Digest) -> [(
        position: Int, error: KernelError
    )] {
        let found = Mutex<[(position: Int, error: KernelError)]>([])
        let pieces = (transactions.count + piece - 1) / piece
        DispatchQueue.concurrentPerform(iterations: pieces) { step in
            for i in step * piece..<min(transactions.count, (step + 1) * piece) {
                if let error = transactions[i].fault(genesis) {
                    found.withLock { $0.append((i, error)) }
                }
            }
        }
        return found.withLock { $0 }.sorted { $0.position < $1.position }
    }

    private func fault(_ genesis: Digest) -> KernelError? {
        func unknown(_ account: Account) -> KernelError {
            KernelError(
                .rule, "\(account) is no public key: nobody could spend what it gets",
                hint: "ask for the account again: `blyan wallet list` shows one's own")
        }
        switch self {
        case .transfer(let it):
            let digest = it.digest(genesis: genesis)
            guard
                Signature.isValid(it.signature, over: digest, publicKey: it.from.description)
            else {
                return KernelError(
                    .integrity,
                    "the transfer with nonce \(it.nonce) is not signed by account \(it.from) on this network",
                    hint: "sign it with that account's key and this network's genesis hash")
            }
            return it.to.isKey ? nil : unknown(it.to)
        case .reward(let it):
            if let error = formFault { return error }
            return it.to.isKey ? nil : unknown(it.to)
        case .clawback(let it) where it.amount == 0:
            // To be filled in.
            let draft = Clawback(
                from: it.from, amount: 1, block: it.block, transaction: it.transaction,
                reason: it.reason)
            return Transaction.clawback(draft).formFault
        case .clawback, .fee: return formFault
        }
    }

    /// What a reader would refuse of the form that it gets in a document.
    private var formFault: KernelError? {
        do throws(KernelError) {
            _ = try Transaction(checking: document)
            return nil
        } catch {
            return error
        }
    }
}
