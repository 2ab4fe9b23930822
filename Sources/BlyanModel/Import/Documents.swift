internal import Foundation

/// The payload of a meta block: what a model computes, how it spells, and where it came from.
public struct MetaDocument: Codable, Sendable, Equatable {
    /// Names this layout; ``currentFormat`` is the one that is written.
    public var format: String
    /// The model's name in its home.
    public var name: String
    /// The arithmetic.
    public var config: ModelConfig
    /// The tokenizer.
    public var tokenizer: TokenizerDocument
    /// The files that were imported.
    public var sources: [SourceFile]
    /// The payload type that import wrote.
    public var payloadType: String
    /// "int8", or "" when dtypes were kept.
    public var quantisation: String

    /// The layout that this build writes and reads.
    public static let currentFormat = "blyan-meta/1"

    /// Makes a document in the current layout.
    public init(
        name: String, config: ModelConfig, tokenizer: TokenizerDocument, sources: [SourceFile],
        payloadType: String, quantisation: String
    ) {
        format = Self.currentFormat
        self.name = name
        self.config = config
        self.tokenizer = tokenizer
        self.sources = sources
        self.payloadType = payloadType
        self.quantisation = quantisation
    }

    /// JSON with sorted keys: the same document gives the same bytes.
    ///
    /// - Throws: ``ModelError`` if a number is not finite.
    public func encoded() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do { return try Array(encoder.encode(self)) } catch {
            throw ModelError("cannot write the meta document of \(name): \(error)")
        }
    }

    /// Reads a document.
    ///
    /// - Throws: ``ModelError`` if it is not a meta document of the current layout, or describes what cannot be.
    public init(decoding bytes: [UInt8]) throws {
        struct Head: Decodable { var format: String }
        let decoder = JSONDecoder()
        let data = Data(bytes)
        guard let head = try? decoder.decode(Head.self, from: data) else {
            throw ModelError("a meta block's payload is not a meta document")
        }
        guard head.format == Self.currentFormat else {
            throw ModelError(
                "a meta document has format \(head.format), this build reads \(Self.currentFormat)")
        }
        do { self = try decoder.decode(Self.self, from: data) } catch {
            throw ModelError("a meta document is damaged: \(error)")
        }
        // A signature tells who wrote it, not that it makes sense.
        try config.validate(of: "the meta document of \(name)")
        try tokenizer.validate()
    }
}
