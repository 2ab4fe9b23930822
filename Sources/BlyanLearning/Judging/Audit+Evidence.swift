internal import BlyanJSON

/// A gate's evidence in a receipt beside what the gate gives when it is asked again on the reference path.
///
/// All of it must be equal, to the last digit, with one exception: evidence whose `path` is `fast` has losses that
/// were computed in another order, so that they and what follows from them may differ by rounding.
struct EvidenceComparison {
    /// By how many millionths a loss of the fast path may differ.
    static let lossTolerance: Int64 = 2
    /// By how many billionths an improvement, or a bound of one, may differ then: that of all losses together, in each
    /// resample, and rounding of theirs.
    static let shareTolerance: Int64 = 5_000

    private static let losses: Set = ["baseline_unat", "candidate_unat"]
    private static let shares: Set = ["improvement_ppb", "lower_ppb", "upper_ppb"]
    // Where a bound lies at the edge of the band, rounding says which of the two it is; the numbers must agree anyway.
    private static let banded: Set = ["fast", "band"]

    private let said: JSONValue
    private let found: JSONValue

    init(said: JSONValue, found: JSONValue) {
        self.said = said
        self.found = found
    }

    /// Where both differ first, or nil.
    var difference: String? {
        difference(said, found, "evidence", isFast: said["path"] == .string("fast"), key: "")
    }

    private func difference(
        _ said: JSONValue, _ found: JSONValue, _ place: String, isFast: Bool, key: String
    ) -> String? {
        switch (said, found) {
        case (.object(let a), .object(let b)):
            if let odd = Set(a.keys).symmetricDifference(b.keys).min() {
                return "\(place) \(a[odd] == nil ? "lacks" : "has") \(odd)"
            }
            for key in a.keys.sorted() {
                guard let x = a[key], let y = b[key] else { continue }
                let what = difference(x, y, "\(place).\(key)", isFast: isFast, key: key)
                if let what { return what }
            }
            return nil
        case (.array(let a), .array(let b)):
            guard a.count == b.count else {
                return "\(place) has \(a.count) entries, found \(b.count)"
            }
            for (i, (x, y)) in zip(a, b).enumerated() {
                let what = difference(x, y, "\(place)[\(i)]", isFast: isFast, key: key)
                if let what { return what }
            }
            return nil
        case (.int(let a), .int(let b)) where isFast && Self.isClose(a, b, key):
            return nil
        default:
            guard said != found else { return nil }
            if key == "path", let said = said.string, let found = found.string,
                Self.banded.isSuperset(of: [said, found])
            {
                return nil
            }
            let texts = [said, found].map {
                String(decoding: $0.canonical(), as: UTF8.self).prefix(80)
            }
            return "\(place) is \(texts[0]), found \(texts[1])"
        }
    }

    /// Whether two numbers of the fast path are equal up to rounding.
    static func isClose(_ said: Int64, _ found: Int64, _ key: String) -> Bool {
        let (distance, overflow) = said.subtractingReportingOverflow(found)
        guard !overflow else { return false }
        if shares.contains(key) { return distance.magnitude <= UInt64(shareTolerance) }
        // Each is rounded to a micro-nat, too.
        guard losses.contains(key) else { return distance == 0 }
        return distance.magnitude <= 2 + found.magnitude / 1_000_000 * UInt64(lossTolerance)
    }
}
