internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// A verdict that lacks signatures of other validators; nothing else is judged meanwhile.
struct DraftVerdict: Sendable, Equatable {
    /// With the signatures that there are.
    var document: VerdictDocument
    let basis: Judge.Basis

    private static let format = "blyan-draft/1"

    /// The draft in a file; nil if there is none, or it is not whole: then its candidate is judged again.
    init?(path: String) {
        guard let bytes = FileManager.default.contents(atPath: path),
            let value = try? JSONValue(parsing: Array(bytes)),
            value["format"]?.string == Self.format, let text = value["document"]?.string,
            let document = try? VerdictDocument(parsing: Array(text.utf8)),
            case .bool(let readsText)? = value["reads_text"],
            let parts = value["parts"]?.int.flatMap({ Int(exactly: $0) })
        else { return nil }
        self.init(document: document, basis: Judge.Basis(readsText: readsText, parts: parts))
    }

    init(document: VerdictDocument, basis: Judge.Basis) {
        self.document = document
        self.basis = basis
    }

    /// Makes it durable in the place of another.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    func write(to path: String) throws(KernelError) {
        let value = JSONValue.object([
            "format": .string(Self.format), "reads_text": .bool(basis.readsText),
            "parts": .int(Int64(basis.parts)),
            "document": .string(String(decoding: document.encoded, as: UTF8.self)),
        ])
        try DurableFile.write(value.canonical(), to: URL(fileURLWithPath: path), mode: 0o600)
    }
}
