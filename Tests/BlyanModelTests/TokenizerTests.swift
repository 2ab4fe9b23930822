import BlyanModel
import Foundation
import Testing

@Suite struct TokenizerTests {
    static func tokenizer(_ kind: String) throws -> Tokenizer {
        try Tokenizer(
            TokenizerDocument(
                huggingFace: TokenizerCase.fixtures.appending(path: "tokenizers/\(kind)").path))
    }

    /// One component of a good tokenizer.json replaced, and what the error must name.
    static let refusals: [(path: [String], value: String, names: String)] = [
        (["normalizer"], #"{"type":"NFKC"}"#, "NFKC"),
        (["normalizer"], #"{"type":"Lowercase"}"#, "Lowercase"),
        (["pre_tokenizer"], #"{"type":"BertPreTokenizer"}"#, "BertPreTokenizer"),
        (["pre_tokenizer"], #"{"type":"Whitespace"}"#, "Whitespace"),
        (
            ["pre_tokenizer"],
            #"{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}"#,
            "MergedWithPrevious"
        ),
        (["post_processor"], #"{"type":"RobertaProcessing"}"#, "RobertaProcessing"),
        (["decoder"], #"{"type":"WordPiece"}"#, "WordPiece"),
        (["model", "dropout"], "0.1", "dropout"),
        (["model", "continuing_subword_prefix"], "\"##\"", "continuing_subword_prefix"),
        (["model", "end_of_word_suffix"], "\"</w>\"", "end_of_word_suffix"),
        (["model", "type"], "\"Unigram\"", "Unigram"),
        (["model", "unk_token"], "\"[absent]\"", "[absent]"),
    ]

    @Test(arguments: refusals.indices) func namesWhatItDoesNotCompute(_ index: Int) throws {
        let (path, value, names) = Self.refusals[index]
        let source = TokenizerCase.fixtures.appending(path: "tokenizers/gpt2/tokenizer.json")
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: source))
        var object = try #require(json as? [String: Any])
        let new = try JSONSerialization.jsonObject(
            with: Data(value.utf8), options: .fragmentsAllowed)
        if path.count == 1 {
            object[path[0]] = new
        } else {
            var inner = try #require(object[path[0]] as? [String: Any])
            inner[path[1]] = new
            object[path[0]] = inner
        }
        let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try JSONSerialization.data(withJSONObject: object)
            .write(to: folder.appending(path: "tokenizer.json"))
        let error = #expect(throws: ModelError.self) {
            try Tokenizer(TokenizerDocument(huggingFace: folder.path))
        }
        #expect(error?.description.contains(names) == true, "\(error?.description ?? "")")
    }

    @Test(arguments: [
        "(a+)+", "a*", "(?<=a)b", "[a-z&&[b]]", #"\p{Han}+"#, "a+?", "[b-a]", "(a", "a)", ".+",
        "a{2000}", #"\w+"#, "", "(?i:é)",
    ]) func refusesPatterns(_ pattern: String) throws {
        var document = TokenizerDocument(kind: .byteLevelBPE, pieces: ["a"])
        document.steps = [.split(pattern), .bytes]
        #expect(throws: ModelError.self) { try Tokenizer(document) }
    }

    /// The tokenizer of a kind with a tokenizer_config.json and a config.json beside it.
    private func tokenizer(_ kind: String, model: String, _ settings: String) throws -> Tokenizer {
        let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(
            at: TokenizerCase.fixtures.appending(path: "tokenizers/\(kind)/tokenizer.json"),
            to: folder.appending(path: "tokenizer.json"))
        try Data(settings.utf8).write(to: folder.appending(path: "tokenizer_config.json"))
        try Data("{\"model_type\":\"\(model)\"}".utf8)
            .write(to: folder.appending(path: "config.json"))
        return try Tokenizer(TokenizerDocument(huggingFace: folder.path))
    }

    /// As in transformers 5, by Tests/Conformance/tokenizer_settings.py.
    @Test(arguments: ["llama2", "gpt2", "llama3"], ["LlamaTokenizer", "PreTrainedTokenizerFast"])
    func tokenizerJSONSaysWhatIsAdded(kind: String, name: String) throws {
        let expected = try Self.tokenizer(kind).encode(
            "don't", addSpecial: true, parseSpecial: true)
        for field in ["add_bos_token", "add_eos_token"] {
            for flag in [true, false] {
                let settings = #"{"tokenizer_class":"\#(name)","\#(field)":\#(flag)}"#
                let found = try tokenizer(kind, model: "llama", settings)
                #expect(found.encode("don't", addSpecial: true, parseSpecial: true) == expected)
            }
        }
    }

    @Test(arguments: [
        ("llama2", "llama", "LlamaTokenizerFast", false),
        ("llama2", "olmoe", "LlamaTokenizer", false),
        ("metaspace-first", "llama", "LlamaTokenizer", false),
        ("metaspace-never", "llama", "LlamaTokenizer", true),
        ("gpt2", "llama", "GPT2Tokenizer", true), ("gpt2", "olmoe", "GPTNeoXTokenizerFast", true),
        ("qwen2", "qwen2_moe", "Qwen2Tokenizer", true),
    ])
    func aPrefixSpaceThatContradictsIsRefused(kind: String, model: String, name: String, flag: Bool)
        throws
    {
        func settings(_ flag: Bool) -> String {
            #"{"tokenizer_class":"\#(name)","add_prefix_space":\#(flag)}"#
        }
        let message = refusal { _ = try tokenizer(kind, model: model, settings(flag)) }
        #expect(
            message?.contains("add_prefix_space is \(flag)") == true, "\(message ?? "accepted")")
        _ = try tokenizer(kind, model: model, settings(!flag))
        // These are read as they stand, whatever the field says.
        _ = try tokenizer(kind, model: "mixtral", settings(flag).replacing(name, with: "X"))
    }

    /// Quadratic merging of a million bytes would take hours.
    @Test(
        arguments: ["gpt2", "llama3", "llama2", "metaspace-always", "falcon"], ["a", " ", "<", "▁"])
    func hostileTextIsNotQuadratic(kind: String, unit: String) throws {
        let tokenizer = try Self.tokenizer(kind)
        let text = String(repeating: unit, count: 200_000)
        let ids = tokenizer.encode(text, addSpecial: false, parseSpecial: true)
        #expect(!ids.isEmpty)
        let decoded = String(decoding: tokenizer.decode(ids), as: UTF8.self)
        if unit == "a" { #expect(decoded.hasSuffix(text)) }
    }

    @Test func bytesThatAreNotUTF8BecomeReplacementCharacters() throws {
        let tokenizer = try Self.tokenizer("gpt2")
        let ids = tokenizer.encode([0x61, 0xFF, 0x62], addSpecial: false, parseSpecial: false)
        #expect(ids == tokenizer.encode("a\u{FFFD}b", addSpecial: false, parseSpecial: false))
    }

    @Test(arguments: 0..<20) func streamedTextIsTheWholeText(seed: Int) throws {
        let tokenizer = try Self.tokenizer("gpt2")
        let text = "naïve 日本語 😀👩\u{200D}💻 \(seed)"
        let ids = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
        var stream = TextStream()
        var out: [UInt8] = []
        for id in ids {
            let piece = stream.add(tokenizer.bytes(of: id))
            #expect(String(validating: piece, as: UTF8.self) != nil)
            out += piece
        }
        out += stream.finish()
        #expect(out == Array(text.utf8))
    }

    @Test func idsOutsideTheVocabularyDecodeToNothing() throws {
        let tokenizer = try Self.tokenizer("gpt2")
        #expect(tokenizer.decode([-1, 1 << 40]).isEmpty)
    }
}
