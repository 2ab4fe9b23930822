import BlyanLearning
import Foundation
import Testing

@Suite struct WorkOrderTests {
    private let experts = ["layer0.expert0", "layer0.expert1", "layer1.expert0", "layer1.expert1"]
    private let file = FileManager.default.temporaryDirectory
        .appendingPathComponent("blyan-round-\(UUID().uuidString)/model.round")

    /// As many turns, each by a process that begins anew.
    private func turns(
        _ count: Int, _ order: WorkOrder, uses: [String: WorkOrder.Use] = [:]
    ) throws -> [String] {
        try (0..<count).map { _ in
            var round = MiningRound(file: file)
            let expert = round.next(order, experts, uses: uses)
            round.endTurn()
            try round.save(to: file)
            return try #require(expert)
        }
    }

    private func remove() {
        try? FileManager.default.removeItem(at: file.deletingLastPathComponent())
    }

    @Test func roundRobinGoesOnOverRestarts() throws {
        defer { remove() }
        #expect(try turns(6, .roundRobin) == experts + experts.prefix(2))
        let round = MiningRound(file: file)
        #expect(round.number == 1 && round.taken == Set(experts.prefix(2)))
    }

    @Test func whatWasBegunComesFirst() throws {
        defer { remove() }
        var round = MiningRound(file: file)
        var expert = round.next(.roundRobin, experts, uses: [:])
        #expect(expert == experts[0])
        round.endTurn()
        expert = round.next(.roundRobin, experts, uses: [:])
        #expect(expert == experts[1])
        try round.save(to: file)
        // Stopped in the middle of it; meanwhile another one is used most.
        var next = MiningRound(file: file)
        #expect(next == round)
        let uses = [experts[3]: WorkOrder.Use(calls: 9, tokens: 9)]
        expert = next.next(.hotPath, experts, uses: uses)
        #expect(expert == experts[1])
        // One that the model has no more is forgotten.
        expert = next.next(.roundRobin, Array(experts.suffix(2)), uses: [:])
        #expect(expert == experts[2])
    }

    @Test func hotPathTakesTheMostUsedFirst() throws {
        defer { remove() }
        let uses = [
            experts[1]: WorkOrder.Use(calls: 3, tokens: 10),
            experts[2]: WorkOrder.Use(calls: 3, tokens: 40),
        ]
        // Calls, then tokens, then the model's order; what nobody used comes last, and each once a round.
        let sorted = [experts[2], experts[1], experts[0], experts[3]]
        #expect(WorkOrder.hotPath.sorted(experts, uses: uses) == sorted)
        #expect(try turns(5, .hotPath, uses: uses) == sorted + sorted.prefix(1))
        // Use that changes within a round gives nobody a second turn.
        let changed = [experts[2]: WorkOrder.Use(calls: 99, tokens: 99)]
        #expect(try turns(3, .hotPath, uses: changed) == [experts[0], experts[1], experts[3]])
    }

    @Test(arguments: ["", "{", "{\"format\":\"other\"}", "{\"number\":-1,\"taken\":[]}"])
    func aDamagedFileBeginsAnew(_ text: String) throws {
        defer { remove() }
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: file)
        #expect(MiningRound(file: file) == MiningRound())
    }

    @Test func nothingToTrainIsNoTurn() {
        var round = MiningRound()
        let expert = round.next(.roundRobin, [], uses: [:])
        #expect(expert == nil)
        #expect(round == MiningRound())
    }
}
