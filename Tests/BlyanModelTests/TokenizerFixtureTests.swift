import BlyanModel
import Foundation
import Testing

@Suite struct TokenizerFixtureTests {
    static let kinds = TokenizerCase.names(in: "tokenizers", suffix: "")
    static let vocabularies = TokenizerCase.names(in: "vocabularies", suffix: ".gguf")
    static let checkpoints = TokenizerCase.names(in: "checkpoints", suffix: "-tiny")

    @Test func fixturesAreThere() {
        #expect(Self.kinds.count >= 14)
        #expect(Self.vocabularies.count == 13)
        #expect(Self.checkpoints.count >= 2)
    }

    /// Made by the tokenizers library; see Tests/Conformance/tokenizer_fixtures.py.
    @Test(arguments: kinds) func agreesWithTheLibrary(kind: String) throws {
        let folder = TokenizerCase.fixtures.appending(path: "tokenizers/\(kind)").path
        let tokenizer = try Tokenizer(TokenizerDocument(huggingFace: folder))
        let cases = try TokenizerCase.read("tokenizers/\(kind)/cases.json")
        #expect(cases.count >= 90)
        for item in cases {
            let ids = tokenizer.encode(
                item.text, addSpecial: true, parseSpecial: item.special ?? true)
            #expect(ids == item.ids, "\(item.text.debugDescription)")
            guard let decoded = item.decoded else { continue }
            let text = String(decoding: tokenizer.decode(item.ids), as: UTF8.self)
            #expect(same(text, decoded), "\(item.ids)")
        }
    }

    /// llama.cpp's vocabularies, trimmed; see Tests/Conformance/tokenizer_vocabularies.py.
    @Test(arguments: vocabularies) func agreesWithLlamaCpp(file: String) throws {
        let path = TokenizerCase.fixtures.appending(path: "vocabularies/\(file)").path
        let tokenizer = try Tokenizer(TokenizerDocument(gguf: path))
        let name = file.dropLast(5)
        let cases = try TokenizerCase.read("vocabularies/\(name).json")
        #expect(cases.count >= 46)
        for item in cases {
            let ids = tokenizer.encode(item.text, addSpecial: false, parseSpecial: false)
            #expect(ids == item.ids, "\(item.text.debugDescription)")
        }
    }

    /// Whole vocabularies in the folder that BLYAN_VOCABULARIES names, as `make conformance` fetches them.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["BLYAN_VOCABULARIES"] != nil))
    func agreesWithWholeVocabularies() throws {
        let folder = try #require(ProcessInfo.processInfo.environment["BLYAN_VOCABULARIES"])
        var compared = 0
        for name in try FileManager.default.contentsOfDirectory(atPath: folder).sorted() {
            let path = "\(folder)/\(name)"
            let isKnown = !name.contains("bert") && !name.contains("gemma")
            guard name.hasSuffix(".gguf"), isKnown,
                FileManager.default.fileExists(atPath: path + ".inp")
            else { continue }
            let tokenizer = try Tokenizer(TokenizerDocument(gguf: path))
            for item in try TokenizerCase.read(inp: path + ".inp", out: path + ".out") {
                let ids = tokenizer.encode(item.text, addSpecial: false, parseSpecial: false)
                #expect(ids == item.ids, "\(name): \(item.text.debugDescription)")
                compared += 1
            }
        }
        #expect(compared >= 13 * 46)
    }

    @Test(arguments: checkpoints) func agreesWithCheckpoints(name: String) throws {
        struct Expected: Decodable {
            var text: String?
            var prompt: String?
            var token_ids: [Int]
        }
        let folder = TokenizerCase.fixtures.appending(path: "checkpoints/\(name)")
        let data = try Data(contentsOf: folder.appending(path: "expected.json"))
        guard let expected = try? JSONDecoder().decode(Expected.self, from: data),
            let text = expected.text ?? expected.prompt
        else { return }
        let tokenizer = try Tokenizer(TokenizerDocument(huggingFace: folder.path))
        let ids = tokenizer.encode(text, addSpecial: true, parseSpecial: true)
        #expect(ids == expected.token_ids)
    }
}
