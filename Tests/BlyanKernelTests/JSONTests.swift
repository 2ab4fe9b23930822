import BlyanJSON
import BlyanKernel
import Testing

/// A generator that gives the same numbers everywhere: SplitMix64.
private struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

extension Seeded {
    mutating func text() -> String {
        let scalars: [UnicodeScalar] = [
            "a", "Z", "0", " ", "\"", "\\", "/", "\u{0}", "\u{8}", "\n", "\u{1F}", "\u{7F}", "é",
            "\u{20AC}", "\u{E000}", "\u{FFFD}", "\u{1F600}", "\u{10FFFF}",
        ]
        var text = String.UnicodeScalarView()
        for _ in 0..<Int.random(in: 0...6, using: &self) {
            text.append(scalars[Int.random(in: scalars.indices, using: &self)])
        }
        return String(text)
    }

    mutating func value(depth: Int) -> JSONValue {
        switch Int.random(in: 0...(depth > 0 ? 5 : 3), using: &self) {
        case 0: return .null
        case 1: return .bool(.random(using: &self))
        case 2: return .int(.random(in: JSONValue.integers, using: &self))
        case 3: return .string(text())
        case 4:
            return .array(
                (0..<Int.random(in: 0...3, using: &self)).map { _ in value(depth: depth - 1) })
        default: return .object(members(depth: depth - 1))
        }
    }

    mutating func members(depth: Int) -> [String: JSONValue] {
        var members: [String: JSONValue] = [:]
        for _ in 0..<Int.random(in: 0...4, using: &self) { members[text()] = value(depth: depth) }
        return members
    }

    mutating func digest() -> Digest {
        SHA256.hash((0..<8).map { _ in .random(in: 0...255, using: &self) })
    }

    mutating func header() -> BlockHeader {
        var header = BlockHeader(
            chainID: text(), blockType: text(),
            index: .random(in: 0...JSONValue.integers.upperBound, using: &self),
            previous: .random(using: &self) ? digest() : nil,
            timestamp: .random(in: 0...JSONValue.integers.upperBound, using: &self))
        header.dependsOn = (0..<Int.random(in: 0...(.random(using: &self) ? 3 : 70), using: &self))
            .map { _ in digest() }
        header.expertName = "layer\(Int.random(in: 0...99, using: &self)).expert7"
        header.layerID = .random(in: 0...99, using: &self)
        header.version = text()
        header.payloadType = text()
        header.payloadHash = .random(using: &self) ? digest() : nil
        header.payloadSize = .random(in: 0...1 << 40, using: &self)
        header.merkleRoot = .random(using: &self) ? digest() : nil
        header.metadata =
            .random(using: &self) ? members(depth: 4) : ["leaf_size": .int(1), "a": .string("b")]
        header.difficulty = .random(in: 0...64, using: &self)
        header.nonce =
            .random(using: &self) ? "" : String(UInt64.random(in: 0...UInt64.max, using: &self))
        return header
    }
}

@Suite struct JSONTests {
    /// RFC 8785, 3.2.3 and 3.2.2.2, as far as they hold no floats.
    @Test(arguments: [
        (
            #"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{FB33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        ),
        (
            #"{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#,
            #"{"literals":[null,true,false],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        ),
    ])
    func writesThePublishedExamples(input: String, canonical: String) throws {
        let value = try JSONValue(parsing: Array(input.utf8))
        #expect(value.canonical() == Array(canonical.utf8))
        #expect(try JSONValue(canonical: Array(canonical.utf8)) == value)
    }

    @Test(arguments: [
        "", " ", "nul", "truex", "[1,]", "[,1]", "{\"a\":1,}", "{\"a\" 1}", "{a:1}", "01", "-0",
        "-", "+1", "1.0",
        "1e3", "9007199254740992", "-9007199254740992", "99999999999999999999999", "\"", "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"", "\"\\u+123\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\u{1}\"",
        "[1] 2", "[1",
        "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}", "NaN", "Infinity", "[[[[[[[[[[1]]]]]]]]]]",
        "'a'", "/**/1",
    ])
    func refusesWhatIsNotTheChainsJSON(text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: Array(text.utf8)) }
    }

