internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// A verdict that lacks signatures of other validators; nothing else is judged meanwhile.
struct DraftVerdict: Sendable, Equatable {
    /// With the signatures that there are.
    var document: VerdictDocument
    /// Whether a gate was told anything of the text: the judgement will count on its shard.
    let readsText: Bool

    private static let format = "blyan-draft/1"

    /// The draft in a file; nil if there is none, or it is not whole: then its candidate is judged again.
    init?(path: String) {
        guard let bytes = FileManager.default.contents(atPath: path),
            let value = try? JSONValue(parsing: Array(bytes)),
            value["format"]?.string == Self.format, let text = value["document"]?.string,
            let document = try? VerdictDocument(parsing: Array(text.utf8)),
            case .bool(let readsText)? = value["reads_text"]
        else { return nil }
        self.init(document: document, readsText: readsText)
    }

    init(document: VerdictDocument, readsText: Bool) {
        self.document = document
        self.readsText = readsText
    }

    /// Makes it durable in the place of another.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    func write(to path: String) throws(KernelError) {
        let value = JSONValue.object([
            "format": .string(Self.format), "reads_text": .bool(readsText),
            "document": .string(String(decoding: document.encoded, as: UTF8.self)),
        ])
        try DurableFile.write(value.canonical(), to: URL(fileURLWithPath: path), mode: 0o600)
    }
}
