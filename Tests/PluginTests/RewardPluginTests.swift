import BlyanJSON
import BlyanKernel
import BlyanModel
import Foundation
import Testing

/// The reward policies that ship with the node, through the C contract.
@Suite struct RewardPluginTests {
    static let names = ["usage-quality", "improvement", "flat"]
    static let author = "02" + String(repeating: "11", count: 32)
    static let other = "03" + String(repeating: "22", count: 32)

    static func policy(
        _ name: String, _ bench: Bench, vectors: (String) -> String = { $0 },
        edit: (String) -> String = { $0 }
    ) throws -> RewardPlugin {
        let file = Bench.root.appendingPathComponent("Manifests/plugins/\(name).vectors.json")
        let text = try String(contentsOf: file, encoding: .utf8)
        try bench.write(vectors(text), to: "plugins/\(name).vectors.json")
        return try RewardPlugin(bench.load(name, edit: edit))
    }

    static func usage(
        author: String = author, payers: [String] = [other], calls: Int64 = 100,
        milliseconds: Int64 = 100_000, quality: Int64 = 0, last: Int64 = 1000, time: Int64 = 2000
    ) -> [String: JSONValue] {
        [
            "kind": .string("usage"), "author": .string(author),
            "payers": .array(payers.map(JSONValue.string)), "calls": .int(calls),
            "milliseconds": .int(milliseconds), "quality_ppm": .int(quality),
            "last_use": .int(last), "time": .int(time),
        ]
    }

    static func accepted(
        author: String = author, lineage: [String] = [], lower: Int64 = 5_000_000,
        delta: Int64 = 2_000_000
    ) -> [String: JSONValue] {
        [
            "kind": .string("accepted"), "author": .string(author),
            "lineage": .array(lineage.map(JSONValue.string)), "improvement_ppb": .int(lower),
            "lower_ppb": .int(lower), "delta_ppb": .int(delta),
        ]
    }

    private func paid(
        _ policy: RewardPlugin, _ event: [String: JSONValue], _ config: [String: JSONValue] = [:]
    ) throws -> [RewardPlugin.Payment] {
        try policy.settle([.object(event)], config: .object(config))
    }

    @Test(arguments: names) func reproducesItsVectors(name: String) throws {
        let bench = try Bench()
        let policy = try Self.policy(name, bench)
        let file = Bench.root.appendingPathComponent("Manifests/plugins/\(name).vectors.json")
        #expect(try policy.vectors == SHA256.hash([UInt8](Data(contentsOf: file))))
        #expect(policy.plugin.abilityIDs == ["blyan.reward.settle/1"])
        // The manifest's configuration is one that it takes.
        _ = try policy.settle([], config: policy.config)
    }

