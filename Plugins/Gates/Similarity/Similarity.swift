internal import BlyanPluginKit
public import CBlyanPlugin

// Unchecked: the host asks an instance one candidate at a time.
/// The gate that asks whether somebody else did this work already, or nobody did.
///
/// It compares the change against the declared parent with all changes that were judged before, and the whole weights
/// with all parts that stand in some model, both whatever the order and scale of neurons. No change, and a change that only
/// reorders or rescales, are refused too. Noise around the parent is left to the evaluation. First committer of equal
/// work wins; whoever was rejected may train more gently what is then much like it.
final class Similarity: Gate, @unchecked Sendable {
    static let name = "similarity"
    static let version = "1.1.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "threshold_ppm": {"type": "integer", "minimum": 500000, "maximum": 1000000, "default": 950000,
            "description": "What is this alike, in millionths of a cosine, is a copy."}}}
        """

    private let threshold: Int64
    /// Changes that were judged, by shape, numbered as the verdicts are.
    private var changes: [String: SketchIndex] = [:]
    private var verdicts = 0
    /// Authors whom a change that was rejected does not count against, by the verdict's number.
    private var owners: [Int: Set<String>] = [:]
    /// Parts of models by kind and shape, numbered as the history does.
    private var parts: [String: SketchIndex] = [:]
    private var blocks: [Candidate.Part] = []
    /// The first version of each part's line, by block.
    private var roots: [String: String] = [:]
    /// What the neurons of a part are called in that first version, where they stand in another order.
    private var names: [String: [Int]] = [:]
    private var numbers: [String: Int] = [:]

    init(host: HostServices, config: String) throws(PluginError) {
        threshold = try Settings(config).integer("threshold_ppm", default: 950_000)
    }

    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict {
        guard candidate.hasParent else { return Verdict(.reject("no-parent")) }
        let own = try Tensors(candidate, .candidate), parent = try Tensors(candidate, .parent)
        let shape = own.shape
        guard shape == parent.shape else { return Verdict(.reject("other-shape")) }
        let history = try candidate.history()
        try readChanges(candidate, history.verdicts)
        try readParts(candidate, history.parts)

        let alignment = try Alignment(candidate, own, parent)
        let block = candidate.context["parent"]?.string ?? ""
        let change = try Change(candidate, own, parent, alignment, names: names[block])
        let sketch = try Sketch(candidate, own), old = try Sketch(candidate, parent)
        // All of what the parent computes, stronger or weaker.
        let whole = sketch.relative(to: old), before = old.relative(to: old)
        let along = abs(zip(whole, before).map { $0 - $1 }.cosine(before))
        var evidence: [String: JSONValue] = [
            "shape": .string(shape), "change": .string(Self.text(change.sketch.bytes)),
            "along_ppm": .int(Self.ppm(along)), "change_ppm": .int(Self.ppm(change.size)),
            "aligned_ppm": .int(Self.ppm(change.alignedSize)),
            "rescaling_ppm": .int(Self.ppm(change.rescaling)),
        ]
        guard change.size.isFinite, change.alignedSize.isFinite else {
            return Verdict(.reject("not-finite"), ["shape": .string(shape)])
        }
        guard change.alignedSize > 0 else { return Verdict(.reject("no-change"), evidence) }
        let limit = Double(threshold) / 1e6
        let dtypes = try candidate.tensors(of: .candidate).map(\.dtype)
        let rounding = dtypes.map(Change.rounding).max() ?? 0
        // What is left beside another order and other scales is what rounding does to those.
        let isRounding = change.alignedSize < rounding && change.size > 4 * change.alignedSize
        if change.rescaling >= limit || along >= limit || isRounding {
            return Verdict(.reject("rescaled"), evidence)
        }

        // Nobody is kept from doing better what was not good enough; what was taken is not taken twice.
        let author = candidate.context["author"]?.string ?? ""
        let alike = changes[shape]?.nearest(
            to: change.sketch.bytes, below: history.verdicts,
            where: { owners[$0]?.contains(author) != true })
        if let found = alike {
            evidence["nearest_candidate"] = try candidate.verdict(found.number, evidenceOf: [])[
                "candidate"]
            evidence["nearest_change"] = .int(Int64(found.number))
            evidence["nearest_change_ppm"] = .int(found.similarity)
            if found.similarity >= threshold {
                return Verdict(.reject("copied-change"), evidence)
            }
        }
        let known = parts[Self.kind(candidate.context["expert"]?.string ?? "") + " " + shape]
        // Other versions of the same expert are its lineage, and so is whatever the parent was like already, as in a model
        // that was imported twice.
        let root = roots[block]
        let found = known?.nearest(to: whole.bytes, below: history.parts) { number in
            roots[blocks[number].block] != root
                && known?.similarity(of: number, to: before.bytes) ?? 0 < threshold
        }
        if let found {
            evidence["nearest_part"] = .string(blocks[found.number].block)
            evidence["nearest_part_ppm"] = .int(found.similarity)
            if found.similarity >= threshold {
                return Verdict(.reject("copied-expert"), evidence)
            }
        }
        return Verdict(.accept, evidence)
    }

    /// Takes in the changes that were judged since.
    private func readChanges(_ candidate: borrowing Candidate, _ count: Int) throws(PluginError) {
        while verdicts < count {
            let verdict = try candidate.verdict(verdicts, evidenceOf: [Self.name])
            if verdict["outcome"]?.string == "reject" { owners[verdicts] = owners(of: verdict) }
            if case .array(let all)? = verdict["evidence"] {
                for entry in all {
                    guard let shape = entry["evidence"]?["shape"]?.string,
                        let sketch = Self.sketch(entry["evidence"]?["change"]?.string)
                    else { continue }
                    changes[shape, default: SketchIndex()].append(sketch, number: verdicts)
                }
            }
            verdicts += 1
        }
    }

    /// Who may go on from a change that was rejected: who signed it, and whose rejected change it was a copy of, since a
    /// copy must not keep an author from work that nobody else may do.
    private func owners(of verdict: JSONValue) -> Set<String> {
        let header = verdict["block"]?.string.flatMap { try? JSONValue(parsing: Array($0.utf8)) }
        var owners = Set(header?["miner_pub"]?.string.map { [$0] } ?? [])
        if verdict["reason"]?.string == "\(Self.name)/copied-change",
            case .array(let all)? = verdict["evidence"],
            let original = all.last?["evidence"]?["nearest_change"]?.int
        {
            owners.formUnion(self.owners[Int(original)] ?? [])
        }
        return owners
    }

    /// Takes in the parts that joined a model since.
    private func readParts(_ candidate: borrowing Candidate, _ count: Int) throws(PluginError) {
        while blocks.count < count {
            let number = blocks.count
            let part = try candidate.part(number)
            let tensors = try Tensors(candidate, .part(number))
            let sketch = try Sketch(candidate, tensors)
            parts[Self.kind(part.name) + " " + tensors.shape, default: SketchIndex()].append(
                sketch.relative(to: sketch).bytes, number: number)
            roots[part.block] = roots[part.previous] ?? part.block
            let before = try numbers[part.previous].map { number throws(PluginError) in
                try Tensors(candidate, .part(number))
            }
            // Without a gate that compares shapes, a version may have had others: its neurons have names of their own.
            if let before, before.shape == tensors.shape {
                let alignment = try Alignment(candidate, tensors, before)
                let old = names[part.previous]
                if old != nil || !alignment.isIdentity {
                    var own = alignment.order
                    for (neuron, place) in alignment.order.enumerated() {
                        own[place] = old?[neuron] ?? neuron
                    }
                    names[part.block] = own
                }
            }
            numbers[part.block] = number
            blocks.append(part)
        }
    }

    /// "expert" of "layer2.expert7".
    private static func kind(_ part: String) -> String {
        let name = part.drop { $0 != "." }.dropFirst()
        return String(name.prefix { $0.isLetter })
    }

    private static func ppm(_ ratio: Double) -> Int64 {
        ratio.isFinite ? Int64(min(ratio * 1e6, 9e15).rounded()) : JSONValue.integers.upperBound
    }

    private static let digits = Array("0123456789abcdef")

    /// Bytes in hex.
    static func text(_ bytes: [Int8]) -> String {
        String(
            bytes.flatMap { byte in
                let value = Int(UInt8(bitPattern: byte))
                return [digits[value >> 4], digits[value & 15]]
            })
    }

    /// A sketch from hex; nil for anything else.
    static func sketch(_ text: String?) -> [Int8]? {
        guard let text, text.utf8.count == 2 * Projection.width else { return nil }
        let values = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        guard values.count == 2 * Projection.width else { return nil }
        return (0..<Projection.width).map {
            Int8(bitPattern: UInt8(values[2 * $0] << 4 | values[2 * $0 + 1]))
        }
    }

    func selfTest() throws(PluginError) {
        let sketch = (0..<Projection.width).map { Int8(truncatingIfNeeded: $0 * 37) }
        guard Self.sketch(Self.text(sketch)) == sketch,
            SketchIndex.similarity(sketch, sketch) == 1_000_000
        else { throw PluginError(BLYAN_E_INTERNAL, "self-test: sketches are wrong") }
    }
}

private let table = PluginTable.gate(Similarity.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
