@_exported public import BlyanJSON
internal import CBlyanPlugin

/// A plugin of kind gate: says whether a candidate is good enough.
public protocol Gate: Plugin {
    /// Judges one candidate. Serial.
    ///
    /// The same bytes, context and documents give the same verdict and evidence on every machine.
    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict
}

/// A gate's answer, with what it rests on.
public struct Verdict: Sendable, Equatable {
    /// What becomes of the candidate.
    public enum Outcome: Sendable, Equatable {
        /// It goes on to the next gate.
        case accept
        /// It is refused, for a reason with this code.
        case reject(String)
        /// It cannot be judged now.
        case `defer`(String)
    }

    /// What becomes of the candidate.
    public var outcome: Outcome
    /// Facts, integers in stated units.
    public var evidence: [String: JSONValue]

    /// Makes a verdict.
    public init(_ outcome: Outcome, _ evidence: [String: JSONValue] = [:]) {
        self.outcome = outcome
        self.evidence = evidence
    }
}

// Safe: what it points at is valid during the call that got it, which it cannot outlive.
/// What a gate judges; valid during the call that got it.
@safe public struct Candidate: ~Copyable, ~Escapable {
    let table: UnsafePointer<blyan_candidate>
    private let tensorService: UnsafePointer<blyan_tensors>?
    private let evaluateService: UnsafePointer<blyan_evaluate>?
    private let historyService: UnsafePointer<blyan_history>?
    let probeService: UnsafePointer<blyan_probe>?
    /// The block header that would be stored.
    public let header: JSONValue
    /// Author, height, seed and names: what the verdict may depend on beside the bytes.
    public let context: JSONValue

    @_lifetime(borrow table)
    init(_ table: UnsafePointer<blyan_candidate>, host: HostServices) throws(PluginError) {
        // Whatever may throw comes first: a value that cannot be copied is made whole or not at all.
        let header = try unsafe Self.json(table.pointee.header, "header")
        let context = try unsafe Self.json(table.pointee.context, "context")
        unsafe self.table = table
        unsafe tensorService = host.service(BLYAN_HOST_TENSORS)?.assumingMemoryBound(
            to: blyan_tensors.self)
        unsafe evaluateService = host.service(BLYAN_HOST_EVALUATE)?.assumingMemoryBound(
            to: blyan_evaluate.self)
        unsafe historyService = host.service(BLYAN_HOST_HISTORY)?.assumingMemoryBound(
            to: blyan_history.self)
        unsafe probeService = host.service(BLYAN_HOST_PROBE)?.assumingMemoryBound(
            to: blyan_probe.self)
        self.header = header
        self.context = context
    }

    private static func json(_ text: blyan_string, _ what: String) throws(PluginError) -> JSONValue
    {
        let bytes = unsafe UnsafeRawBufferPointer(start: text.data, count: Int(text.size))
        do { return unsafe try JSONValue(parsing: Array(unsafe bytes)) } catch {
            throw PluginError(BLYAN_E_ARGUMENT, "the candidate's \(what) is no JSON: \(error)")
        }
    }

    /// Bytes of the candidate's payload.
    public var payloadSize: UInt64 { unsafe table.pointee.payload?.pointee.size ?? 0 }
    /// Bytes of the parent's payload, 0 without one.
    public var parentSize: UInt64 { unsafe table.pointee.parent?.pointee.size ?? 0 }
    /// Whether it declares a parent, which is here.
    public var hasParent: Bool { unsafe table.pointee.parent != nil }

    /// Whether it is the router that goes with a candidate; the gate is asked about that candidate next.
    public var isCompanion: Bool { context["with"] != nil }

    /// Whether it is a version that stands, and is judged again: what is asked is whether it is worse than its parent.
    public var isReview: Bool { context["review"] == .bool(true) }

    /// Whose numbers are asked for.
    public enum Subject: Sendable {
        /// The version that the candidate would replace.
        case parent
        /// The candidate.
        case candidate
        /// A part that stands in some model, by its number in the history.
        case part(Int)

        var code: UInt32 {
            switch self {
            case .parent: UInt32(BLYAN_SUBJECT_PARENT)
            case .candidate: UInt32(BLYAN_SUBJECT_CANDIDATE)
            case .part(let number): UInt32(clamping: number + Int(BLYAN_SUBJECT_PART))
            }
        }
    }

