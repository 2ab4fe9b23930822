internal import BlyanPluginKit
public import CBlyanPlugin

/// The gate that looks at the bytes alone: the parent's tensors, shapes and dtypes, finite numbers, norms that stay
/// within a stated ratio of the parent's, and a payload that is not much larger.
final class Structure: Gate {
    static let name = "structure"
    static let version = "1.0.0"
    static let configSchema = """
        {"type": "object", "additionalProperties": false, "properties": {
          "norm_ratio_percent": {"type": "integer", "minimum": 101, "maximum": 100000, "default": 300,
            "description": "A tensor's norm is at most this share of the parent's, and at least its inverse."},
          "largest_ratio_percent": {"type": "integer", "minimum": 101, "maximum": 100000, "default": 1000,
            "description": "A tensor's largest number is at most this share of the parent's largest."},
          "size_ratio_percent": {"type": "integer", "minimum": 100, "maximum": 100000, "default": 110,
            "description": "The payload has at most this share of the parent's bytes."}}}
        """

    private let normRatio: Double
    private let largestRatio: Double
    private let sizeRatio: Double

    init(host: HostServices, config: String) throws(PluginError) {
        let settings = try Settings(config)
        normRatio = Double(settings.integer("norm_ratio_percent", default: 300)) / 100
        largestRatio = Double(settings.integer("largest_ratio_percent", default: 1000)) / 100
        sizeRatio = Double(settings.integer("size_ratio_percent", default: 110)) / 100
    }

    func judge(_ candidate: borrowing Candidate) throws(PluginError) -> Verdict {
        guard candidate.hasParent else { return Verdict(.reject("no-parent")) }
        let own = try candidate.tensors(of: .candidate)
        let parents = try candidate.tensors(of: .parent)
        func odd(_ reason: String, _ tensor: String) -> Verdict {
            Verdict(.reject(reason), ["tensor": .string(tensor)])
        }
        let names = own.map(\.name).sorted(), parentNames = parents.map(\.name).sorted()
        guard names == parentNames else {
            let differing = Set(names).symmetricDifference(parentNames).min() ?? ""
            return odd("other-tensors", differing)
        }
        let (size, parentSize) = (candidate.payloadSize, candidate.parentSize)
        guard Double(size) <= Double(parentSize) * sizeRatio else {
            return Verdict(
                .reject("too-large"),
                ["bytes": .int(Int64(clamping: size)), "parent": .int(Int64(clamping: parentSize))])
        }
        var facts: [String: JSONValue] = [:]
        for tensor in own {
            guard let parent = parents.first(where: { $0.name == tensor.name }) else { continue }
            guard parent.rows == tensor.rows, parent.columns == tensor.columns else {
                return odd("other-shape", tensor.name)
            }
            guard parent.dtype == tensor.dtype else { return odd("other-dtype", tensor.name) }
            let found = try measure(candidate, tensor, .candidate)
            guard found.isFinite else { return odd("not-finite", tensor.name) }
            let before = try measure(candidate, parent, .parent)
            facts[tensor.name] = .object([
                "norm_ppm": .int(ratio(found.norm, before.norm)),
                "largest_ppm": .int(ratio(found.largest, before.largest)),
            ])
            guard found.norm <= before.norm * normRatio, found.norm * normRatio >= before.norm
            else {
                return Verdict(.reject("norm"), ["tensor": .string(tensor.name)] + facts)
            }
            guard found.largest <= before.largest * largestRatio else {
                return Verdict(.reject("largest"), ["tensor": .string(tensor.name)] + facts)
            }
        }
        return Verdict(.accept, ["tensors": .object(facts)])
    }

    private struct Measure {
        var isFinite = true
        var square = 0.0
        var largest = 0.0
        var norm: Double { square.squareRoot() }
    }

    /// Rows in order, sums in double: the same everywhere.
    private func measure(
        _ candidate: borrowing Candidate, _ tensor: Candidate.Tensor, _ subject: Candidate.Subject
    ) throws(PluginError) -> Measure {
        var measure = Measure()
        for rows in tensor.blocks {
            for value in try candidate.decode(tensor, of: subject, rows: rows) {
                let number = Double(value)
                measure.isFinite = measure.isFinite && number.isFinite
                measure.square += number * number
                measure.largest = max(measure.largest, abs(number))
            }
        }
        return measure
    }

    /// Millionths, within what JSON keeps.
    private func ratio(_ a: Double, _ b: Double) -> Int64 {
        guard b > 0 else { return a > 0 ? JSONValue.integers.upperBound : 0 }
        return Int64(min(a / b * 1e6, 9e15))
    }

    func selfTest() throws(PluginError) {
        guard ratio(1, 2) == 500_000, ratio(3, 0) == JSONValue.integers.upperBound else {
            throw PluginError(BLYAN_E_INTERNAL, "self-test: ratios are wrong")
        }
    }
}

private func + (a: [String: JSONValue], b: [String: JSONValue]) -> [String: JSONValue] {
    a.merging(["tensors": .object(b)]) { old, _ in old }
}

private let table = PluginTable.gate(Structure.self)

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
