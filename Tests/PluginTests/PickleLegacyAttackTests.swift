import CBlyanPlugin
import Foundation
import Testing

/// Pickles that want more than to be tensors, and what they are told.
@Suite struct PickleLegacyAttackTests {
    struct Attack: CustomTestStringConvertible {
        let name: String, bytes: [UInt8], status: Int, says: String
        var testDescription: String { name }

        init(_ name: String, _ status: some BinaryInteger, _ says: String, _ bytes: [UInt8]) {
            (self.name, self.bytes, self.status, self.says) = (name, bytes, Int(status), says)
        }
    }

    typealias P = PickleAssembly
    static let unsupported = BLYAN_E_UNSUPPORTED, malformed = BLYAN_E_MALFORMED,
        limit = BLYAN_E_LIMIT

    static let calls: [Attack] = [
        Attack(
            "os.system", unsupported, "opcode global at byte 2: os.system is not on the list",
            P.pickle(P.global("os", "system"), P.tuple(P.text("true")), P.reduce)),
        Attack(
            "posix.system, not called", unsupported, "posix.system is not on the list",
            P.pickle(P.member(P.global("posix", "system")))),
        Attack(
            "eval", unsupported, "builtins.eval is not on the list",
            P.pickle(P.global("builtins", "eval"), P.tuple(P.text("1")), P.reduce)),
        Attack(
            "getattr through a dotted name", unsupported, "collections.OrderedDict.__init__",
            [0x80, 4] + P.text("collections") + P.text("OrderedDict.__init__") + [0x93, 0x2E]),
        Attack(
            "a module that names a list entry", unsupported, "is not on the list",
            P.pickle(P.global("torch\ncollections", "OrderedDict"))),
        Attack(
            "STACK_GLOBAL from the memo", unsupported, "os.system is not on the list",
            [0x80, 4] + P.text("system") + [0x94] + P.text("os") + [
                0x94, 0x30, 0x30, 0x68, 1, 0x68,
            ]
                + [0, 0x93, 0x2E]),
        Attack(
            "STACK_GLOBAL of numbers", malformed, "module or name is no short text",
            [0x80, 4, 0x4B, 1, 0x4B, 2, 0x93, 0x2E]),
        Attack(
            "INST", unsupported, "opcode INST at byte 3: is never obeyed",
            P.pickle(P.mark, Array("ios\nsystem\n".utf8))),
        Attack("OBJ", unsupported, "opcode OBJ", P.pickle(P.mark, P.none, [0x6F])),
        Attack(
            "NEWOBJ", unsupported, "opcode NEWOBJ",
            P.pickle(P.global("collections", "OrderedDict"), P.emptyTuple, [0x81])),
        Attack("NEWOBJ_EX", unsupported, "opcode NEWOBJ_EX", [0x80, 4, 0x92, 0x2E]),
        Attack("EXT1", unsupported, "opcode EXT1", P.pickle([0x82, 1])),
        Attack("EXT2", unsupported, "opcode EXT2", P.pickle([0x83, 1, 0])),
        Attack("EXT4", unsupported, "opcode EXT4", P.pickle([0x84, 1, 0, 0, 0])),
        Attack("PERSID", unsupported, "opcode PERSID", P.pickle([0x50, 0x30, 0x0A])),
        Attack("NEXT_BUFFER", unsupported, "opcode NEXT_BUFFER", [0x80, 5, 0x97, 0x2E]),
        Attack(
            "lists in one another", limit, "containers deep",
            [0x80, 4] + [UInt8](repeating: 0x5D, count: 100_000)
                + [UInt8](repeating: 0x61, count: 99_999) + [0x2E]),
        Attack("no instruction", malformed, "opcode 0xff at byte 2: no such", P.pickle([0xFF])),
        Attack(
            "REDUCE of what is no name", malformed, "expects a name of the list and a tuple",
            P.pickle(P.text("os.system"), P.emptyTuple, P.reduce)),
        Attack(
            "REDUCE of a storage class", malformed, "is not for building",
            P.pickle(P.global("torch", "FloatStorage"), P.emptyTuple, P.reduce)),
        Attack(
            "BUILD of a list", unsupported, "this object takes no state",
            P.pickle([0x5D, 0x7D], P.build)),
        Attack(
            "BUILD of a name", unsupported, "this object takes no state",
            P.pickle(P.global("collections", "OrderedDict"), [0x7D], P.build)),
        Attack(
            "BUILD of an array, twice", malformed, "this state of a numpy.ndarray",
            P.pickle(
                P.array([1], P.dtype("f4"), P.bytes([0, 0, 0, 0])),
                P.tuple(P.int(1), P.numbers([9]), P.dtype("f4"), [0x89], P.bytes([])), P.build)),
        Attack(
            "BUILD of a dtype, twice", unsupported, "this state of a numpy.dtype",
            P.pickle(
                P.dtype("f4"),
                P.tuple(
                    P.int(3), P.text("<"), P.none, P.none, P.none, P.int(-1), P.int(-1), P.int(0)),
                P.build)),
        Attack(
            "numpy object array", unsupported, "numpy dtype O8 is not read",
            P.pickle(P.array([1], P.dtype("O8"), P.bytes([])))),
        Attack(
            "codec with side effects", malformed, "encode takes text and latin1",
            P.pickle(
                P.global("_codecs", "encode"), P.tuple(P.text("a"), P.text("zlib")), P.reduce)),
        Attack(
            "persistent id in a pickle by itself", unsupported, "has no storages",
            P.pickle(P.storage(count: 1))),
        Attack(
            "_load_from_bytes of another pickle", malformed, "no PyTorch storage",
            P.pickle(
                P.global("torch.storage", "_load_from_bytes"),
                P.tuple(P.bytes(P.pickle(P.none))), P.reduce)),
        Attack(
            "_load_from_bytes of os.system", unsupported, "os.system is not on the list",
            P.pickle(
                P.global("torch.storage", "_load_from_bytes"),
                P.tuple(P.bytes(P.pickle(P.global("os", "system")))), P.reduce)),
    ]

