internal import BlyanPluginKit
internal import CBlyanPlugin

/// Obeys the instructions of a pickle and builds tensors from them, and nothing else.
///
/// There is no table from names to functions: a name is either in ``Global/allowed`` or the pickle is refused.
struct Machine {
    /// What the pickle lies in decides what it may mention.
    enum Container {
        case zip, legacy, raw
        /// The bytes of one storage inside a raw pickle.
        case nested

        var hasStorages: Bool { self != .raw }
    }

    let container: Container
    var stream: ByteStream
    var opcodes = 0
    /// Latin-1 bytes that may still be scanned.
    var scans: UInt64
    var items = 0

    var stack: [Value] = []
    private var marks: [Int] = []
    private var memo: [Value?] = []

    var texts: [Text] = []
    var blobs: [Blob] = []
    var sequences: [[Value]] = []
    var dicts: [[(key: Value, value: Value)]] = []
    var storages: [Storage] = []
    var storageNumbers: [String: Int] = [:]
    var references: [StorageReference] = []
    var tensors: [Tensor] = []
    var arrayTypes: [ArrayType] = []
    /// Arrays that `_reconstruct` began; nil until BUILD gives them shape and bytes.
    var arrays: [Tensor?] = []

    private var opcode: UInt8 = 0
    private var place: UInt64 = 0

    init(_ container: Container, _ blob: Blob, payloadSize: UInt64) {
        self.container = container
        stream = ByteStream(blob)
        scans = (payloadSize.times(Limits.scansPerByte) ?? .max).plus(65_536) ?? .max
    }

    /// Names instruction and place in front of what is wrong.
    func fault(_ what: String, _ status: some BinaryInteger = BLYAN_E_MALFORMED) -> PluginError {
        let name =
            Opcode(rawValue: opcode).map { "\($0)" } ?? Opcode.refused[opcode]
            ?? "0x" + String(opcode, radix: 16)
        return PluginError(status, "opcode \(name) at byte \(place): \(what)")
    }

    /// Runs one pickle from the stream's place to its STOP.
    mutating func run(_ payload: borrowing Payload) throws(PluginError) -> Value {
        stack.removeAll(keepingCapacity: true)
        marks.removeAll(keepingCapacity: true)
        memo.removeAll(keepingCapacity: true)
        place = stream.offset
        opcode = try stream.byte(payload)
        guard opcode == Opcode.proto.rawValue else {
            throw unsupported(
                "byte \(place) is \(opcode), expected 128, which begins a pickle of protocol 2 to 5"
            )
        }
        let version = try stream.byte(payload)
        guard (2...5).contains(version) else {
            throw fault("protocol \(version), this plugin reads 2 to 5", BLYAN_E_UNSUPPORTED)
        }
        while true {
            place = stream.offset
            opcode = try stream.byte(payload)
            opcodes += 1
            guard opcodes <= Limits.opcodes else {
                throw fault("over \(Limits.opcodes) instructions", BLYAN_E_LIMIT)
            }
            guard let instruction = Opcode(rawValue: opcode) else {
                throw fault(
                    Opcode.refused[opcode] == nil ? "no such instruction" : "is never obeyed",
                    Opcode.refused[opcode] == nil ? BLYAN_E_MALFORMED : BLYAN_E_UNSUPPORTED)
            }
            if instruction == .stop {
                let result = try pop()
                guard stack.isEmpty, marks.isEmpty else {
                    throw fault("\(stack.count) values and \(marks.count) marks are left over")
                }
                return result
            }
            try obey(instruction, payload)
            guard stack.count <= Limits.stack else {
                throw fault("over \(Limits.stack) values on the stack", BLYAN_E_LIMIT)
            }
        }
    }

    // MARK: stack and memo

    mutating func pop() throws(PluginError) -> Value {
        guard stack.count > marks.last ?? 0, let value = stack.popLast() else {
            throw fault("the stack is empty")
        }
        return value
    }

    private func top() throws(PluginError) -> Value {
        guard stack.count > marks.last ?? 0, let value = stack.last else {
            throw fault("the stack is empty")
        }
        return value
    }

    private mutating func popMark() throws(PluginError) -> ArraySlice<Value> {
        guard let mark = marks.popLast() else { throw fault("there is no mark") }
        return take(stack.count - mark)
    }

    private mutating func popped(_ count: Int) throws(PluginError) -> ArraySlice<Value> {
        guard stack.count - (marks.last ?? 0) >= count else { throw fault("the stack is empty") }
        return take(count)
    }

    /// The last values, copied: a slice of the stack would make the stack itself be copied when it shrinks.
    private mutating func take(_ count: Int) -> ArraySlice<Value> {
        let values = Array(stack.suffix(count))
        stack.removeLast(count)
        return values[...]
    }

