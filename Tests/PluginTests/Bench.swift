import BlyanKernel
import BlyanModel
import Foundation

/// A folder of its own for one test, with the manifests and libraries that the test puts there.
final class Bench {
    let folder: URL

    init() throws {
        folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-plugins-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    /// Where the build put the plugin libraries: beside the test binary.
    static var products: URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    }

    /// The root of the package.
    static var root: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
    }

    /// Writes a file and answers its path.
    @discardableResult
    func write(_ text: String, to name: String) throws -> String {
        let url = folder.appendingPathComponent(name)
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try text.write(to: url, atomically: true, encoding: .utf8)
        return url.path
    }

    /// The manifest of a plugin that ships with the node, trusting the library that was built with this test.
    func shipped(_ name: String, edit: (String) -> String = { $0 }) throws -> PluginManifest {
        let source = Self.root.appendingPathComponent("Manifests/plugins/\(name).yaml")
        let text = try String(contentsOf: source, encoding: .utf8)
        let path = try write(text, to: "plugins/\(name).yaml")
        let manifest = try PluginManifest(path: path)
        let hash = try PluginHost.libraryHash(
            of: manifest, libraryFolders: [Self.products.path])
        let trusted = text.replacing("sha256: unset", with: "sha256: \(hash)")
        return try PluginManifest(path: write(edit(trusted), to: "plugins/\(name).yaml"))
    }

    /// Loads a shipped plugin.
    func load(_ name: String, edit: (String) -> String = { $0 }) throws -> LoadedPlugin {
        try Self.host.load(shipped(name, edit: edit), libraryFolders: [Self.products.path])
    }

    static let host = unsafe PluginHost(services: [:]) { _, _, _ in }
}

extension Bench {
    /// Runs a program to its end and answers what it wrote; a failure shows its errors.
    @discardableResult
    static func run(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process(), output = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(
            decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw ProgramFailure(program: program, text: text)
        }
        return text
    }

    /// A program that ended with another status than 0.
    struct ProgramFailure: Error {
        let program: String, text: String
    }
}
