public import BlyanKernel
internal import BlyanJSON
internal import Foundation
internal import Synchronization

/// The payload of a `version` block on chain A: which block serves each part of a model.
public struct VersionDocument: Codable, Sendable, Equatable {
    /// Names this layout.
    public var format = "blyan-version/1"
    /// The meta block of the model.
    public var model: String
    /// Block hash by part name.
    public var parts: [String: String]
    /// The version block before, or "".
    public var parent: String
    /// The verdict block that it rests on, or "" for an import.
    public var verdict: String

    /// Makes a document.
    public init(model: Digest, parts: [String: Digest], parent: Digest?, verdict: Digest?) {
        self.model = model.description
        self.parts = parts.mapValues(\.description)
        self.parent = parent?.description ?? ""
        self.verdict = verdict?.description ?? ""
    }

    /// JSON with sorted keys: the same document gives the same bytes.
    package func encoded() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return try Array(encoder.encode(self))
    }
}

/// A model in a home: its meta block, and the blocks that serve it now.
public struct CatalogModel: Sendable {
    /// The meta block; its hash is the model's identity.
    public let meta: Block
    /// What the meta block says.
    public let document: MetaDocument
    /// The newest version block, or nil while the model is incomplete.
    public let version: Block?
    /// Current block by part name; of an incomplete model the newest of each part that is here.
    public let parts: [String: Digest]

    /// The model's name.
    public var name: String { document.name }
    /// Whether every part is here and a version block says so.
    public var isComplete: Bool { version != nil }
    /// Parts that a complete model has.
    public var partCount: Int { document.config.parts.count }
}

/// The models of a home, as chains A and B tell them.
public struct ModelCatalog: Sendable {
    private let store: ChainStore

    /// The catalog of a store.
    public init(_ store: ChainStore) { self.store = store }

    /// All models in order of import.
    ///
    /// - Throws: ``KernelError`` or ``ModelError`` if a document is damaged.
    public func models() throws -> [CatalogModel] {
        try store.blocks(.type(chain: "A", "meta")).map { try model($0) }
    }

    /// The model that a person means: by name, by the beginning of its meta block's hash, or the only one that is complete.
    ///
    /// - Throws: ``ModelError`` listing the models there are.
    public func model(named name: String?) throws -> CatalogModel {
        let all = try store.blocks(.type(chain: "A", "meta"))
        guard !all.isEmpty else {
            throw ModelError("this home has no model", hint: "run `blyan import PATH`")
        }
        guard let name else {
            if all.count == 1 { return try model(all[0]) }
            let versions = try store.blocks(.type(chain: "A", "version"))
            let served = Set(versions.flatMap(\.header.dependsOn))
            let complete = all.filter { served.contains($0.hash) }
            guard complete.count == 1 else {
                throw ModelError(
                    "this home has \(all.count) models, \(complete.count) of them complete: \(names(all))",
                    hint: "pick one with --model NAME")
            }
            return try model(complete[0])
        }
        if let found = all.first(where: { Self.name($0) == name }) { return try model(found) }
        let digits = name.lowercased()
        let byHash = all.filter { digits.count >= 6 && $0.hash.description.hasPrefix(digits) }
        guard byHash.count == 1 else {
            throw ModelError(
                "this home has no model named \"\(name)\"", hint: "it has \(names(all))")
        }
        return try model(byHash[0])
    }

    /// The name that stands in a meta block's signed header: there also where its document is damaged.
    private static func name(_ meta: Block) -> String? { meta.header.metadata["model"]?.string }

    private func names(_ all: [Block]) -> String {
        all.map { Self.name($0) ?? $0.hash.description }.joined(separator: ", ")
    }

    /// Documents by meta block: every request asks for its model's, and a tokenizer takes long to read.
    private static let documents = Mutex<[Digest: MetaDocument]>([:])
    private static let documentLimit = 8

    /// What a meta block says.
    ///
    /// - Throws: ``ModelError`` or ``KernelError`` if it is damaged.
    public func document(_ meta: Block) throws -> MetaDocument {
        if let known = Self.documents.withLock({ $0[meta.hash] }) { return known }
        let document: MetaDocument
        do { document = try MetaDocument(decoding: store.document(meta)) } catch let error
            as ModelError
        {
            throw ModelError("meta block \(meta.hash): \(error.message)", hint: error.hint)
        }
        guard Self.name(meta) == document.name else {
            throw ModelError(
                "the document of meta block \(meta.hash) is named \"\(document.name)\", its header says \"\(Self.name(meta) ?? "")\""
            )
        }
        Self.documents.withLock { known in
            if known.count >= Self.documentLimit { known.removeAll() }
            known[meta.hash] = document
        }
        return document
    }

    /// The model of a meta block.
    ///
    /// - Parameter wanted: a version block of it; nil = the newest.
    /// - Throws: ``ModelError`` or ``KernelError`` if a document is damaged.
    public func model(_ meta: Block, version wanted: Block? = nil) throws -> CatalogModel {
        if let wanted { return try model(meta, at: wanted, document: document(meta)) }
        var version: Block?
        var newest: [String: Digest] = [:]
        try store.scan(.dependents(meta.hash)) { (block) throws(KernelError) in
            if block.header.chainID == "A", block.header.blockType == "version" { version = block }
            if block.header.chainID == "B" { newest[block.header.expertName] = block.hash }
            return true
        }
        let document = try document(meta)
        guard let version else {
            return CatalogModel(meta: meta, document: document, version: nil, parts: newest)
        }
        return try model(meta, at: version, document: document)
    }

    private func model(_ meta: Block, at version: Block, document: MetaDocument) throws
        -> CatalogModel
    {
        let list: VersionDocument
        do {
            list = try JSONDecoder().decode(
                VersionDocument.self, from: Data(store.document(version)))
        } catch let error as DecodingError {
            throw ModelError("version block \(version.hash) is damaged: \(error)")
        }
        guard
            list.format
                == VersionDocument(model: .zero, parts: [:], parent: nil, verdict: nil).format,
            list.model == meta.hash.description
        else {
            throw ModelError(
                "version block \(version.hash) has format \(list.format) or is of another model")
        }
        var parts: [String: Digest] = [:]
        for (name, hash) in list.parts {
            guard let digest = Digest(hex: hash) else {
                throw ModelError(
                    "version block \(version.hash) names \"\(hash)\" for \(name), which is no hash")
            }
            parts[name] = digest
        }
        let wanted = Set(document.config.parts.map(\.name))
        if let odd = wanted.symmetricDifference(parts.keys).min() {
            throw ModelError(
                "version block \(version.hash) \(wanted.contains(odd) ? "lacks the part" : "lists") \(odd), the model has \(wanted.count) parts\(wanted.contains(odd) ? "" : " and none of that name")"
            )
        }
        return CatalogModel(meta: meta, document: document, version: version, parts: parts)
    }

    /// Every version of a part, oldest first.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func versions(of part: String, model: CatalogModel) throws -> [Block] {
        try store.blocks(.expert(part)).filter { $0.header.dependsOn.contains(model.meta.hash) }
    }
}