    private func remembered(_ index: UInt64) throws(PluginError) -> Value {
        guard index < UInt64(memo.count), let value = memo[Int(index)] else {
            throw fault("memo \(index) holds nothing")
        }
        return value
    }

    private mutating func remember(_ index: UInt64) throws(PluginError) {
        guard index < UInt64(Limits.memo) else {
            throw fault("memo \(index), at most \(Limits.memo) are kept", BLYAN_E_LIMIT)
        }
        let value = try top()
        while UInt64(memo.count) <= index { memo.append(nil) }
        memo[Int(index)] = value
    }

    /// Counts values that move into containers: a memo can hand out one list many times.
    mutating func charge(_ count: Int) throws(PluginError) {
        items += count
        guard items <= Limits.items else {
            throw fault("over \(Limits.items) values in containers", BLYAN_E_LIMIT)
        }
    }

    mutating func sequence(_ values: ArraySlice<Value>) throws(PluginError) -> Int {
        try charge(values.count + 3)
        sequences.append(Array(values))
        return sequences.count - 1
    }

    mutating func dictionary(_ values: ArraySlice<Value>) throws(PluginError) -> Value {
        try charge(1)
        dicts.append([])
        try set(values, in: dicts.count - 1)
        return .dict(dicts.count - 1)
    }

    private mutating func set(_ values: ArraySlice<Value>, in dict: Int) throws(PluginError) {
        guard values.count % 2 == 0 else { throw fault("a key without a value") }
        try charge(values.count)
        for i in stride(from: values.startIndex, to: values.endIndex, by: 2) {
            dicts[dict].append((values[i], values[i + 1]))
        }
    }

    // MARK: literals

    private mutating func bytes(
        _ payload: borrowing Payload, lengthWidth: Int
    ) throws(PluginError) -> Value {
        let count = try stream.number(payload, lengthWidth)
        guard count <= stream.rest else {
            throw fault("\(count) bytes, \(stream.rest) are left")
        }
        try charge(Limits.itemsAnObject)
        blobs.append(try stream.skip(payload, count, budget: &scans))
        return .bytes(blobs.count - 1)
    }

    private mutating func text(
        _ payload: borrowing Payload, lengthWidth: Int, isBinary: Bool = false
    ) throws(PluginError) -> Value {
        let count = try stream.number(payload, lengthWidth)
        guard count <= stream.rest else {
            throw fault("text of \(count) bytes, \(stream.rest) are left")
        }
        try charge(Limits.itemsAnObject)
        var ahead = stream
        let blob = try stream.skip(payload, count, budget: &scans)
        var string: String?
        if count <= Limits.text {
            string = String(validating: try ahead.read(payload, count), as: UTF8.self)
        }
        texts.append(Text(blob: blob, string: string, isBinary: isBinary))
        return .text(texts.count - 1)
    }

    /// A number of `width` bytes in two's complement.
    private mutating func long(_ payload: borrowing Payload, _ width: UInt64) throws(PluginError)
        -> Value
    {
        guard width <= Limits.text else { throw fault("a number of \(width) bytes", BLYAN_E_LIMIT) }
        let bytes = try stream.read(payload, width)
        if bytes == Self.magic { return .magic }
        guard width <= 8 else { return .leaf }
        guard let last = bytes.last else { return .int(0) }
        var value: UInt64 = last & 0x80 == 0 ? 0 : .max
        for byte in bytes.reversed() { value = value << 8 | UInt64(byte) }
        return .int(Int64(bitPattern: value))
    }

