import BlyanKernel
import BlyanYAML
import Testing

@Suite struct YAMLTests {
    static func read(_ text: String) throws -> String {
        try YAMLReader.read(text, file: "a.yaml").json
    }

    @Test(arguments: [
        ("", "null"), ("a: 1\n", #"{"a":1}"#), ("- x\n- 'y'\n- \"z\"\n", #"["x","y","z"]"#),
        ("a: yes\nb: true\nc: null\nd: ~\ne:", #"{"a":"yes","b":true,"c":null,"d":null,"e":null}"#),
        ("v: 1.2.3\nf: 1.5\ng: '7'\nh: -3\n", #"{"v":"1.2.3","f":1.5,"g":"7","h":-3}"#),
        ("d: 2026-01-01\nx: 0x10\ns: 007", #"{"d":"2026-01-01","x":"0x10","s":"007"}"#),
        (
            #"{"a": {"b": [1, 2, {}]}, "c": "q\"\n\u00e9"}"#,
            #"{"a":{"b":[1,2,{}]},"c":"q\"\né"}"#
        ),
        ("a: 99999999999999999999\nb: 1e999\n", #"{"a":"99999999999999999999","b":"1e999"}"#),
        ("a: |\n  one\n  two\n", #"{"a":"one\ntwo\n"}"#),
    ])
    func readsValues(text: String, json: String) throws {
        #expect(try Self.read(text) == json)
    }

    @Test(arguments: [
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1: key \"a\" stands twice, first in line 1"),
        ("a: &x 1\n", "a.yaml:1:4: anchors, aliases and tags are not read"),
        ("a: *x\n", "a.yaml:1:4: anchors, aliases and tags are not read"),
        ("a: !!str 1\n", "a.yaml:1:4: anchors, aliases and tags are not read"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1: a second document begins here"),
        ("a:\n  - b\n c: d\n", "a.yaml:3:2: "),
        ("? [a]\n: b\n", "a.yaml:1:3: a key must be plain text"),
        ("a: \"\u{1}\"\n", "a.yaml:1:"),
        (
            String(repeating: "[", count: 33) + String(repeating: "]", count: 33),
            "more than 32 deep"
        ),
        (String(repeating: "#", count: 1 << 20) + "\n", "the document has 1048577 bytes"),
    ])
    func refusesTheRestAndSaysWhere(text: String, message: String) throws {
        let error = #expect(throws: YAMLError.self) { try Self.read(text) }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    /// Seeded damage of a real manifest: any text is read or refused, never a trap.
    @Test func anyTextIsReadOrRefused() {
        let original = Array("a: [1, {b: 'x', c: \"\\u00e9\"}]\nd: |\n  e\n? f\n: - g\n".utf8)
        var state: UInt64 = 42
        for _ in 0..<5_000 {
            var bytes = original
            for _ in 0..<3 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes[Int(state >> 33) % bytes.count] = UInt8(truncatingIfNeeded: state >> 20)
            }
            _ = try? YAMLReader.read(String(decoding: bytes, as: UTF8.self), file: "x")
        }
    }
}

@Suite struct JSONSchemaTests {
    static let schema = """
        {"type": "object", "additionalProperties": false, "required": ["name"], "properties": {
          "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
          "size": {"type": "integer", "minimum": 1, "maximum": 9},
          "mode": {"enum": ["fast", "safe"]},
          "list": {"type": "array", "uniqueItems": true, "items": {"type": "string"}},
          "limits": {"type": "object", "additionalProperties": false,
                     "properties": {"milliseconds": {"type": ["integer", "null"]}}}}}
        """

    static func check(_ text: String) throws {
        try JSONSchema(schema, name: "s").check(
            YAMLReader.read(text, file: "n.yaml"), file: "n.yaml")
    }

    @Test(arguments: [
        "name: a", "name: abcde\nsize: 9", "name: a\nmode: safe\nlist: [a, b]\n",
        "name: a\nlimits: {milliseconds: null}",
    ])
    func acceptsWhatFits(text: String) throws { try Self.check(text) }

    @Test(arguments: [
        ("name: a\nsise: 2\n", "n.yaml:2:1: unknown key \"sise\", did you mean \"size\"?"),
        (
            "name: a\nlimits:\n  miliseconds: 2\n",
            "n.yaml:3:3: unknown key \"miliseconds\", did you mean"
        ),
        ("name: a\nnmae: b\n", "n.yaml:2:1: unknown key \"nmae\", did you mean \"name\"?"),
        ("name: a\nelephant: b\n", "known here: limits, list, mode, name, size"),
        ("size: 2\n", "n.yaml:1:1: the document lacks the key \"name\""),
        ("name: 3\n", "n.yaml:1:7: \"name\" is integer, expected string"),
        ("name: A\n", "does not match ^[a-z]+$"),
        ("name: abcdef\n", "has 6 characters, expected at most 5"),
        ("name: a\nsize: 10\n", "n.yaml:2:7: \"size\" is 10, expected at most 9"),
        ("name: a\nsize: 0\n", "expected at least 1"),
        ("name: a\nmode: quick\n", "expected one of \"fast\", \"safe\""),
        ("name: a\nlist: [b, c, b]\n", "n.yaml:2:14: \"b\" stands twice"),
        ("name: a\nlist: [b, 1]\n", "n.yaml:2:11: \"list[1]\" is integer, expected string"),
        ("name: a\nlimits: {milliseconds: x}\n", "expected integer or null"),
        ("- a\n", "the document is array, expected object"),
    ])
    func refusesTheRestAndSaysWhere(text: String, message: String) throws {
        let error = #expect(throws: YAMLError.self) { try Self.check(text) }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    @Test(arguments: [
        #"{"type": "object", "patternProperties": {}}"#, #"{"$ref": "x"}"#, #"{"minimum": "1"}"#,
        #"{"pattern": "("}"#, #"{"properties": {"a": {"oneOf": []}}}"#, "[]", #"{"a": 1, "a": 2}"#,
        #"{"maxLength": -1}"#, #"{"additionalProperties": {}}"#, #"{"type": "text"}"#,
        #"{"type": 1}"#, #"{"required": "a"}"#, #"{"properties": []}"#, #"{"items": 1}"#,
        #"{"uniqueItems": 1}"#, #"{"enum": "a"}"#,
    ])
    func aSchemaThatWouldBeHalfObeyedIsRefused(schema: String) {
        #expect(throws: YAMLError.self) { try JSONSchema(schema, name: "s") }
    }
}
