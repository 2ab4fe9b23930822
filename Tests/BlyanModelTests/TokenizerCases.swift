import BlyanModel
import Foundation

/// Texts with the ids that another implementation made of them.
struct TokenizerCase: Decodable {
    var text: String
    var ids: [Int]
    var special: Bool?
    var decoded: String?

    static let fixtures = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Fixtures")

    static func names(in folder: String, suffix: String) -> [String] {
        let names = try? FileManager.default.contentsOfDirectory(
            atPath: fixtures.appending(path: folder).path)
        return (names ?? []).filter { $0.hasSuffix(suffix) }.sorted()
    }

    static func read(_ path: String) throws -> [TokenizerCase] {
        try JSONDecoder().decode(
            [Self].self, from: Data(contentsOf: fixtures.appending(path: path)))
    }

    /// A llama.cpp vocabulary's texts and ids.
    static func read(inp: String, out: String) throws -> [TokenizerCase] {
        let texts = try Data(contentsOf: URL(fileURLWithPath: inp))
        let lines = try String(contentsOf: URL(fileURLWithPath: out), encoding: .utf8)
            .split(separator: "\n", omittingEmptySubsequences: false)
            .map { $0.split(separator: " ").compactMap { Int($0) } }
        let separator = Data("\n__ggml_vocab_test__\n".utf8)
        var found: [TokenizerCase] = []
        var start = texts.startIndex
        while let range = texts.range(of: separator, in: start..<texts.endIndex) {
            let text = String(decoding: texts[start..<range.lowerBound], as: UTF8.self)
            found.append(TokenizerCase(text: text, ids: lines[found.count]))
            start = range.upperBound
        }
        return found
    }
}

/// Swift counts canonically equivalent strings as equal; these tests must not.
func same(_ a: String, _ b: String) -> Bool { a.utf8.elementsEqual(b.utf8) }