    /// 0x1950A86A20F9469CFC6C, which `torch.save` without zip writes first.
    static let magic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]

    private mutating func line(_ payload: borrowing Payload) throws(PluginError) -> String {
        var bytes: [UInt8] = []
        while true {
            let byte = try stream.byte(payload)
            if byte == 0x0A { return String(decoding: bytes, as: UTF8.self) }
            bytes.append(byte)
            guard bytes.count <= 256 else { throw fault("a name of over 256 bytes", BLYAN_E_LIMIT) }
        }
    }

    private func global(_ module: String, _ name: String) throws(PluginError) -> Value {
        guard let global = Global.allowed["\(module)\n\(name)"] else {
            throw fault("\(module).\(name) is not on the list of FORMAT.md", BLYAN_E_UNSUPPORTED)
        }
        return .global(global)
    }

    /// The characters of a short text.
    func string(_ value: Value) -> String? {
        guard case .text(let number) = value else { return nil }
        return texts[number].string
    }

    private mutating func obey(
        _ instruction: Opcode, _ payload: borrowing Payload
    ) throws(PluginError) {
        switch instruction {
        case .proto: throw fault("stands in the middle of a pickle")
        case .stop: break
        case .frame:
            let length = try stream.number(payload, 8)
            guard length <= stream.rest else {
                throw fault("a frame of \(length) bytes, \(stream.rest) are left")
            }
        case .mark:
            guard marks.count < Limits.nesting else {
                throw fault("over \(Limits.nesting) marks", BLYAN_E_LIMIT)
            }
            marks.append(stack.count)
        case .pop: _ = try pop()
        case .popMark: _ = try popMark()
        case .dup: stack.append(try top())
        case .none: stack.append(.none)
        case .newTrue: stack.append(.bool(true))
        case .newFalse: stack.append(.bool(false))
        case .binInt:
            stack.append(
                .int(Int64(Int32(truncatingIfNeeded: try stream.number(payload, 4)))))
        case .binInt1: stack.append(.int(Int64(try stream.byte(payload))))
        case .binInt2: stack.append(.int(Int64(try stream.number(payload, 2))))
        case .long1: stack.append(try long(payload, stream.number(payload, 1)))
        case .long4: stack.append(try long(payload, stream.number(payload, 4)))
        case .binFloat:
            _ = try stream.number(payload, 8)
            stack.append(.leaf)
        case .binString: stack.append(try text(payload, lengthWidth: 4, isBinary: true))
        case .shortBinString: stack.append(try text(payload, lengthWidth: 1, isBinary: true))
        case .binUnicode: stack.append(try text(payload, lengthWidth: 4))
        case .shortBinUnicode: stack.append(try text(payload, lengthWidth: 1))
        case .binUnicode8: stack.append(try text(payload, lengthWidth: 8))
        case .binBytes: stack.append(try bytes(payload, lengthWidth: 4))
        case .shortBinBytes: stack.append(try bytes(payload, lengthWidth: 1))
        case .binBytes8, .byteArray8: stack.append(try bytes(payload, lengthWidth: 8))
        case .binGet: stack.append(try remembered(stream.number(payload, 1)))
        case .longBinGet: stack.append(try remembered(stream.number(payload, 4)))
        case .binPut: try remember(stream.number(payload, 1))
        case .longBinPut: try remember(stream.number(payload, 4))
        case .memoize: try remember(UInt64(memo.count))
        case .global:
            let module = try line(payload)
            stack.append(try global(module, line(payload)))
        case .stackGlobal:
            let (name, module) = (try pop(), try pop())
            guard let name = string(name), let module = string(module) else {
                throw fault("module or name is no short text")
            }
            stack.append(try global(module, name))
        case .reduce:
            let (arguments, function) = (try pop(), try pop())
            guard case .tuple(let number) = arguments, case .global(let global) = function else {
                throw fault("expects a name of the list and a tuple")
            }
            try charge(Limits.itemsAnObject)
            stack.append(try construct(global, sequences[number], payload))
        case .build:
            let state = try pop()
            try build(top(), state, payload)
        case .binPersistentID:
            try charge(Limits.itemsAnObject)
            stack.append(try persistent(pop()))
        default: try gather(instruction)
        }
    }

    private mutating func gather(_ instruction: Opcode) throws(PluginError) {
        switch instruction {
        case .emptyTuple: stack.append(.tuple(try sequence([])))
        case .tuple: stack.append(.tuple(try sequence(popMark())))
        case .tuple1: stack.append(.tuple(try sequence(popped(1))))
        case .tuple2: stack.append(.tuple(try sequence(popped(2))))
        case .tuple3: stack.append(.tuple(try sequence(popped(3))))
        case .emptyList: stack.append(.list(try sequence([])))
        case .list: stack.append(.list(try sequence(popMark())))
        case .append, .appends:
            let values = instruction == .append ? try popped(1) : try popMark()
            guard case .list(let number) = try top() else { throw fault("there is no list") }
            try charge(values.count)
            sequences[number].append(contentsOf: values)
        case .emptyDict: stack.append(try dictionary([]))
        case .dict: stack.append(try dictionary(popMark()))
        case .setItem, .setItems:
            let values = instruction == .setItem ? try popped(2) : try popMark()
            guard case .dict(let number) = try top() else { throw fault("there is no dictionary") }
            try set(values, in: number)
        case .emptySet: stack.append(.leaf)
        case .frozenSet:
            _ = try popMark()
            stack.append(.leaf)
        case .addItems:
            _ = try popMark()
            guard try top() == .leaf else { throw fault("there is no set") }
        default: throw fault("is not obeyed", BLYAN_E_INTERNAL)
        }
    }
}
