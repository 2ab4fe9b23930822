import BlyanModel
import Testing

@Suite struct ImportJSONTests {
    static let refused: [(text: String, says: String)] = [
        (#"{"a":1,"a":2}"#, "\"a\" twice"),
        (#"{"a":1,"\u0061":2}"#, "\"a\" twice"),
        (#"{"a":01}"#, "lacks"), (#"{"a":+1}"#, "lacks"), (#"{"a":.5}"#, "lacks"),
        (#"{"a":1.}"#, "digit"), (#"{"a":1e}"#, "digit"), (#"{"a":-}"#, "digit"),
        (#"{"a":0x1}"#, "lacks"), (#"{"a":NaN}"#, "lacks"), (#"{"a":Infinity}"#, "lacks"),
        (#"{"a":tru}"#, "word"), (#"{"a":1,}"#, "lacks"), (#"[1,]"#, "lacks"), (#"[1 2]"#, "lacks"),
        (#"{"a":1} x"#, "after the value"), (#"{"a":1"#, "lacks"), ("", "lacks"),
        (#"["\ud800"]"#, "lacks"), (#"["\ud800\u0041"]"#, "surrogate"),
        (#"["\udc00"]"#, "surrogate"), (#"["\q"]"#, "escape"), (#"["\u12g4"]"#, "escape"),
        ("[\"a\nb\"]", "control"), ("[\"a", "lacks"),
        (String(repeating: "[", count: 200), "deeper"),
        ("[" + String(repeating: "1", count: 100) + "]", "63 characters"),
    ]

    @Test(arguments: refused)
    func isRefused(text: String, says: String) {
        let message = refusal { _ = try JSONDocument(Array(text.utf8), name: "x.json") }
        #expect(message?.contains(says) == true, "\(message ?? "accepted")")
        #expect(message?.hasPrefix("x.json") == true)
    }

    @Test func bytesThatAreNoTextAreRefused() {
        #expect(throws: ModelError.self) {
            try JSONDocument([0x5B, 0x22, 0xC3, 0x28, 0x22, 0x5D], name: "x")
        }
    }

    @Test func readsWhatTheGrammarAllows() throws {
        let text =
            #" {"i":-12,"e":1e3,"d":-0.5E-2,"s":"a\n\u00e9\ud83d\ude42\/","l":[true,null,{}]} "#
        let json = try JSONDocument(Array(text.utf8), name: "x")
        #expect(json["i"]?.int == -12)
        #expect(json["e"]?.int == 1000)
        #expect(json["d"]?.double == -0.005)
        #expect(json["s"]?.string == "a\né🙂/")
        #expect(json["l"]?.array?.count == 3)
        #expect(json["none"] == nil)
    }

    /// The angstrom sign and the letter are one to Swift, and two pieces of a vocabulary.
    @Test func equivalentKeysAreTwo() throws {
        let text = "{\"\u{212B}\":1,\"\u{C5}\":2,\"A\u{30A}\":3}"
        let json = try JSONDocument(Array(text.utf8), name: "x")
        #expect(json.members?.count == 3)
        #expect(json["\u{212B}"]?.int == 1)
        #expect(json["\u{C5}"]?.int == 2)
        #expect(json["A\u{30A}"]?.int == 3)
    }
}