    // Safe: a copy of what the host said, without pointers.
    /// A tensor's name, shape and stored dtype.
    @safe public struct Tensor: Sendable, Equatable {
        /// Its name in the payload.
        public let name: String
        /// Output features; a vector has one.
        public let rows: Int
        /// Input features.
        public let columns: Int
        /// One of the `BLYAN_DTYPE_` codes.
        public let dtype: UInt32
        let index: UInt32

        /// Its rows in order, in ranges of some megabytes: what to decode at once.
        public var blocks: [Range<Int>] {
            let atOnce = max(1, (1 << 20) / max(1, columns))
            return stride(from: 0, to: rows, by: atOnce).map { $0..<min(rows, $0 + atOnce) }
        }
    }

    /// The tensors of a subject, in payload order.
    public func tensors(of subject: Subject) throws(PluginError) -> [Tensor] {
        guard let service = unsafe tensorService else { throw Self.missing(BLYAN_HOST_TENSORS) }
        var empty = blyan_tensor()
        empty.struct_size = UInt32(MemoryLayout<blyan_tensor>.size)
        var raw = [blyan_tensor](repeating: empty, count: 64)
        while true {
            var count: UInt32 = 0
            var error = Self.emptyError
            let status = unsafe service.pointee.list(
                table, subject.code, &raw, UInt32(raw.count), &count, &error)
            if status == BLYAN_E_CAPACITY, count > raw.count, count <= 65_536 {
                raw = [blyan_tensor](repeating: empty, count: Int(count))
                continue
            }
            try Self.check(status, error)
            return raw.prefix(Int(count)).enumerated().map { index, tensor in
                let name = unsafe withUnsafeBytes(of: tensor.name) {
                    unsafe String(decoding: $0.prefix(Int(tensor.name_length)), as: UTF8.self)
                }
                return Tensor(
                    name: name, rows: Int(clamping: tensor.rows),
                    columns: Int(clamping: tensor.columns), dtype: tensor.dtype,
                    index: UInt32(index))
            }
        }
    }

    /// Rows of a tensor as f32, row after row.
    public func decode(
        _ tensor: Tensor, of subject: Subject, rows: Range<Int>
    ) throws(PluginError) -> [Float] {
        guard let service = unsafe tensorService else { throw Self.missing(BLYAN_HOST_TENSORS) }
        let (count, overflow) = rows.count.multipliedReportingOverflow(by: tensor.columns)
        guard !overflow, rows.lowerBound >= 0, rows.upperBound <= tensor.rows else {
            throw PluginError(BLYAN_E_ARGUMENT, "rows \(rows) of \(tensor.name)")
        }
        var out = [Float](repeating: 0, count: count)
        var error = Self.emptyError
        let status = unsafe service.pointee.decode(
            table, subject.code, tensor.index, UInt64(rows.lowerBound),
            UInt64(rows.upperBound), &out, &error)
        try Self.check(status, error)
        return out
    }

    /// A held-out document of the draw.
    public struct Document: Sendable, Equatable {
        /// Its line in the shard, from 0.
        public let line: UInt64
        /// Tokens that are predicted.
        public let tokens: Int
        /// Its domain or language.
        public let slice: String
    }

    /// How losses are computed.
    public enum Path: UInt32, Sendable {
        /// By whatever is fast here.
        case fast = 0
        /// With the same bits on every machine.
        case reference = 1
    }

    /// The first documents of the draw, at most `limit`.
    ///
    /// - Throws: `BLYAN_E_UNSUPPORTED` if the node has no held-out text left.
    public func documents(_ limit: Int) throws(PluginError) -> [Document] {
        guard let service = unsafe evaluateService else { throw Self.missing(BLYAN_HOST_EVALUATE) }
        var raw = [blyan_document](repeating: blyan_document(), count: limit)
        var count: UInt64 = 0
        var error = Self.emptyError
        let status = unsafe service.pointee.documents(table, UInt64(limit), &raw, &count, &error)
        try Self.check(status, error)
        return raw.prefix(Int(clamping: count)).map { document in
            let slice = unsafe withUnsafeBytes(of: document.slice) {
                unsafe String(decoding: $0.prefix(Int(document.slice_length)), as: UTF8.self)
            }
            return Document(line: document.line, tokens: Int(document.tokens), slice: slice)
        }
    }