    static let sizes: [Attack] = [
        Attack("empty", malformed, "0 bytes are no pickle", []),
        Attack("protocol 0", unsupported, "byte 0 is 40, expected 128", Array("(dp0\n.".utf8)),
        Attack("protocol 6", unsupported, "protocol 6", [0x80, 6, 0x4E, 0x2E]),
        Attack("PROTO twice", malformed, "stands in the middle", P.pickle([0x80, 2])),
        Attack("STOP of nothing", malformed, "the stack is empty", P.pickle(P.none, [0x30])),
        Attack("STOP with leftovers", malformed, "1 values and 0 marks", P.pickle(P.none, P.none)),
        Attack("STOP under a mark", malformed, "the stack is empty", P.pickle(P.none, P.mark)),
        Attack(
            "POP under a mark", malformed, "the stack is empty", P.pickle(P.none, P.mark, [0x30])),
        Attack("TUPLE2 of one", malformed, "the stack is empty", P.pickle(P.none, [0x86])),
        Attack("TUPLE without mark", malformed, "there is no mark", P.pickle(P.none, P.tuple)),
        Attack(
            "odd SETITEMS", malformed, "a key without a value",
            P.pickle([0x7D], P.mark, P.none, [0x75])),
        Attack(
            "APPEND to a tuple", malformed, "there is no list",
            P.pickle(P.emptyTuple, P.none, [0x61])),
        Attack("memo of nothing", malformed, "memo 7 holds nothing", P.pickle([0x68, 7])),
        Attack(
            "memo far out", limit, "memo 4294967295, at most 1048576",
            P.pickle(P.none, [0x72, 255, 255, 255, 255])),
        Attack(
            "BINUNICODE8 of exabytes", malformed, "text of 9223372036854775807 bytes",
            [0x80, 4, 0x8D] + P.little(UInt64(Int64.max), 8) + [0x2E]),
        Attack(
            "BINBYTES8 of all there is", malformed, "18446744073709551615 bytes, 1 are left",
            [0x80, 4, 0x8E] + P.little(.max, 8) + [0x2E]),
        Attack(
            "a frame of exabytes", malformed, "a frame of 18446744073709551615 bytes",
            [0x80, 4, 0x95] + P.little(.max, 8) + [0x4E, 0x2E]),
        Attack(
            "LONG4 of gigabytes", limit, "a number of 4294967295 bytes",
            P.pickle([0x8B, 255, 255, 255, 255])),
        Attack(
            "marks in marks", limit, "over 64 marks", P.pickle([UInt8](repeating: 0x28, count: 65))),
        Attack(
            "a stack of values", limit, "over 262144 values on the stack",
            P.pickle([UInt8](repeating: 0x4E, count: 300_000))),
        Attack(
            "instructions without end", limit, "over 4194304 instructions",
            P.pickle(P.none, (0..<2_100_000).flatMap { _ in [0x4E, 0x30] as [UInt8] })),
        Attack(
            "depth", limit, "64 containers deep",
            P.pickle(P.emptyTuple, [UInt8](repeating: 0x85, count: 100_000))),
        Attack(
            "a list in itself", limit, "64 containers deep",
            P.pickle([0x5D, 0x71, 0, 0x68, 0, 0x61])),
        Attack(
            "a billion laughs", limit, "1048576 values",
            P.pickle(
                P.tuple(P.none, P.none),
                (0..<40).flatMap { i in
                    [0x71, UInt8(i), 0x68, UInt8(i), 0x68, UInt8(i), 0x87] as [UInt8]
                })),
        Attack(
            "the same list copied again and again", limit, "values in containers",
            P.pickle(
                [0x5D, 0x71, 0], P.mark,
                (0..<1000).flatMap { _ in P.none + P.none + [0x86] as [UInt8] }, [0x65, 0x30],
                P.global("collections", "OrderedDict"), [0x71, 1, 0x30],
                (0..<3000).flatMap { _ in [0x68, 1, 0x68, 0, 0x85, 0x52, 0x30] as [UInt8] }, P.none)
        ),
        Attack(
            "bytes after the pickle", malformed, "bytes follow the pickle, at byte 4",
            P.pickle(P.none) + [0]),
        Attack(
            "an array larger than its bytes", malformed, "does not fill 4 bytes",
            P.pickle(P.array([2], P.dtype("f4"), P.bytes([0, 0, 0, 0])))),
        Attack(
            "an array of overflowing size", malformed, "does not fill 4 bytes",
            P.pickle(P.array([1 << 62, 1 << 62], P.dtype("f4"), P.bytes([0, 0, 0, 0])))),
        Attack(
            "an array of negative size", malformed, "no number from 0 on",
            P.pickle(P.array([-1, -4], P.dtype("f4"), P.bytes([0, 0, 0, 0])))),
        Attack(
            "big-endian", unsupported, "big-endian",
            P.pickle(P.array([1], P.dtype("f4", order: ">"), P.bytes([0, 0, 0, 0])))),
        Attack(
            "an array that is never filled", malformed, "was begun and never filled",
            P.pickle(
                P.global("numpy._core.multiarray", "_reconstruct"),
                P.tuple(P.global("numpy", "ndarray"), P.numbers([0]), P.bytes([0x62])), P.reduce)),
        Attack(
            "two tensors of one name", malformed, "two tensors are named a.b",
            P.pickle(
                [0x7D], P.mark, P.text("a.b"), P.array([1], P.dtype("i1"), P.bytes([1])),
                P.text("a"),
                [0x7D], P.text("b"), P.array([1], P.dtype("i1"), P.bytes([1])), [0x73, 0x75])),
        Attack(
            "a name of 128 bytes", limit, "has 128 bytes, at most 127",
            P.pickle(
                [0x7D], P.text(String(repeating: "n", count: 128)),
                P.array([1], P.dtype("i1"), P.bytes([1])), [0x73])),
        Attack(
            "names without end", limit, "is over 1024 bytes",
            P.pickle(
                (0..<20).flatMap { _ in [0x7D] + P.text(String(repeating: "n", count: 100)) },
                P.emptyTuple,
                [UInt8](repeating: 0x73, count: 20))),
        Attack(
            "characters that are no bytes", malformed, "is not a latin-1 character",
            P.pickle(
                P.global("_codecs", "encode"), P.tuple(P.text("\u{100}"), P.text("latin1")),
                P.reduce)),
    ]

