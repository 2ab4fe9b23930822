import BlyanKernel
import BlyanModel
import Foundation

/// Routes rows of one request from position `from` on.
@discardableResult
func route(
    _ router: RouterPlugin, _ request: RouterPlugin.Request, layer: Int, _ logits: [Float],
    from: UInt64 = 0
) throws -> RouterPlugin.Choice {
    let rows = logits.count / request.experts
    return try unsafe logits.withUnsafeBufferPointer {
        try unsafe router.route(
            layer: layer, logits: $0, requests: Array(repeating: request, count: rows),
            positions: (0..<UInt64(rows)).map { from + $0 })
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
