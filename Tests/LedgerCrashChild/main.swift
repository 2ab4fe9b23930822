import BlyanKernel
import BlyanLedger
import Foundation

// Pays rewards and transfers in a home until it is killed, saying on standard output which block stands. Argument: home.
// The parent kills it at random moments and compares the balances with a replay.

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(STDOUT_FILENO, bytes, bytes.count)
}

let home = URL(fileURLWithPath: CommandLine.arguments[1])
let key = try SigningKey([UInt8](repeating: 7, count: 32))
let store = try ChainStore(home: home, specs: [.a, .b, .c])
let ledger = Ledger(store: store, home: home)
if let fault = ledger.fault { throw fault }
say("opened")
guard let genesis = store.genesis else { fatalError("the parent made a genesis block") }
let reason = Reason(
    blocks: [genesis], verdict: nil,
    policy: Reason.Policy(name: "test", version: "1.0.0", vectors: .zero, library: .zero))
let other = Account(try SigningKey([UInt8](repeating: 9, count: 32)))
while true {
    let height = ledger.position.height
    let reward = Transaction.reward(
        Reward(to: Account(key), amount: 1000 + height, vesting: height % 4, reason: reason))
    say("done \(try ledger.append([reward], key: key, time: height).hash)")
    let transfer = try Transfer(
        signedBy: key, to: other, amount: 3, fee: 1, nonce: ledger.balance(of: Account(key)).nonce,
        genesis: genesis)
    for result in ledger.submit([transfer], key: key, time: height) {
        say("done \(try result.get().block)")
    }
}
