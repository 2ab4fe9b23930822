internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import CBlyanPlugin

/// The services that gates ask the host for, beside those that every plugin has.
package enum GateServices {
    // Safe: static tables, written once.
    private nonisolated(unsafe) static let tensors = unsafe table(
        unsafe blyan_tensors(
            struct_size: UInt32(MemoryLayout<blyan_tensors>.size), reserved: 0,
            list: { candidate, subject, tensors, capacity, count, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    guard let count = unsafe count else {
                        throw KernelError(.limit, "list got a null pointer")
                    }
                    let found = try judged.bytes(subject).tensors
                    unsafe count.pointee = UInt32(found.count)
                    for i in 0..<min(found.count, Int(capacity)) {
                        unsafe tensors?[i] = found[i].raw
                    }
                    return found.count > Int(capacity) ? BLYAN_E_CAPACITY : BLYAN_OK
                }
            },
            decode: { candidate, subject, index, begin, end, out, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    let bytes = try judged.bytes(subject)
                    guard Int(index) < bytes.tensors.count, begin <= end,
                        end <= UInt64(bytes.tensors[Int(index)].rows), let out = unsafe out
                    else { throw KernelError(.limit, "there is no row \(end) of tensor \(index)") }
                    let tensor = bytes.tensors[Int(index)]
                    let rows = Int(begin)..<Int(end)
                    try unsafe bytes.format.decode(
                        bytes.payload, tensor: tensor, index: Int(index), rows: rows,
                        into: UnsafeMutableBufferPointer(
                            start: out, count: rows.count * tensor.columns))
                    return BLYAN_OK
                }
            }))

    // Safe: as above.
    private nonisolated(unsafe) static let evaluate = unsafe table(
        unsafe blyan_evaluate(
            struct_size: UInt32(MemoryLayout<blyan_evaluate>.size), reserved: 0,
            documents: { candidate, wanted, documents, count, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    guard let count = unsafe count else {
                        throw KernelError(.limit, "documents got a null pointer")
                    }
                    guard let evaluator = judged.evaluator else {
                        unsafe error?.pointee.write("the node has no held-out text left")
                        return BLYAN_E_UNSUPPORTED
                    }
                    evaluator.ask()
                    let found = evaluator.documents.prefix(Int(clamping: wanted))
                    unsafe count.pointee = UInt64(found.count)
                    for (i, document) in found.enumerated() {
                        var entry = blyan_document()
                        entry.line = UInt64(document.line)
                        entry.tokens = UInt32(document.tokens.count - 1)
                        let name = Array(document.slice.utf8.prefix(Int(BLYAN_SLICE_MAX)))
                        entry.slice_length = UInt32(name.count)
                        unsafe withUnsafeMutableBytes(of: &entry.slice) {
                            unsafe $0.copyBytes(from: name)
                        }
                        unsafe documents?[i] = entry
                    }
                    return BLYAN_OK
                }
            },
            losses: { candidate, subject, path, begin, end, out, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    guard let evaluator = judged.evaluator else {
                        unsafe error?.pointee.write("the node has no held-out text left")
                        return BLYAN_E_UNSUPPORTED
                    }
                    evaluator.ask()
                    guard begin <= end, end <= UInt64(evaluator.documents.count),
                        let out = unsafe out,
                        subject <= UInt32(BLYAN_SUBJECT_CANDIDATE),
                        path <= UInt32(BLYAN_PATH_REFERENCE)
                    else { throw KernelError(.limit, "there are no documents \(begin)..<\(end)") }
                    let losses: [Int64]
                    do {
                        losses = try evaluator.losses(
                            subject == UInt32(BLYAN_SUBJECT_PARENT) ? .baseline : .candidate,
                            path == UInt32(BLYAN_PATH_FAST) ? .fast : .reference,
                            Int(begin)..<Int(end))
                    } catch let error as KernelError {
                        throw error
                    } catch {
                        throw KernelError(.malformed, "\(error)")
                    }
                    for (i, loss) in losses.enumerated() { unsafe out[i] = loss }
                    return BLYAN_OK
                }
            }))

    // Safe: as above.
    private nonisolated(unsafe) static let history = unsafe table(
        unsafe blyan_history(
            struct_size: UInt32(MemoryLayout<blyan_history>.size), reserved: 0,
            count: { candidate, verdicts, parts, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    unsafe verdicts?.pointee = UInt64(judged.history.verdictCount)
                    unsafe parts?.pointee = UInt64(judged.history.parts.count)
                    return BLYAN_OK
                }
            },
            verdict: { candidate, index, gates, json, capacity, length, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    guard let length = unsafe length,
                        index < UInt64(judged.history.verdictCount)
                    else { throw KernelError(.limit, "there is no verdict \(index)") }
                    let names = unsafe UnsafeRawBufferPointer(
                        start: gates.data, count: Int(clamping: gates.size))
                    let text = unsafe String(decoding: names, as: UTF8.self)
                    let found = try judged.history.verdict(
                        Int(index), Set(text.split(separator: " ").map(String.init))
                    ).canonical()
                    unsafe length.pointee = UInt64(found.count)
                    guard let json = unsafe json, UInt64(found.count) <= capacity else {
                        return BLYAN_E_CAPACITY
                    }
                    unsafe UnsafeMutableRawBufferPointer(start: json, count: found.count)
                        .copyBytes(from: found)
                    return BLYAN_OK
                }
            },
            part: { candidate, index, part, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    guard let part = unsafe part, index < UInt64(judged.history.parts.count)
                    else { throw KernelError(.limit, "there is no part \(index)") }
                    let found = judged.history.parts[Int(index)]
                    let name = Array(found.name.utf8.prefix(Int(BLYAN_PART_NAME_MAX)))
                    unsafe part.pointee.name_length = UInt32(name.count)
                    unsafe withUnsafeMutableBytes(of: &part.pointee.name) {
                        unsafe $0.copyBytes(from: name)
                    }
                    let header = try judged.history.block(found.block).header
                    unsafe withUnsafeMutableBytes(of: &part.pointee.block) {
                        unsafe $0.copyBytes(from: found.block.bytes)
                    }
                    unsafe withUnsafeMutableBytes(of: &part.pointee.previous) {
                        unsafe $0.copyBytes(from: (header.previous ?? .zero).bytes)
                    }
                    return BLYAN_OK
                }
            }))

    // Safe: as above.
    private nonisolated(unsafe) static let probe = unsafe table(
        unsafe blyan_probe(
            struct_size: UInt32(MemoryLayout<blyan_probe>.size), reserved: 0,
            run: { candidate, prompts, count, tokens, said, words, error in
                unsafe answer(candidate, error) { judged throws(KernelError) in
                    guard let evaluator = judged.evaluator else {
                        unsafe error?.pointee.write("the node has no held-out text left")
                        return BLYAN_E_UNSUPPORTED
                    }
                    evaluator.ask()
                    guard let prompts = unsafe prompts, let said = unsafe said,
                        let words = unsafe words, count <= 4096,
                        1...UInt32(BLYAN_SAID_TOKENS) ~= tokens
                    else { throw KernelError(.limit, "\(count) prompts, \(tokens) tokens each") }
                    var wanted: [Evaluator.Prompt] = []
                    for i in 0..<Int(count) {
                        wanted.append(try unsafe prompt(prompts[i]))
                    }
                    let found: [Evaluator.Probe]
                    do {
                        found = try evaluator.probe(wanted, tokens: Int(tokens))
                    } catch let error as KernelError {
                        throw error
                    } catch {
                        throw KernelError(.malformed, "\(error)")
                    }
                    for (i, probe) in found.enumerated() {
                        unsafe said[i] = blyan_said(
                            candidate_unat: probe.candidate, lineage_unat: probe.lineage,
                            run: UInt32(probe.run), served: UInt32(probe.served))
                        for (k, token) in probe.tokens.enumerated() {
                            unsafe words[i * Int(tokens) + k] = UInt32(token)
                        }
                    }
                    return BLYAN_OK
                }
            }))

    private static func prompt(_ raw: blyan_prompt) throws(KernelError) -> Evaluator.Prompt {
        let bytes = unsafe UnsafeRawBufferPointer(
            start: raw.text.data, count: Int(clamping: raw.text.size))
        guard let text = unsafe String(validating: Array(bytes), as: UTF8.self) else {
            throw KernelError(.limit, "a prompt is no UTF-8")
        }
        let document =
            unsafe raw.document == UInt64.max ? nil : unsafe Int(clamping: raw.document)
        return unsafe Evaluator.Prompt(
            document: document, beginning: Int(clamping: raw.beginning), text: text)
    }

    /// Static tables by id.
    package static var tables: [String: UnsafeRawPointer] {
        unsafe [
            BLYAN_HOST_TENSORS: tensors, BLYAN_HOST_EVALUATE: evaluate, BLYAN_HOST_HISTORY: history,
            BLYAN_HOST_PROBE: probe,
        ]
    }

    private static func table<Table>(_ table: Table) -> UnsafeRawPointer {
        let copy = UnsafeMutablePointer<Table>.allocate(capacity: 1)
        unsafe copy.initialize(to: table)
        return UnsafeRawPointer(copy)
    }

    private static func answer(
        _ candidate: UnsafePointer<blyan_candidate>?, _ error: UnsafeMutablePointer<blyan_error>?,
        _ body: (JudgedSubject) throws(KernelError) -> Int
    ) -> blyan_status {
        guard let judged = unsafe JudgedSubject.of(candidate) else {
            return blyan_status(BLYAN_E_ARGUMENT)
        }
        do throws(KernelError) {
            guard let call = judged.call else {
                throw KernelError(.limit, "no gate is asked about this candidate")
            }
            return try call.serve { () throws(KernelError) in
                try blyan_status(truncatingIfNeeded: body(judged))
            }
        } catch let problem {
            unsafe error?.pointee.write(problem.message)
            switch problem.code {
            case .limit: return blyan_status(BLYAN_E_ARGUMENT)
            case .integrity: return blyan_status(BLYAN_E_INTEGRITY)
            case .cancelled: return blyan_status(BLYAN_E_CANCELLED)
            case .malformed: return blyan_status(BLYAN_E_MALFORMED)
            default: return blyan_status(BLYAN_E_IO)
            }
        }
    }
}
