internal import BlyanKernel

/// What one version did for one payer, or for the node itself.
public struct UsageCounts: Sendable, Equatable {
    /// Requests that it served.
    public var calls: Int64 = 0
    /// Tokens that it served.
    public var tokens: Int64 = 0
    /// How long the steps in which it served took, microseconds.
    public var microseconds: Int64 = 0
    /// Steps in which it was wanted.
    public var steps: Int64 = 0
    /// Times that it had to be mapped for one.
    public var loads: Int64 = 0
    /// When it was used last, UTC milliseconds.
    public var lastUse: Int64 = 0
    /// Of the calls and microseconds, those that stand in no usage block yet.
    public var openCalls: Int64 = 0, openMicroseconds: Int64 = 0

    /// No use.
    public init() {}

    /// Steps, in millionths, for which it was mapped already; nil before the first.
    public var hitRate: Int64? {
        steps > 0 ? (steps - min(loads, steps)) * 1_000_000 / steps : nil
    }

    /// Adds what came later; what does not fit stays at the largest number.
    mutating func add(_ other: UsageCounts) {
        func sum(_ a: Int64, _ b: Int64) -> Int64 {
            let (sum, overflow) = a.addingReportingOverflow(b)
            return overflow ? .max : sum
        }
        calls = sum(calls, other.calls)
        tokens = sum(tokens, other.tokens)
        microseconds = sum(microseconds, other.microseconds)
        steps = sum(steps, other.steps)
        loads = sum(loads, other.loads)
        lastUse = max(lastUse, other.lastUse)
        openCalls = sum(openCalls, other.openCalls)
        openMicroseconds = sum(openMicroseconds, other.openMicroseconds)
    }

    /// Adds what another payer's line has, for a version as a whole.
    public static func + (a: UsageCounts, b: UsageCounts) -> UsageCounts {
        var sum = a
        sum.add(b)
        return sum
    }

    /// 8 numbers of 8 bytes, big-endian.
    var bytes: [UInt8] {
        [calls, tokens, microseconds, steps, loads, lastUse, openCalls, openMicroseconds].flatMap {
            number in
            stride(from: 56, through: 0, by: -8).map {
                UInt8(truncatingIfNeeded: number >> Int64($0))
            }
        }
    }

    /// Reads ``bytes``; nil for anything else.
    init?(_ bytes: [UInt8]) {
        guard bytes.count == 64 else { return nil }
        let numbers = stride(from: 0, to: 64, by: 8).map { start in
            Int64(
                bitPattern: bytes[start..<start + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        }
        guard numbers.allSatisfy({ $0 >= 0 }) else { return nil }
        (calls, tokens, microseconds) = (numbers[0], numbers[1], numbers[2])
        (steps, loads, lastUse) = (numbers[3], numbers[4], numbers[5])
        (openCalls, openMicroseconds) = (numbers[6], numbers[7])
    }
}
