internal import Foundation

// Unchecked: `lock` guards the mutable state.
/// Parts of one model that are loaded now; experts beyond the byte budget are dropped, least recently used first.
///
/// Shared parts serve every token and stay. An expert that is dropped while a step uses it lives until the step
/// ends: parts are handed out by reference.
package final class PartCache: PartSource, @unchecked Sendable {
    /// Figures that a person reads.
    package struct Figures: Codable, Sendable, Equatable {
        /// Requests for an expert that was loaded.
        package var hits = 0
        /// Requests that had to load.
        package var misses = 0
        /// Experts dropped for the budget.
        package var evictions = 0
        /// Experts loaded now.
        package var experts = 0
        /// Bytes of payloads mapped now, shared parts included.
        package var mappedBytes = 0
        /// Bytes of memory that decoded copies take now.
        package var ownedBytes = 0
    }

    private struct Entry {
        let weights: PartWeights
        var lastUse: Int
    }

    private let lock = NSLock()
    private let budget: Int
    private let load: @Sendable (_ name: String) throws -> PartWeights
    private var shared: [String: PartWeights] = [:]
    private var experts: [String: Entry] = [:]
    private var expertBytes = 0
    private var tick = 0
    private var counted = Figures()

    /// A cache that keeps at most `budget` bytes of experts, mapped and decoded together; at least one expert stays.
    package init(budget: Int, load: @escaping @Sendable (_ name: String) throws -> PartWeights) {
        self.budget = budget
        self.load = load
    }

    /// The figures so far.
    package var figures: Figures {
        lock.withLock {
            var figures = counted
            figures.experts = experts.count
            let all = Array(shared.values) + experts.values.map(\.weights)
            figures.mappedBytes = all.reduce(0) { $0 + $1.mappedBytes }
            figures.ownedBytes = all.reduce(0) { $0 + $1.ownedBytes }
            return figures
        }
    }

    package func forget() throws {
        let all = lock.withLock {
            let all = Array(shared.values) + experts.values.map(\.weights)
            shared.removeAll()
            experts.removeAll()
            expertBytes = 0
            return all
        }
        for part in all { try part.checkFault() }
    }

    package func part(_ name: String) throws -> PartWeights {
        lock.lock()
        defer { lock.unlock() }
        tick += 1
        if let part = shared[name] { return part }
        if let entry = experts[name] {
            experts[name]?.lastUse = tick
            counted.hits += 1
            return entry.weights
        }
        let part = try load(name)
        guard name.contains(".expert") else {
            shared[name] = part
            return part
        }
        counted.misses += 1
        experts[name] = Entry(weights: part, lastUse: tick)
        expertBytes += part.mappedBytes + part.ownedBytes
        while expertBytes > budget, experts.count > 1,
            let oldest = experts.min(by: { $0.value.lastUse < $1.value.lastUse })
        {
            experts[oldest.key] = nil
            expertBytes -= oldest.value.weights.mappedBytes + oldest.value.weights.ownedBytes
            counted.evictions += 1
        }
        return part
    }
}
