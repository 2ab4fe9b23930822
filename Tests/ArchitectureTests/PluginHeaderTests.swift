import Foundation
import Testing

/// The header is all that a plugin author has: it compiles alone, and says of each function which thread may call.
@Suite struct PluginHeaderTests {
    static let header = SourceTree.root
        .appendingPathComponent("Sources/CBlyanPlugin/include/blyan_plugin.h")

    @Test(arguments: [("c", "c11"), ("c", "c17"), ("c++", "c++17"), ("c++", "c++20")])
    func compilesAlone(language: String, standard: String) throws {
        let process = Process(), errors = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            language == "c" ? "cc" : "c++", "-x", language, "-std=\(standard)", "-Wall", "-Wextra",
            "-Werror", "-pedantic", "-fsyntax-only", "-include", Self.header.path, "/dev/null",
        ]
        process.standardError = errors
        try process.run()
        let text = String(
            decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
    }

    @Test func everyFunctionEndsItsCommentWithAThreadTag() throws {
        let text = try String(contentsOf: Self.header, encoding: .utf8)
        let pieces = text.components(separatedBy: "(*")
        try #require(pieces.count > 20)
        for (before, after) in zip(pieces, pieces.dropFirst()) {
            let name = after.prefix { $0 != ")" }
            guard let end = before.range(of: "*/", options: .backwards),
                let start = before.range(
                    of: "/*", options: .backwards, range: before.startIndex..<end.lowerBound)
            else {
                Issue.record("\(name) has no comment")
                continue
            }
            // Between comment and name stands the return type alone.
            #expect(!before[end.upperBound...].contains(";"), "\(name) has no comment of its own")
            let comment = before[start.upperBound..<end.lowerBound].trimmingCharacters(
                in: .whitespaces)
            let tags = ["[any-thread]", "[serial]", "[setup]"]
            #expect(
                tags.contains { comment.hasSuffix($0) }, "\(name) ends its comment without a tag")
        }
    }
}
