internal import CBlyanPlugin

extension PluginTable {
    /// The table of a gate.
    public static func gate<G: Gate>(_: G.Type) -> PluginTable {
        let ability = unsafe Ability(
            blyan_gate(
                struct_size: UInt32(MemoryLayout<blyan_gate>.size), reserved: 0,
                judge: { instance, candidate, out, error in
                    unsafe answer(error) { () throws(PluginError) in
                        guard let candidate = unsafe candidate, let out = unsafe out else {
                            throw PluginError(BLYAN_E_ARGUMENT, "judge got a null pointer")
                        }
                        let made = try unsafe Instance.at(instance)
                        guard let gate = made.plugin as? any Gate else {
                            throw PluginError(BLYAN_E_INTERNAL, "the instance is no gate")
                        }
                        let verdict = try unsafe gate.judge(Candidate(candidate, host: made.host))
                        try unsafe write(verdict, to: out)
                    }
                }))
        return unsafe PluginTable(G.self, kind: Int(BLYAN_KIND_GATE), minor: 1) { id in
            unsafe id == BLYAN_GATE_JUDGE ? ability.table : nil
        }
    }
}

/// Copies a verdict to where the host wants it.
private func write(_ verdict: Verdict, to out: UnsafeMutablePointer<blyan_verdict>)
    throws(PluginError)
{
    guard unsafe Int(out.pointee.struct_size) >= MemoryLayout<blyan_verdict>.size else {
        throw PluginError(BLYAN_E_ARGUMENT, "the verdict's struct is shorter than that of ABI 1.1")
    }
    var reason = ""
    switch verdict.outcome {
    case .accept: unsafe out.pointee.verdict = Int32(BLYAN_VERDICT_ACCEPT)
    case .reject(let code):
        unsafe out.pointee.verdict = Int32(BLYAN_VERDICT_REJECT)
        reason = code
    case .defer(let code):
        unsafe out.pointee.verdict = Int32(BLYAN_VERDICT_DEFER)
        reason = code
    }
    let code = reason.utf8.prefix(Int(BLYAN_REASON_MAX))
    unsafe withUnsafeMutableBytes(of: &out.pointee.reason) { unsafe $0.copyBytes(from: code) }
    unsafe out.pointee.reason_length = UInt32(code.count)
    let evidence = JSONValue.object(verdict.evidence).canonical()
    guard let length = UInt32(exactly: evidence.count) else {
        throw PluginError(BLYAN_E_LIMIT, "the evidence has \(evidence.count) bytes")
    }
    unsafe out.pointee.evidence_length = length
    guard let room = unsafe out.pointee.evidence,
        unsafe UInt64(length) <= out.pointee.evidence_capacity
    else { throw PluginError(BLYAN_E_CAPACITY, "the evidence needs \(length) bytes") }
    unsafe UnsafeMutableRawBufferPointer(start: room, count: evidence.count)
        .copyBytes(from: evidence)
}