    static func inZip(_ value: [UInt8], _ data: [UInt8] = [UInt8](repeating: 0, count: 24))
        -> [UInt8]
    {
        var zip = ZipAssembly.sound
        zip.entries[0].data = P.pickle(P.member(value))
        zip.entries[2].data = data
        return zip.bytes()
    }

    /// What CVE-2026-24747 was made of: what the instructions say of a storage, and what the storage is.
    static let storages: [Attack] = [
        Attack(
            "more elements than bytes", malformed,
            "storage 0 has 28 bytes, its zip entry archive/data/0 has 24",
            inZip(P.tensor(P.storage(count: 7), [7], [1]))),
        Attack(
            "a wider type", malformed, "storage 0 has 48 bytes",
            inZip(P.tensor(P.storage("DoubleStorage", count: 6), [6], [1]))),
        Attack(
            "two sizes for one storage", malformed, "storage 0 has 28 bytes here and 24 before",
            inZip(
                P.tuple(
                    P.tensor(P.storage(count: 6), [6], [1]), P.tensor(P.storage(count: 7), [7], [1])
                ))),
        Attack(
            "a shape that leaves", malformed, "leaves its storage of 6 elements",
            inZip(P.tensor(P.storage(count: 6), [7], [1]))),
        Attack(
            "an offset that leaves", malformed, "leaves its storage of 6 elements",
            inZip(P.tensor(P.storage(count: 6), offset: 1, [6], [1]))),
        Attack(
            "a stride that leaves", malformed, "leaves its storage of 6 elements",
            inZip(P.tensor(P.storage(count: 6), [2, 3], [4, 1]))),
        Attack(
            "a stride that overflows", malformed, "leaves its storage of 6 elements",
            inZip(P.tensor(P.storage(count: 6), [3, 2], [Int64.max, Int64.max]))),
        Attack(
            "a negative stride", malformed, "no number from 0 on",
            inZip(P.tensor(P.storage(count: 6), [2], [-1]))),
        Attack(
            "a negative offset", malformed, "takes a storage and an offset",
            inZip(P.tensor(P.storage(count: 6), offset: -1, [2], [1]))),
        Attack(
            "a negative element count", malformed, "key, place and element count",
            inZip(P.tensor(P.storage(count: -6), [2], [1]))),
        Attack(
            "an element count that overflows", malformed, "cannot be",
            inZip(P.tensor(P.storage(count: Int64.max), [2], [1]))),
        Attack(
            "sizes without strides", malformed, "2 sizes and 1 strides",
            inZip(P.tensor(P.storage(count: 6), [2, 3], [1]))),
        Attack(
            "nine dimensions", limit, "9 dimensions",
            inZip(
                P.tensor(
                    P.storage(count: 6), [Int64](repeating: 1, count: 9),
                    [Int64](repeating: 1, count: 9)))),
        Attack(
            "elements without end", limit, "is over 68719476736 elements",
            inZip(P.tensor(P.storage(count: 6), [1 << 40, 1 << 40], [0, 0]))),
        Attack(
            "an expanded view of gigabytes", limit, "elements in a storage of 6",
            inZip(P.tensor(P.storage(count: 6), [1 << 30], [0]))),
        Attack(
            "a storage that is not there", malformed, "storage 9 has no zip entry",
            inZip(P.tensor(P.storage(key: "9", count: 6), [6], [1]))),
        Attack(
            "a storage that nobody mentions", malformed, "has 1 storages, the pickle mentions 0",
            inZip(P.none)),
        Attack(
            "a persistent id of a module", unsupported, "only persistent ids of storages",
            inZip(P.tuple(P.text("module"), P.none, P.none, P.none, P.none) + [0x51])),
        Attack(
            "a persistent id that is text", malformed, "no tuple of 5 or 6",
            inZip(P.text("0") + [0x51])),
        Attack(
            "a class that is no storage", malformed, "names no class",
            inZip(
                P.tuple(
                    P.text("storage"), P.global("collections", "OrderedDict"), P.text("0"),
                    P.text("cpu"),
                    P.int(6)) + [0x51])),
    ]

