import Foundation
import Testing

/// Held-out text as commands commit, list and retire it.
@Suite struct PoolTests {
    @Test func shardsAreToldAsJSONAndAPayloadThatIsGoneIsPutBack() throws {
        let shop = try Workshop("")
        let home = shop.home
        let files = try (0..<2).map { number in
            let file = home.scratch.appendingPathComponent("shard\(number)")
            let line = #"{"slice": "plays", "text": "Enter messenger \#(number) in haste."}"#
            try Data((line + "\n").utf8).write(to: file)
            return file.path
        }
        struct Shard: Decodable {
            let file: String?
            let shard, block: String
            let documents: Int?
            let slices: [String: Int]?
        }
        func read<Value: Decodable>(_ text: String, as type: Value.Type) throws -> Value {
            try JSONDecoder().decode(type, from: Data(text.utf8))
        }
        // The second stands, though what comes after it is refused.
        let made = try home.run("pool", "add", files[0], files[1], files[0], "--json")
        #expect(made.status == 1 && made.error.contains("committed already"), "\(made.error)")
        let shards = try read(made.output, as: [Shard].self)
        try #require(shards.map(\.file) == files)
        #expect(shards.map(\.documents) == [1, 1])
        #expect(shards.last?.slices == ["plays": 1])
        let list = try home.succeed("pool", "list")
        #expect(list.contains("0 of 32     hidden"), "\(list)")
        let text = try home.succeed("pool", "retire", shards[0].shard, "--json")
        #expect(try read(text, as: Shard.self).shard == shards[0].shard)
        #expect(try home.succeed("pool", "list").contains("0 of 32     retired"))
        // It is no weights: importing would not bring it back.
        let gone = shards[1].shard
        let payload = "payloads/\(gone.prefix(2))/\(gone)"
        try FileManager.default.removeItem(at: home.folder.appendingPathComponent(payload))
        try home.fail(
            "block", "payload", shards[1].block, "--output", home.scratch.path + "/out",
            naming: ["is missing", payload, "put a copy of its file back"])
    }
}
