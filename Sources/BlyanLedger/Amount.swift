public import BlyanKernel

/// Amounts: integers in micro-BLY, a millionth of a BLY, within `Int64`.
public enum Amount {
    /// Micro-BLY of one BLY.
    public static let unit: Int64 = 1_000_000

    /// A number from 0 on as a document has it: decimal digits without sign or leading zeros; nil for anything else,
    /// also beyond `Int64`.
    public static func number(_ text: String) -> Int64? {
        let digits = text.utf8
        guard (1...19).contains(digits.count), digits.allSatisfy({ (48...57).contains($0) }),
            digits.first != 48 || digits.count == 1
        else { return nil }
        return Int64(text)
    }

    /// Micro-BLY of an amount that a person gives in BLY, as "1.25" or "1.25 BLY": at most 6 decimals, exactly.
    ///
    /// - Throws: ``KernelError`` with code `malformed` for what is no such number, `limit` for one beyond 2^63 − 1 micro-BLY.
    public static func parse(_ text: String) throws(KernelError) -> Int64 {
        let words = text.split(separator: " ", omittingEmptySubsequences: false)
        let parts = (words.first ?? "").split(separator: ".", omittingEmptySubsequences: false)
        let isNumber = parts.allSatisfy { part in
            !part.isEmpty && part.utf8.allSatisfy { (48...57).contains($0) }
        }
        let decimals = parts.count == 2 ? parts[1] : ""
        guard (1...2).contains(parts.count), isNumber, decimals.utf8.count <= 6,
            words.count == 1 || words.count == 2 && words[1] == "BLY"
        else {
            throw KernelError(
                .malformed, "\"\(text)\" is no amount of BLY",
                hint: "give digits with at most 6 decimals after a point, such as 1.25")
        }
        let padded = decimals + String(repeating: "0", count: 6 - decimals.utf8.count)
        let (micro, tooLarge) = (Int64(parts[0]) ?? .max).multipliedReportingOverflow(by: unit)
        let (sum, overflow) = micro.addingReportingOverflow(Int64(padded) ?? 0)
        guard !tooLarge, !overflow else {
            throw KernelError(
                .limit, "\(text) is beyond the largest amount, \(Amount.text(.max))")
        }
        return sum
    }

    /// An amount for a person: "1.25 BLY", with as many decimals as it needs.
    public static func text(_ micro: Int64) -> String {
        let (whole, part) = micro.magnitude.quotientAndRemainder(dividingBy: UInt64(unit))
        var decimals = String(part)
        decimals = String(repeating: "0", count: 6 - decimals.utf8.count) + decimals
        while decimals.last == "0" { decimals.removeLast() }
        return "\(micro < 0 ? "-" : "")\(whole)\(decimals.isEmpty ? "" : "." + decimals) BLY"
    }
}
