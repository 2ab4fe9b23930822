import Foundation

/// The package's own files, read by the tests that keep the house in order.
struct SourceTree {
    /// The root of the package.
    static var root: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
    }

    /// A text file: its path from the root, and its lines.
    struct File: CustomStringConvertible {
        let path: String
        let lines: [Substring]
        var description: String { path }

        /// Lines that are neither empty nor comments.
        var codeLineCount: Int {
            lines.count { line in
                let text = line.drop { $0 == " " }
                return !text.isEmpty && !text.hasPrefix("//")
            }
        }
    }

    /// Files under some folders with one of the extensions.
    static func files(in folders: [String], _ extensions: Set<String>) throws -> [File] {
        var files: [File] = []
        for folder in folders {
            let url = root.appendingPathComponent(folder)
            let names = FileManager.default.enumerator(atPath: url.path)
            while let name = names?.nextObject() as? String {
                let file = url.appendingPathComponent(name)
                guard extensions.contains(file.pathExtension) else { continue }
                let text = try String(contentsOf: file, encoding: .utf8)
                files.append(
                    File(
                        path: "\(folder)/\(name)",
                        lines: text.split(separator: "\n", omittingEmptySubsequences: false)))
            }
        }
        return files.sorted { $0.path < $1.path }
    }

    /// Modules that a Swift or C file imports.
    static func imports(of file: File) -> [String] {
        file.lines.compactMap { line in
            var words = line.split(separator: " ")
            if let first = words.first,
                ["public", "package", "internal", "private"].contains(first)
            {
                words.removeFirst()
            }
            guard words.count == 2, words[0] == "import" else { return nil }
            return String(words[1])
        }
    }
}
