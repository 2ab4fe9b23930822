internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
package import Foundation

/// In which order a miner that runs on and on trains the experts of a model.
///
/// Either way each expert has its turn once a round.
package enum WorkOrder: String, CaseIterable, Sendable {
    /// As the model has them: layer by layer, number by number.
    case roundRobin = "round-robin"
    /// Those that serve most first: a gain there reaches most answers.
    case hotPath = "hot-path"

    /// What an expert did so far, all its versions together.
    package struct Use: Comparable, Sendable {
        /// Requests that it served.
        package let calls: Int64
        /// Tokens that it served.
        package let tokens: Int64

        package init(calls: Int64, tokens: Int64) {
            self.calls = calls
            self.tokens = tokens
        }

        package static func < (a: Use, b: Use) -> Bool {
            (a.calls, a.tokens) < (b.calls, b.tokens)
        }
    }

    /// Experts in the order of their turns.
    ///
    /// - Parameters:
    ///   - experts: as the model has them, which also decides between equals.
    ///   - uses: of those that were ever used; all others come last.
    package func sorted(_ experts: [String], uses: [String: Use]) -> [String] {
        guard self == .hotPath else { return experts }
        let none = Use(calls: 0, tokens: 0)
        return experts.enumerated().sorted { a, b in
            let (one, other) = (uses[a.element] ?? none, uses[b.element] ?? none)
            return one == other ? a.offset < b.offset : one > other
        }.map(\.element)
    }
}

/// Where a miner is in its round over the experts of a model, durable in a file of its own.
package struct MiningRound: Equatable, Sendable {
    /// Rounds that came to their end.
    package private(set) var number: Int64 = 0
    /// Experts that had their turn in this round.
    package private(set) var taken: Set<String> = []
    /// The expert whose turn it is; a miner that was stopped goes on with it.
    package private(set) var current: String?

    private static let format = "blyan-mining-round/1"

    /// The first round.
    package init() {}

    /// The round that a file holds; the first one if there is no such file, or it is damaged: nothing is lost but an order.
    package init(file: URL) {
        let bytes = FileManager.default.contents(atPath: file.path).map { Array($0) } ?? []
        guard let value = try? JSONValue(parsing: bytes), value["format"]?.string == Self.format,
            let number = value["number"]?.int, number >= 0,
            case .array(let names)? = value["taken"]
        else { return }
        self.number = number
        taken = Set(names.compactMap(\.string))
        current = value["current"]?.string
    }

    /// Writes the round.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    package func save(to file: URL) throws {
        var members: [String: JSONValue] = [
            "format": .string(Self.format), "number": .int(number),
            "taken": .array(taken.sorted().map { .string($0) }),
        ]
        if let current { members["current"] = .string(current) }
        try? FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700])
        try DurableFile.write(JSONValue.object(members).canonical(), to: file, mode: 0o600)
    }

    /// The expert whose turn it is: the one that was begun, or the first of the order that had none yet; with the last one
    /// a new round begins.
    ///
    /// - Returns: nil if there are no experts.
    package mutating func next(
        _ order: WorkOrder, _ experts: [String], uses: [String: WorkOrder.Use]
    )
        -> String?
    {
        if let current, experts.contains(current) { return current }
        let sorted = order.sorted(experts, uses: uses)
        current = sorted.first { !taken.contains($0) }
        if current == nil, let first = sorted.first {
            number += 1
            taken = []
            current = first
        }
        return current
    }

    /// The current expert has had its turn.
    package mutating func endTurn() {
        if let current { taken.insert(current) }
        current = nil
    }
}