    @Test(arguments: 0..<8 as Range<UInt64>) func valuesComeBack(seed: UInt64) throws {
        var random = Seeded(state: seed)
        for _ in 0..<200 {
            let value = random.value(depth: 6)
            let bytes = value.canonical()
            #expect(try JSONValue(canonical: bytes) == value)
            #expect(try JSONValue(canonical: bytes).canonical() == bytes)
        }
    }

    @Test(arguments: 0..<8 as Range<UInt64>) func headersComeBack(seed: UInt64) throws {
        var random = Seeded(state: seed)
        let key = try SigningKey([UInt8](repeating: 5, count: 32))
        for _ in 0..<25 {
            let block = try Block(signing: random.header(), with: key)
            let read = try Block(parsing: block.line)
            #expect(read == block)
            #expect(read.header.canonical() == block.header.canonical())
            #expect(SHA256.hash(read.header.canonical()) == read.hash)
            #expect(read.line == block.line && read.isSignatureValid)
        }
    }

    /// Bytes changed, dropped, doubled and swapped: refused, or read to something that writes the same bytes and
    /// whose signature does not hold.
    @Test(arguments: 0..<8 as Range<UInt64>) func damagedLinesNeverPass(seed: UInt64) throws {
        var random = Seeded(state: seed)
        let key = try SigningKey([UInt8](repeating: 5, count: 32))
        let line = try Block(signing: random.header(), with: key).line
        let alphabet =
            Array("{}[]\",:\\0123456789abcdefu-.eE \n".utf8) + [
                0, 0x7F, 0x80, 0xC0, 0xED, 0xF5, 0xFF,
            ]
        for _ in 0..<250 {
            var damaged = line
            for _ in 0..<Int.random(in: 1...3, using: &random) where !damaged.isEmpty {
                let at = Int.random(in: damaged.indices, using: &random)
                let other = Int.random(in: damaged.indices, using: &random)
                switch Int.random(in: 0...5, using: &random) {
                case 0: damaged[at] = alphabet[Int.random(in: alphabet.indices, using: &random)]
                case 1: damaged[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
                case 2: damaged.remove(at: at)
                case 3: damaged.insert(damaged[other], at: at)
                case 4: damaged.swapAt(at, other)
                default:
                    damaged.removeSubrange(min(at, other)..<min(max(at, other), min(at, other) + 9))
                }
            }
            guard damaged != line, let block = try? Block(parsing: damaged) else { continue }
            #expect(block.line == damaged)
            #expect(block.hash == block.header.hash)
            #expect(!block.isSignatureValid)
        }
    }

    @Test func limitsAreKept() throws {
        let key = try SigningKey([UInt8](repeating: 5, count: 32))
        func refused(_ change: (inout BlockHeader) -> Void) -> KernelError.Code? {
            var header = BlockHeader(
                chainID: "A", blockType: "meta", index: 0, previous: nil, timestamp: 0)
            change(&header)
            do throws(KernelError) {
                _ = try Block(signing: header, with: key)
                return nil
            } catch {
                return error.code
            }
        }
        let digests = (0...BlockHeader.Limit.dependencies).map { SHA256.hash(Array("\($0)".utf8)) }
        #expect(refused { $0.dependsOn = digests } == .limit)
        #expect(refused { $0.dependsOn = digests.dropLast() } == nil)
        #expect(refused { $0.expertName = String(repeating: "x", count: 256) } == .limit)
        #expect(refused { $0.expertName = String(repeating: "x", count: 255) } == nil)
        #expect(
            refused { $0.metadata = ["x": .string(String(repeating: "y", count: 1 << 20))] }
                == .limit)
        #expect(refused { $0.index = JSONValue.integers.upperBound + 1 } == .malformed)
        #expect(refused { $0.timestamp = -1 } == .malformed)
        #expect(refused { $0.nonce = "00" } == .malformed)
    }
}
