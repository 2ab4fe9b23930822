package import BlyanJSON
package import BlyanKernel
package import BlyanModel
internal import CBlyanPlugin
internal import Foundation
internal import Synchronization

// Safe and Sendable: the table is static and belongs to the plugin that is held.
/// A gate as the judge uses it: a typed call, and nothing believed that was not checked.
@safe package struct GatePlugin: @unchecked Sendable {
    package let plugin: LoadedPlugin
    private let table: UnsafePointer<blyan_gate>

    /// What a gate said.
    package struct Answer: Sendable, Equatable {
        package enum Outcome: String, Sendable { case accept, reject, `defer` }
        package let outcome: Outcome
        /// The gate's own code; "" with accept.
        package let reason: String
        package let evidence: JSONValue
    }

    /// Bytes of evidence that a gate may give.
    private static let evidenceLimit = 16 << 20

    /// - Throws: ``KernelError/Code/plugin`` if the plugin is of another kind.
    package init(_ plugin: LoadedPlugin) throws(KernelError) {
        guard let table = unsafe plugin.table(BLYAN_GATE_JUDGE, as: blyan_gate.self) else {
            throw KernelError(
                .plugin,
                "plugin \(plugin.manifest.name) is a \(plugin.manifest.kind.rawValue), expected a gate"
            )
        }
        self.plugin = plugin
        unsafe self.table = table
    }

    /// Asks the gate, for as long as its manifest's `limits.call_milliseconds` allow.
    ///
    /// Any thread; calls of one instance wait for each other. A call that takes too long is left, see ``PluginCall``.
    ///
    /// - Throws: ``KernelError`` naming the gate: a fault, which is never a reject; with code `cancelled` on request.
    package func judge(_ subject: JudgedSubject, header: JSONValue, context: JSONValue)
        throws(KernelError)
        -> Answer
    {
        let candidate = context["candidate"]?.string ?? ""
        return try PluginCall.run(plugin, about: "candidate \(candidate)") {
            [self] call throws(KernelError) in
            try subject.serves(call) { () throws(KernelError) in
                try ask(subject, call, header: header, context: context)
            }
        }
    }

    private func ask(
        _ subject: JudgedSubject, _ call: PluginCall, header: JSONValue, context: JSONValue
    ) throws(KernelError) -> Answer {
        let room = AlignedBuffer<CChar>(count: Self.evidenceLimit)
        var verdict = unsafe blyan_verdict()
        unsafe verdict.struct_size = UInt32(MemoryLayout<blyan_verdict>.size)
        unsafe verdict.verdict = -1
        unsafe verdict.evidence_capacity = UInt64(Self.evidenceLimit)
        unsafe verdict.evidence = room.pointer
        let (head, facts) = (header.canonical(), context.canonical())
        let instance = unsafe plugin.instance
        try unsafe subject.lend(to: call) { payload, parent throws(KernelError) in
            try plugin.call("judge") { error in
                unsafe head.withUnsafeBufferPointer { head in
                    unsafe facts.withUnsafeBufferPointer { facts in
                        var candidate = unsafe blyan_candidate(
                            struct_size: UInt32(MemoryLayout<blyan_candidate>.size), reserved: 0,
                            header: text(head), payload: payload, parent: parent,
                            context: text(facts),
                            handle: Unmanaged.passUnretained(subject).toOpaque())
                        return unsafe table.pointee.judge(instance, &candidate, &verdict, &error)
                    }
                }
            }
        }
        return try unsafe answer(verdict, room)
    }

    private func text(_ bytes: UnsafeBufferPointer<UInt8>) -> blyan_string {
        unsafe blyan_string(
            data: UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self),
            size: UInt64(bytes.count))
    }

    private func answer(_ verdict: blyan_verdict, _ room: AlignedBuffer<CChar>) throws(KernelError)
        -> Answer
    {
        func bad(_ what: String) -> KernelError {
            KernelError(.plugin, "the gate \(plugin.manifest.name) \(what)")
        }
        let outcomes: [Int: Answer.Outcome] = [
            Int(BLYAN_VERDICT_ACCEPT): .accept, Int(BLYAN_VERDICT_REJECT): .reject,
            Int(BLYAN_VERDICT_DEFER): .defer,
        ]
        guard let outcome = unsafe outcomes[Int(verdict.verdict)] else {
            throw unsafe bad("gave the verdict \(verdict.verdict), expected 0, 1 or 2")
        }
        guard unsafe verdict.evidence_length <= Self.evidenceLimit,
            unsafe verdict.reason_length <= UInt32(BLYAN_REASON_MAX)
        else { throw bad("counts more evidence than there is room for") }
        let reason = unsafe withUnsafeBytes(of: verdict.reason) {
            unsafe String(decoding: $0.prefix(Int(verdict.reason_length)), as: UTF8.self)
        }
        let isCode = reason.utf8.allSatisfy {
            (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-")
        }
        guard isCode, reason.isEmpty == (outcome == .accept) else {
            throw bad(
                "gave the reason \"\(reason)\", expected a code of a-z, 0-9 and - with reject or defer alone"
            )
        }
        let bytes = unsafe UnsafeRawBufferPointer(
            start: room.pointer, count: Int(verdict.evidence_length))
        return Answer(outcome: outcome, reason: reason, evidence: try evidence(unsafe Array(bytes)))
    }

    /// Evidence that a receipt can hold.
    private func evidence(_ bytes: [UInt8]) throws(KernelError) -> JSONValue {
        let depth = VerdictDocument.evidenceDepth
        var what = "is no canonical JSON object"
        do throws(JSONError) {
            var end = 0
            let evidence = try JSONValue(canonicalIn: bytes, at: &end, depth: depth)
            if case .object = evidence, end == bytes.count { return evidence }
        } catch {
            if error.isLimit {
                what =
                    "nests deeper than the \(JSONValue.depthLimit - depth) levels that a receipt has for it"
            }
        }
        throw KernelError(.plugin, "the gate \(plugin.manifest.name) gave evidence that \(what)")
    }
}