    @Test(arguments: calls + sizes + storages)
    func isRefused(attack: Attack) throws {
        let plugin = try PluginHarness("PickleLegacy")
        let payload = GuardedPayload(attack.bytes)
        let refusal = #expect(throws: Refusal.self) { try plugin.list(payload) }
        #expect(refusal?.message.contains(attack.says) == true, "\(refusal?.message ?? "read")")
        #expect(refusal.map { Int($0.status) } == attack.status)
        #expect(!payload.reads.contains { $0.upperBound == .max }, "it read outside of the payload")
    }

    /// A dimension of one element may have any stride; nothing may overflow on the way.
    @Test func strangeStridesAreFollowed() throws {
        let plugin = try PluginHarness("PickleLegacy")
        let data = (1...6).flatMap { i in withUnsafeBytes(of: Float(i)) { Array($0) } }
        let far = Int64.max
        for (sizes, strides, values) in [
            ([2, 1, 3], [3, far, 1], [1, 2, 3, 4, 5, 6]),
            ([1, 3, 1, 2], [far, 1, far, 3], [1, 4, 2, 5, 3, 6]),
            ([2, 2, 1], [1, 2, far], [1, 3, 2, 4]), ([3, 2], [0, 5], [1, 6, 1, 6, 1, 6]),
            ([1, 1], [far, far], [1]),
        ] as [([Int64], [Int64], [Float])] {
            let bytes = Self.inZip(P.tensor(P.storage(count: 6), sizes, strides), data)
            #expect(try plugin.decode(GuardedPayload(bytes)) == values)
        }
    }

    /// Odd, and still nothing but data.
    @Test(arguments: [
        P.pickle(P.member(P.tuple(P.text("os"), P.text("system")))),
        P.pickle(P.global("collections", "OrderedDict"), P.emptyTuple, P.reduce, [0x7D], P.build),
        P.pickle(P.text("os.system"), [0x32, 0x30]),
        [0x80, 4, 0x8F, 0x28, 0x4B, 1, 0x90, 0x2E],
        P.pickle(P.global("torch", "device"), P.tuple(P.text("cuda")), P.reduce),
    ])
    func isDataWithoutTensors(bytes: [UInt8]) throws {
        #expect(try PluginHarness("PickleLegacy").list(GuardedPayload(bytes)).isEmpty)
    }
}
