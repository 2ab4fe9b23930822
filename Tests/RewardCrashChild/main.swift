import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation

// Submits candidates of a home's model and judges them until it is killed, saying on standard output what stands.
// Argument: home. The parent kills it at random moments and looks whether verdict, version and reward belong together.

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(STDOUT_FILENO, bytes, bytes.count)
}

let home = URL(fileURLWithPath: CommandLine.arguments[1])
let secret = KeyFile(home: home).passphrase ?? []
let node = try Node(home: home, threads: 1, passphrase: { secret }, log: { say($0) })
let judge = try node.judge()
say("opened")
while let judgement = try judge.judgeNext() { say("done \(judgement.candidate.hash)") }
let part = "layer0.expert0"
var number = 0
while true {
    number += 1
    let model = try node.model(nil)
    guard let current = model.model.parts[part], let block = try node.store.block(current) else {
        fatalError("the parent imported a model")
    }
    let values = try model.decode(part)
    let tensors = try model.open(block).tensors.map { tensor in
        ExpertFile.Tensor(
            name: tensor.name, rows: tensor.rows, columns: tensor.columns,
            values: (values[tensor.name]?.array(0..<tensor.rows * tensor.columns) ?? []).map {
                $0 * (number.isMultiple(of: 2) ? 1.01 : 0.99)
            })
    }
    let candidate = try Contribution(to: model, store: node.store, plugins: node.plugins).block(
        part, tensors, key: node.signingKey(), bits: 12,
        now: Int64(Date().timeIntervalSince1970 * 1000))
    try judge.submit(candidate)
    if let judgement = try judge.judgeNext() { say("done \(judgement.candidate.hash)") }
}