    @Test(arguments: names) func isRefusedWithoutItsVectors(name: String) throws {
        let bench = try Bench()
        func refusal(
            _ vectors: (String) -> String, _ edit: (String) -> String = { $0 }
        ) -> KernelError? {
            #expect(throws: KernelError.self) {
                try Self.policy(name, bench, vectors: vectors, edit: edit)
            }
        }
        let wrong = refusal { $0.replacing("\"amount\":\"1", with: "\"amount\":\"2") }
        #expect(wrong?.code == .plugin)
        #expect(
            name == "improvement"
                || wrong?.message.contains("does not reproduce case 0") == true)
        #expect(refusal { $0.replacing("\"payments\":", with: "\"paid\":") }?.code == .plugin)
        #expect(refusal { _ in "{\"cases\":[]}" }?.message.contains("are no blyan-reward") == true)
        let none = refusal({ $0 }) { $0.replacing("vectors:", with: "# vectors:") }
        #expect(none?.code == .config && none?.message.contains("lacks the key") == true)
        let elsewhere = refusal({ $0 }) { $0.replacing(".vectors.json", with: ".nowhere") }
        #expect(elsewhere?.code == .io)
    }

    @Test(arguments: names) func aBadConfigurationIsRefused(name: String) throws {
        let bench = try Bench()
        let policy = try Self.policy(name, bench)
        for key in ["amount_micro_bly", "base_micro_bly", "per_delta_micro_bly"] {
            guard policy.config[key] != nil else { continue }
            for bad in [0, -1, 1_000_000_000_001] as [Int64] {
                let error = #expect(throws: KernelError.self) {
                    try policy.settle([], config: .object([key: .int(bad)]))
                }
                #expect(error?.code == .config)
            }
        }
        #expect(throws: KernelError.self) {
            try policy.settle([], config: .object(["vesting_blocks": .int(-1)]))
        }
        #expect(throws: KernelError.self) { try policy.settle([], config: .array([])) }
        if name == "improvement" {
            #expect(throws: KernelError.self) {
                try policy.settle(
                    [],
                    config: .object(["lineage_shares_ppm": .array([.int(600_000), .int(400_001)])]))
            }
        }
    }

    /// Whatever stands in an event that is not as the contract says, it earns nothing.
    @Test(arguments: names, [1, 2, 3, 4] as [UInt64])
    func garbageEarnsNothing(name: String, seed: UInt64) throws {
        let bench = try Bench()
        let policy = try Self.policy(name, bench)
        var random = Seeded(state: seed)
        let garbage: [JSONValue] = [
            .null, .bool(true), .int(-1), .int(.init(1) << 53 - 1), .string(""), .string("02"),
            .string(Self.author.uppercased() + "G"), .array([]), .object([:]),
            .array([.string(Self.author + "0")]), .array([.int(3)]),
        ]
        let whole = [Self.usage(), Self.accepted()]
        var events: [JSONValue] = garbage
        for _ in 0..<500 {
            var event = whole.randomElement(using: &random) ?? [:]
            let key = event.keys.sorted().randomElement(using: &random) ?? ""
            if Bool.random(using: &random) {
                event[key] = nil
            } else {
                // What stands there by right is of another kind, or no account.
                let bad = garbage.filter { value in
                    if case .int = value { return event[key]?.int == nil }
                    if case .array(let items) = value, items.isEmpty { return key != "lineage" }
                    return true
                }
                event[key] = bad.randomElement(using: &random)
            }
            events.append(.object(event))
        }
        #expect(try policy.settle(events, config: policy.config).isEmpty)
    }

    @Test func selfCallsAndNothingEarnNothing() throws {
        let bench = try Bench()
        let policy = try Self.policy("usage-quality", bench)
        var random = Seeded(state: 9)
        #expect(try paid(policy, Self.usage()).map(\.amount) == [1_000_000])
        for _ in 0..<300 {
            let calls = Int64.random(in: 1...1_000_000_000, using: &random)
            let time = Int64.random(in: 0...calls, using: &random)
            for event in [
                Self.usage(payers: [Self.author], calls: calls, milliseconds: time),
                Self.usage(payers: [Self.other, Self.author], calls: calls, milliseconds: time),
                Self.usage(payers: [], calls: calls, milliseconds: time),
                Self.usage(calls: 0, milliseconds: time), Self.usage(calls: -calls),
                Self.usage(milliseconds: -calls), Self.usage(quality: -calls),
                Self.usage(last: -1), Self.usage(last: 3000), Self.accepted(),
            ] { #expect(try paid(policy, event).isEmpty) }
        }
    }

    /// Against the formula in 128 bits, each factor over a denominator of its own.
    @Test(arguments: [5, 6] as [UInt64]) func usageIsPaidExactly(seed: UInt64) throws {
        let bench = try Bench()
        let policy = try Self.policy("usage-quality", bench)
        var random = Seeded(state: seed)
        for _ in 0..<2000 {
            let calls = Int64.random(in: 1...1000, using: &random)
            let milliseconds = Int64.random(in: 0...calls * 3000, using: &random)
            let quality = Int64.random(in: 0...1_000_000, using: &random)
            let age = Int64.random(in: 3_590_000...3_610_000, using: &random)
            let base = Int64.random(in: 1...1_000_000_000, using: &random)
            let found = try paid(
                policy,
                Self.usage(
                    calls: calls, milliseconds: milliseconds, quality: quality, last: 0, time: age),
                ["base_micro_bly": .int(base), "vesting_blocks": .int(3)])
            let popularity = Int128(min(calls, 200))
            let speed = max(Int128(calls) * 500, Int128(calls) * 2000 - Int128(milliseconds))
            let top =
                Int128(base) * popularity * speed * Int128(1_000_000 + quality)
                * (age <= 3_600_000 ? 5 : 4)
            let amount = Int64(top / (Int128(calls) * 1000 * 100 * 1_000_000 * 5))
            let wanted = amount == 0 ? [] : [amount]
            #expect(found.map(\.amount) == wanted)
            #expect(found.allSatisfy { $0.account == Self.author && $0.vesting == 3 })
        }
    }

    /// More than can be reckoned is nothing, and no trap; more than a payment may be is refused.
    @Test(arguments: names) func overflowEarnsNothingOrLess(name: String) throws {
        let bench = try Bench()
        let policy = try Self.policy(name, bench)
        func amounts(_ event: [String: JSONValue], _ config: JSONValue) -> [Int64] {
            do throws(KernelError) {
                return try policy.settle([.object(event)], config: config).map(\.amount)
            } catch {
                #expect(error.message.contains("no such payment can be"), "\(error.message)")
                return []
            }
        }
        let largest = JSONValue.integers.upperBound
        let config: JSONValue = .object(
            name == "usage-quality"
                ? ["base_micro_bly": .int(1_000_000_000_000)]
                : name == "improvement"
                    ? [
                        "per_delta_micro_bly": .int(1_000_000_000_000),
                        "cap_deltas": .int(1_000_000),
                    ] : [:])
        for calls in [1, largest] {
            for quality in [0, largest] {
                let event = Self.usage(
                    calls: calls, milliseconds: calls - 1, quality: quality, last: largest,
                    time: largest)
                #expect(amounts(event, config).allSatisfy { $0 > 0 && $0 <= 1_000_000_000_000_000 })
            }
        }
        for (lower, delta) in [
            (largest, 1), (largest, largest), (1, largest), (-largest, -largest),
        ] {
            let event = Self.accepted(lower: Int64(lower), delta: Int64(delta))
            #expect(amounts(event, config).allSatisfy { $0 > 0 && $0 <= 1_000_000_000_000_000 })
        }
    }

    /// The parts are the whole, whoever stands where in the lineage.
    @Test(arguments: [7, 8] as [UInt64]) func aGainIsSplitToTheLastMicroBLY(seed: UInt64) throws {
        let bench = try Bench()
        let policy = try Self.policy("improvement", bench)
        var random = Seeded(state: seed)
        let people = (0..<6).map { "02" + String(repeating: "0\($0)", count: 32) }
        for _ in 0..<2000 {
            let delta = Int64.random(in: 1...10_000_000, using: &random)
            let lower = Int64.random(in: 1...50_000_000, using: &random)
            let per = Int64.random(in: 1...100_000_000, using: &random)
            let cap = Int64.random(in: 1...50, using: &random)
            let shares = (0..<Int.random(in: 0...4, using: &random)).map { _ in
                Int64.random(in: 0...250_000, using: &random)
            }
            let lineage = (0..<Int.random(in: 0...5, using: &random)).map { _ in
                people.randomElement(using: &random) ?? ""
            }
            let author = people.randomElement(using: &random) ?? ""
            let found = try paid(
                policy, Self.accepted(author: author, lineage: lineage, lower: lower, delta: delta),
                [
                    "per_delta_micro_bly": .int(per), "cap_deltas": .int(cap),
                    "lineage_shares_ppm": .array(shares.map(JSONValue.int)),
                ])
            let whole = Int64(Int128(per) * Int128(min(lower, cap * delta)) / Int128(delta))
            #expect(found.reduce(0) { $0 + $1.amount } == whole)
            #expect(Set(found.map(\.account)).count == found.count)
            #expect(whole == 0 || found.first?.account == author)
        }
    }

    @Test func manyPaymentsFit() throws {
        let bench = try Bench()
        let policy = try Self.policy("improvement", bench)
        let lineage = (0..<3).map { "02" + String(repeating: "0\($0)", count: 32) }
        let event = JSONValue.object(Self.accepted(lineage: lineage))
        let shares = JSONValue.array([.int(1000), .int(1000), .int(1000)])
        let config = JSONValue.object(["lineage_shares_ppm": shares])
        let found = try policy.settle(Array(repeating: event, count: 2000), config: config)
        #expect(found.count == 8000 && found.last?.event == 1999)
        let error = #expect(throws: KernelError.self) {
            try policy.settle(Array(repeating: event, count: 20_000), config: config)
        }
        #expect(error?.code == .limit)
    }

    @Test func theManifestNamesOnePolicy() throws {
        let bench = try Bench()
        _ = try Self.policy("flat", bench)
        _ = try bench.shipped("topk")
        func set(_ text: String) throws -> PluginSet {
            let text = "formats: []\n\(text)libraries: [\"\(Bench.products.path)\"]\n"
            return try PluginSet(
                NodeManifest(path: bench.write(text, to: "node.yaml")), host: Bench.host)
        }
        #expect(try set("").rewards() == nil)
        let set1 = try set("rewards: flat\n")
        #expect(try set1.rewards()?.plugin.manifest.name == "flat")
        #expect(set1.node.plugins == ["flat"])
        #expect(throws: KernelError.self) { try set("rewards: topk\n").rewards() }
        #expect(throws: KernelError.self) { try set("rewards: absent\n").rewards() }
        // What the chain asks for is found without being listed; anything else is not.
        #expect(try set("").rewards(named: "flat").plugin.manifest.name == "flat")
        #expect(throws: KernelError.self) { try set("").rewards(named: "topk") }
        // A swap loads and checks first.
        #expect(throws: KernelError.self) {
            try set1.next(set("rewards: absent\n").node)
        }
    }
}