/// What services of the host know a candidate by: its bytes, its parent's, and the evaluation.
package final class JudgedSubject: Sendable {
    /// A payload with its format and tensors.
    package struct Bytes: Sendable {
        let payload: MappedPayload
        let format: FormatPlugin
        let tensors: [TensorDescription]

        package init(
            _ opened: (payload: MappedPayload, format: FormatPlugin, tensors: [TensorDescription])
        ) {
            (payload, format, tensors) = opened
        }
    }

    private let candidate: Bytes
    private let parent: Bytes?
    private let current = Mutex<PluginCall?>(nil)
    /// Nil while the node has no held-out text.
    let evaluator: Evaluator?
    /// What it may look back on.
    let history: JudgingHistory
    private let open: @Sendable (Block) throws -> Bytes

    /// - Parameter open: maps the payload of a part that stands in some model.
    package init(
        candidate: Bytes, parent: Bytes?, evaluator: Evaluator?, history: JudgingHistory,
        open: @escaping @Sendable (Block) throws -> Bytes
    ) {
        self.history = history
        self.open = open
        self.candidate = candidate
        self.parent = parent
        self.evaluator = evaluator
    }

    /// The call that a gate asks about it in.
    var call: PluginCall? { current.withLock { $0 } }

    /// Makes a call the one that it is asked about in, and lives as long as `body` runs.
    func serves<R>(_ call: PluginCall, _ body: () throws(KernelError) -> R) throws(KernelError) -> R
    {
        current.withLock { $0 = call }
        defer { withExtendedLifetime(self) {} }
        return try body()
    }

    /// Both payloads as plugins read them.
    func lend(
        to call: PluginCall,
        _ body: (UnsafePointer<blyan_payload>, UnsafePointer<blyan_payload>?) throws(KernelError) ->
            Void
    ) throws(KernelError) {
        try unsafe PayloadView(GatePayload(candidate.payload, for: call)).lend {
            own throws(KernelError) in
            guard let parent else { return try unsafe body(own, nil) }
            try unsafe PayloadView(GatePayload(parent.payload, for: call)).lend {
                other throws(KernelError) in
                try unsafe body(own, other)
            }
        }
    }

    func bytes(_ subject: UInt32) throws(KernelError) -> Bytes {
        switch Int(subject) {
        case Int(BLYAN_SUBJECT_CANDIDATE): return candidate
        case Int(BLYAN_SUBJECT_PARENT):
            if let parent { return parent }
            throw KernelError(.limit, "the candidate has no parent")
        default:
            let part = Int(subject) - Int(BLYAN_SUBJECT_PART)
            guard history.parts.indices.contains(part) else {
                throw KernelError(.limit, "there is no subject \(subject)")
            }
            do { return try open(history.block(history.parts[part].block)) } catch let error
                as KernelError
            {
                throw error
            } catch { throw KernelError(.malformed, "\(error)") }
        }
    }

    static func of(_ candidate: UnsafePointer<blyan_candidate>?) -> JudgedSubject? {
        guard let handle = unsafe candidate?.pointee.handle else { return nil }
        return unsafe Unmanaged<JudgedSubject>.fromOpaque(handle).takeUnretainedValue()
    }
}