    /// The summed losses of documents of the draw, in micro-nats, of parent or candidate.
    public func losses(
        _ subject: Subject, _ path: Path, of documents: Range<Int>
    ) throws(PluginError) -> [Int64] {
        guard let service = unsafe evaluateService else { throw Self.missing(BLYAN_HOST_EVALUATE) }
        var out = [Int64](repeating: 0, count: documents.count)
        var error = Self.emptyError
        let status = unsafe service.pointee.losses(
            table, subject.code, path.rawValue, UInt64(documents.lowerBound),
            UInt64(documents.upperBound), &out, &error)
        try Self.check(status, error)
        return out
    }

    /// How much stood on the chain before this judgement.
    public func history() throws(PluginError) -> (verdicts: Int, parts: Int) {
        guard let service = unsafe historyService else { throw Self.missing(BLYAN_HOST_HISTORY) }
        var (verdicts, parts): (UInt64, UInt64) = (0, 0)
        var error = Self.emptyError
        try Self.check(unsafe service.pointee.count(table, &verdicts, &parts, &error), error)
        return (Int(clamping: verdicts), Int(clamping: parts))
    }

    /// An earlier verdict, oldest first: `block`, `outcome`, `reason`, `received`, and the `evidence` of some gates.
    public func verdict(_ number: Int, evidenceOf gates: [String]) throws(PluginError) -> JSONValue
    {
        guard let service = unsafe historyService else { throw Self.missing(BLYAN_HOST_HISTORY) }
        let names = Array(gates.joined(separator: " ").utf8)
        var room = [CChar](repeating: 0, count: 1 << 16)
        while true {
            var length: UInt64 = 0
            var error = Self.emptyError
            let status = unsafe names.withUnsafeBytes { names in
                let text = unsafe blyan_string(
                    data: names.baseAddress?.assumingMemoryBound(to: CChar.self),
                    size: UInt64(names.count))
                return unsafe service.pointee.verdict(
                    table, UInt64(clamping: number), text, &room, UInt64(room.count), &length,
                    &error)
            }
            if status == BLYAN_E_CAPACITY, length > room.count, length <= 64 << 20 {
                room = [CChar](repeating: 0, count: Int(length))
                continue
            }
            try Self.check(status, error)
            let bytes = room.prefix(Int(clamping: length)).map { UInt8(bitPattern: $0) }
            do { return try JSONValue(parsing: bytes) } catch {
                throw PluginError(BLYAN_E_MALFORMED, "verdict \(number) is no JSON: \(error)")
            }
        }
    }

    /// A part that stands in some model; hashes in hex.
    public struct Part: Sendable, Equatable {
        /// "layer4.expert7".
        public let name: String
        /// Its block.
        public let block: String
        /// The block that it replaced; of a first version a hash that no part has.
        public let previous: String
    }

    /// A part by its number in the history.
    public func part(_ number: Int) throws(PluginError) -> Part {
        guard let service = unsafe historyService else { throw Self.missing(BLYAN_HOST_HISTORY) }
        var raw = blyan_part()
        raw.struct_size = UInt32(MemoryLayout<blyan_part>.size)
        var error = Self.emptyError
        try Self.check(
            unsafe service.pointee.part(table, UInt64(clamping: number), &raw, &error), error)
        let name = unsafe withUnsafeBytes(of: raw.name) {
            unsafe String(decoding: $0.prefix(Int(raw.name_length)), as: UTF8.self)
        }
        let block = unsafe withUnsafeBytes(of: raw.block) { unsafe Self.hex($0) }
        let previous = unsafe withUnsafeBytes(of: raw.previous) { unsafe Self.hex($0) }
        return Part(name: name, block: block, previous: previous)
    }

    private static let digits = Array("0123456789abcdef")

    private static func hex(_ bytes: UnsafeRawBufferPointer) -> String {
        let bytes = unsafe Array(bytes)
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    static var emptyError: blyan_error {
        var error = blyan_error()
        error.struct_size = UInt32(MemoryLayout<blyan_error>.size)
        return error
    }

    static func missing(_ service: String) -> PluginError {
        PluginError(BLYAN_E_UNSUPPORTED, "the host lacks the service \(service)")
    }

    static func check(_ status: blyan_status, _ error: blyan_error) throws(PluginError) {
        if status != BLYAN_OK { throw PluginError(status, text(of: error)) }
    }
}
