internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

extension Console {
    /// One JSON value, keys sorted and in snake case.
    func json(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return try String(decoding: encoder.encode(value), as: UTF8.self)
    }

    /// One JSON value on a line of its own.
    func printJSON(_ value: some Encodable) throws { try print(json(value)) }

    /// Rows with columns as wide as their widest cell; the first row is the heading.
    func printTable(_ rows: [[String]]) throws {
        guard let first = rows.first else { return }
        let widths = first.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        for row in rows {
            let cells = row.enumerated().map { column, cell in
                column == row.count - 1
                    ? cell : cell.padding(toLength: widths[column], withPad: " ", startingAt: 0)
            }
            try print(cells.joined(separator: "  "))
        }
    }
}

/// The bytes of a person's text, all of which must be text.
func readText(_ path: String, _ console: Console) throws -> [UInt8] {
    let bytes = try console.read(path)
    var (decoder, rest, offset) = (UTF8(), bytes.makeIterator(), 0)
    while true {
        switch decoder.decode(&rest) {
        case .scalarValue(let scalar): offset += UTF8.width(scalar)
        case .emptyInput: return bytes
        case .error:
            throw KernelError(
                .malformed, "\(path) is not UTF-8 text: byte \(offset) belongs to no character",
                hint: "convert it, for instance with iconv -t UTF-8")
        }
    }
}

/// UTC milliseconds.
func now() -> Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

/// The time in UTC, as a log line begins with it.
func timestamp() -> String { ISO8601DateFormatter().string(from: Date()) }

extension Double {
    /// With so many digits after the point.
    func formatted(_ digits: Int) -> String { String(format: "%.\(digits)f", self) }
}

extension Int {
    /// So many of a thing.
    func of(_ thing: String) -> String { "\(self) \(thing)\(self == 1 ? "" : "s")" }

    /// As a person reads a size.
    var asBytes: String {
        switch self {
        case ..<(1 << 10): "\(self) B"
        case ..<(1 << 20): "\((Double(self) / 1024).formatted(1)) KiB"
        case ..<(1 << 30): "\((Double(self) / 1_048_576).formatted(1)) MiB"
        default: "\((Double(self) / 1_073_741_824).formatted(2)) GiB"
        }
    }
}

// Unchecked: `lock` guards when it was drawn last.
/// A bar that is redrawn in place at most ten times a second; nothing when nobody watches a terminal.
///
/// Any thread.
final class ProgressBar: @unchecked Sendable {
    private let lock = NSLock()
    private let console: Console
    private let clock = ContinuousClock()
    private let start: ContinuousClock.Instant
    private var drawn: ContinuousClock.Instant?

    init(_ console: Console) {
        self.console = console
        start = clock.now
    }

    /// Shows how far it is: by bytes if all of them are known, else by pieces.
    func update(_ done: Int, of all: Int, bytes: Int, allBytes: Int = 0, label: String) {
        guard isDue(done, all) else { return }
        let seconds = max((clock.now - start).seconds, 1e-6)
        let fraction =
            allBytes > 0 ? Double(bytes) / Double(allBytes) : Double(done) / Double(all)
        let left = Int((seconds / max(fraction, 1e-6) * (1 - fraction)).rounded())
        let rate = Int(Double(bytes) / seconds).asBytes
        draw(fraction, "\(done)/\(all)  \(rate)/s  \(left) s left  \(label)")
    }

    /// Shows how far it is, with words of the caller's.
    func update(_ done: Int, of all: Int, _ words: String) {
        guard isDue(done, all) else { return }
        draw(Double(done) / Double(all), "\(done)/\(all)  \(words)")
    }

    private func isDue(_ done: Int, _ all: Int) -> Bool {
        guard console.isTerminal, all > 0 else { return false }
        return lock.withLock {
            let now = clock.now
            if let drawn, now - drawn < .milliseconds(100), done < all { return false }
            drawn = now
            return true
        }
    }

    private func draw(_ fraction: Double, _ words: String) {
        let filled = Int(fraction * 24)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 24 - filled)
        console.note("\r\u{1B}[K\(bar) \(words)", terminator: "")
    }

    func end() {
        if lock.withLock({ drawn != nil }) { console.note("\r\u{1B}[K", terminator: "") }
    }
}
