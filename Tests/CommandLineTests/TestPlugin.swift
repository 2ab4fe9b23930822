import BlyanJSON
import BlyanKernel
import BlyanModel
import Foundation
import Testing

/// A plugin compiled from a few lines of C into a home's plugin folder, which does what a file beside it says.
struct TestPlugin {
    let name: String
    let folder: URL

    /// Compiles the library, for which `CONTROL` is the path of the file and `BUILD` a text that makes it another one.
    init(_ name: String, _ source: String, in home: Home, build: String) throws {
        self.name = name
        folder = home.folder.appendingPathComponent("plugins")
        let file = folder.appendingPathComponent("\(name).c")
        try Data(source.utf8).write(to: file)
        let header = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Sources/CBlyanPlugin/include").path
        let compiler = Process()
        compiler.executableURL = URL(fileURLWithPath: "/usr/bin/cc")
        compiler.arguments = [
            "-std=gnu11", "-O1", "-shared", "-fPIC", "-I", header, file.path, "-o",
            folder.appendingPathComponent("\(name).so").path, "-DBUILD=\"\(build)\"",
            "-DCONTROL=\"\(control.path)\"",
        ]
        try compiler.run()
        compiler.waitUntilExit()
        try #require(compiler.terminationStatus == 0)
    }

    private var control: URL { folder.appendingPathComponent("\(name).control") }

    /// Writes the manifest, by which the library is trusted.
    ///
    /// - Parameters:
    ///   - limit: milliseconds of a call.
    ///   - more: further lines.
    func declare(_ kind: PluginManifest.Kind, limit: Int, more: String = "") throws {
        let manifest = """
            name: \(name)
            kind: \(kind.rawValue)
            version: 1.0.0
            library: \(name).so
            sha256: unset
            abi: {major: 1, minor: 1}
            isolation: in-process
            limits: {call_milliseconds: \(limit)}
            \(more)

            """
        let file = folder.appendingPathComponent("\(name).yaml")
        try Data(manifest.utf8).write(to: file)
        let hash = try PluginHost.libraryHash(of: PluginManifest(path: file.path))
        try Data(manifest.replacing("sha256: unset", with: "sha256: \(hash)").utf8).write(to: file)
    }

    /// Says what it does from now on.
    func order(_ deed: String) throws {
        try Data("\(deed)\n".utf8).write(to: control, options: .atomic)
    }

    /// What it wrote into `CONTROL ".said"`.
    var said: String? { try? String(contentsOf: saidFile, encoding: .utf8) }

    func forgetSaid() { try? FileManager.default.removeItem(at: saidFile) }

    private var saidFile: URL { folder.appendingPathComponent("\(name).control.said") }
}

extension Home {
    /// Starts the node as a supervisor does, and waits until it has ended by itself; its log.
    func die(by signal: Int32) throws -> String {
        let log = scratch.appendingPathComponent("run.err")
        let process = try start(
            ["run", "--passphrase-file", passphraseFile],
            output: scratch.appendingPathComponent("run.out"), error: log)
        process.waitUntilExit()
        #expect(process.terminationReason == .uncaughtSignal)
        #expect(process.terminationStatus == signal)
        return try String(contentsOf: log, encoding: .utf8)
    }

    /// What `candidate list --json` says.
    func candidates() throws -> [JSONValue] {
        let text = try succeed("candidate", "list", "--json")
        guard case .array(let list) = try JSONValue(parsing: Array(text.utf8)) else { return [] }
        return list
    }

    /// Waits until something is so, at most five minutes.
    func waits(_ isSo: () throws -> Bool) throws {
        let limit = Date(timeIntervalSinceNow: 300)
        while try !isSo() {
            guard Date() < limit else { throw Failure(description: "it never came to that") }
            usleep(10_000)
        }
    }
}
