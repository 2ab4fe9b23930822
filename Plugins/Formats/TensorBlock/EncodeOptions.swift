internal import BlyanPluginKit
internal import CBlyanPlugin

/// What the caller of encode may ask for: `{"quantise": "int8", "only": ["gate"], "layout": "columns"}`.
struct EncodeOptions {
    private(set) var quantises = false
    /// The blocks to quantise; nil: all matrices of more than one row.
    private(set) var only: [String]?
    private(set) var order = Order.rows

    /// Reads options; no text at all is no option.
    init(_ json: String) throws(PluginError) {
        guard !json.isEmpty else { return }
        var reader = OptionReader(json)
        var seen: Set<String> = []
        for (key, value) in try reader.object() {
            guard seen.insert(key).inserted else {
                throw Self.refuse("option \"\(key)\" stands twice")
            }
            switch (key, value) {
            case ("quantise", .text("int8")): quantises = true
            case ("quantise", .text("none")): quantises = false
            case ("layout", .text("columns")): order = .columns
            case ("layout", .text("rows")): order = .rows
            case ("only", .list(let names)): only = names
            default:
                throw Self.refuse(
                    "option \"\(key)\" or its value is not known; known: "
                        + #""quantise": "int8" or "none", "only": [names], "layout": "rows" or "columns""#
                )
            }
        }
        guard only == nil || quantises else {
            throw Self.refuse(#"option "only" needs "quantise": "int8""#)
        }
    }

    static func refuse(_ what: String) -> PluginError { PluginError(BLYAN_E_CONFIG, what) }
}

/// Reads one JSON object of strings and lists of strings, which is all that options are made of.
private struct OptionReader {
    enum Value {
        case text(String)
        case list([String])
    }

    private let bytes: [UInt8]
    private var at = 0

    init(_ json: String) { bytes = Array(json.utf8) }

    mutating func object() throws(PluginError) -> [(String, Value)] {
        var members: [(String, Value)] = []
        try expect("{")
        if !take("}") {
            repeat {
                let key = try text()
                try expect(":")
                members.append((key, try value()))
            } while take(",")
            try expect("}")
        }
        skipSpace()
        guard at == bytes.count else { throw bad("the end") }
        return members
    }

    private mutating func value() throws(PluginError) -> Value {
        guard take("[") else { return .text(try text()) }
        var list: [String] = []
        guard !take("]") else { return .list(list) }
        repeat { list.append(try text()) } while take(",")
        try expect("]")
        return .list(list)
    }

    /// A string; the only escapes that a tensor's name can need are those of quote, backslash and slash.
    private mutating func text() throws(PluginError) -> String {
        try expect("\"")
        var out: [UInt8] = []
        while at < bytes.count {
            let byte = bytes[at]
            at += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: out, as: UTF8.self) else {
                    throw bad("UTF-8")
                }
                return text
            case UInt8(ascii: "\\"):
                guard at < bytes.count, Array(#""\/"#.utf8).contains(bytes[at]) else {
                    throw bad(#"one of \" \\ \/"#)
                }
                out.append(bytes[at])
                at += 1
            default: out.append(byte)
            }
        }
        throw bad("the end of a string")
    }

    private mutating func skipSpace() {
        while at < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[at]) { at += 1 }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        guard at < bytes.count, bytes[at] == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private mutating func expect(_ character: Unicode.Scalar) throws(PluginError) {
        guard take(character) else { throw bad("\(character)") }
    }

    private func bad(_ expected: String) -> PluginError {
        EncodeOptions.refuse(
            "options are not JSON as expected: at byte \(at), expected \(expected)")
    }
}
