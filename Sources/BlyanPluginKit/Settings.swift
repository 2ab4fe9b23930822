public import BlyanJSON
internal import CBlyanPlugin

/// A plugin's configuration, which the host has compared with the schema already.
public struct Settings: Sendable {
    private let json: JSONValue

    /// Reads what ``Plugin/init(host:config:)`` gets.
    ///
    /// - Throws: `BLYAN_E_CONFIG` if it is no JSON.
    public init(_ config: String) throws(PluginError) {
        do { json = try JSONValue(parsing: Array(config.utf8)) } catch {
            throw PluginError(BLYAN_E_CONFIG, "the configuration is no JSON: \(error)")
        }
    }

    /// Reads a configuration that came with a call.
    public init(_ config: JSONValue) { json = config }

    /// An integer, or what stands for it if it is absent.
    public func integer(_ key: String, default usual: Int64) -> Int64 { json[key]?.int ?? usual }

    /// Integers, or what stands for them if they are absent.
    public func integers(_ key: String, default usual: [Int64]) -> [Int64] {
        guard case .array(let items)? = json[key] else { return usual }
        return items.compactMap(\.int)
    }

    /// Texts, or what stands for them if they are absent.
    public func texts(_ key: String, default usual: [String]) -> [String] {
        guard case .array(let items)? = json[key] else { return usual }
        return items.compactMap(\.string)
    }

    /// A truth value, or what stands for it if it is absent.
    public func boolean(_ key: String, default usual: Bool) -> Bool {
        guard case .bool(let value) = json[key] else { return usual }
        return value
    }

    /// Text, or what stands for it if it is absent.
    public func text(_ key: String, default usual: String) -> String { json[key]?.string ?? usual }
}
