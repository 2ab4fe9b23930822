import BlyanKernel
import Foundation

// Appends blocks with payloads to a home until it is killed, saying on standard output what it is about to do and what
// was acknowledged. Arguments: home, seed. The parent kills it at random moments and looks at what is left.

/// Written with one call each, so that a line is out before the next step begins.
func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(STDOUT_FILENO, bytes, bytes.count)
}

let home = URL(fileURLWithPath: CommandLine.arguments[1])
var state = UInt64(CommandLine.arguments[2]) ?? 1

@MainActor func random(_ below: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int(state >> 33) % below
}

let key = try SigningKey([UInt8](repeating: 7, count: 32))
say("recovering")
let store = try ChainStore(home: home, rebuild: random(8) == 0)
say("opened")
while true {
    var place = store.next(on: "A")
    var batch: [Block] = []
    for _ in 0...random(3) {
        let writer = try store.payloads.makeWriter()
        // Some payloads are equal to earlier ones, some span several leaves.
        let size = [100, 5000, 150_000][random(3)]
        try writer.write([UInt8](repeating: UInt8(random(7)), count: size + random(2)))
        var header = BlockHeader(
            chainID: "A", blockType: place.index == 0 ? "genesis" : "policy", index: place.index,
            previous: place.previous, timestamp: Int64(state % 1_000_000_007))
        try writer.finish().describe(in: &header, type: "raw")
        let block = try Block(signing: header, with: key)
        place = (place.index + 1, block.hash)
        batch.append(block)
    }
    let names = batch.map(\.hash.description).joined(separator: " ")
    say("try \(names)")
    try store.append(batch)
    say("done \(names)")
}
