internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import Foundation

/// An error as the command line shows it: as lines for a person, or with --json as an object.
struct Failure: Encodable {
    let code, message: String
    let hint: String?

    /// - Parameter arguments: the command line; commands that a hint names get its home.
    init(_ error: any Error, arguments: [String]) {
        let advice: String?
        switch error {
        case let error as KernelError:
            (code, message, advice) = (error.code.description, error.message, error.hint)
        case let error as ModelError: (code, message, advice) = ("model", error.message, error.hint)
        default:
            let text = Blyan.fullMessage(for: error)
            let words = text.hasPrefix("Error: ") ? text.dropFirst(7) : text[...]
            (code, advice) = ("usage", nil)
            message = words.prefix(1).lowercased() + words.dropFirst()
        }
        hint = advice.map { Self.naming(Self.home(arguments), in: $0) }
    }

    /// For a person.
    var text: String { "blyan: " + message + (hint.map { "\nhint: \($0)" } ?? "") }

    /// Shows an error as its command line asks for.
    static func note(_ error: any Error, arguments: [String], _ console: Console) {
        let failure = Failure(error, arguments: arguments)
        guard options(arguments).contains("--json"),
            let text = try? console.json(["error": failure])
        else { return console.note(failure.text) }
        console.note(text)
    }

    private static func options(_ arguments: [String]) -> ArraySlice<String> {
        arguments.prefix { $0 != "--" }
    }

    private static func home(_ arguments: [String]) -> String? {
        let options = options(arguments)
        if let place = options.firstIndex(of: "--home"), place + 1 < options.endIndex {
            return options[place + 1]
        }
        return options.first { $0.hasPrefix("--home=") }.map { String($0.dropFirst(7)) }
    }

    /// A hint whose commands, in backquotes or after a colon, say the home that is not the default.
    private static func naming(_ home: String?, in hint: String) -> String {
        guard let home, home != HomeOptions.standard, !hint.contains("--home") else { return hint }
        let isPlain = home.allSatisfy { $0.isLetter || $0.isNumber || "/._-~".contains($0) }
        let word = isPlain ? home : "'\(home.replacing("'", with: "'\\''"))'"
        return hint.replacing(#/(?:`|: )blyan [^`]+/#) { "\($0.output) --home \(word)" }
    }
}
