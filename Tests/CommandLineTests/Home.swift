import Foundation
import Testing

/// A home of its own for one test, and the built program to run on it.
final class Home {
    let folder: URL
    let scratch: URL

    /// What a run of the program came to.
    struct Outcome {
        let status: Int32
        let output: String
        let error: String
    }

    /// An error with what the program wrote.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// A copy of a home that was made once: with a key, and with a model or none.
    init(_ origin: Origin = .empty) throws {
        scratch = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-home-\(UUID().uuidString)")
        folder = scratch.appendingPathComponent("home")
        try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
        try FileManager.default.copyItem(at: origin.home.get(), to: folder)
    }

    /// A folder in which nothing is yet.
    static func unmade() throws -> Home {
        let home = Home(
            scratch: FileManager.default.temporaryDirectory
                .appendingPathComponent("blyan-home-\(UUID().uuidString)"))
        try FileManager.default.createDirectory(
            at: home.scratch, withIntermediateDirectories: true)
        return home
    }

    private init(scratch: URL) {
        self.scratch = scratch
        folder = scratch.appendingPathComponent("home")
    }

    deinit { try? FileManager.default.removeItem(at: scratch) }

    /// Homes that tests copy.
    enum Origin {
        /// A key and manifests, no model.
        case empty
        /// With ``Checkpoints/routed`` imported.
        case imported

        var home: Result<URL, any Error> {
            switch self {
            case .empty: Self.made
            case .imported: Self.filled
            }
        }

        private static let made = Result { try make("empty", nil) }
        private static let filled = Result { try make("imported", made.get()) }

        /// Goes with the process: its folder has the process's number, and is removed at exit.
        private static func make(_ name: String, _ origin: URL?) throws -> URL {
            let home = Home(scratch: root.appendingPathComponent(name))
            try FileManager.default.createDirectory(
                at: home.scratch, withIntermediateDirectories: true)
            if let origin {
                try FileManager.default.copyItem(at: origin, to: home.folder)
                try home.succeed("import", Checkpoints.routed.path)
            } else {
                atexit { try? FileManager.default.removeItem(at: Origin.root) }
                try home.succeed("init")
            }
            let kept = root.appendingPathComponent("\(name)-home")
            try FileManager.default.moveItem(at: home.folder, to: kept)
            return kept
        }

        private static let root = FileManager.default.temporaryDirectory
            .appendingPathComponent("blyan-homes-\(getpid())")
    }

    /// The program, beside the test binary.
    static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("blyan")

    /// Starts the program on this home.
    func start(
        _ arguments: [String], output: URL, error: URL, environment: [String: String] = [:]
    ) throws -> Process {
        for file in [output, error] where !file.path.hasPrefix("/dev/") {
            try Data().write(to: file)
        }
        let process = Process()
        process.executableURL = Self.program
        process.arguments =
            arguments + (arguments.contains("--home") ? [] : ["--home", folder.path])
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: error)
        process.environment = ProcessInfo.processInfo.environment.filter {
            $0.key != "BLYAN_PASSPHRASE"
        }.merging(environment) { $1 }
        try process.run()
        return process
    }

    /// Runs the program on this home to its end.
    func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

    /// Runs a command that must succeed; answers its output.
    @discardableResult
    func succeed(_ arguments: String...) throws -> String {
        let outcome = try run(arguments)
        guard outcome.status == 0 else {
            throw Failure(
                description: "\(arguments) ended with \(outcome.status): \(outcome.error)")
        }
        return outcome.output
    }

    /// Runs a command that must fail, and whose error must hold all of `parts`.
    func fail(
        _ arguments: String..., naming parts: [String],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let outcome = try run(arguments)
        #expect(outcome.status != 0, "\(outcome.output)", sourceLocation: sourceLocation)
        for part in parts {
            #expect(
                outcome.error.contains(part), "\(part) is not in: \(outcome.error)",
                sourceLocation: sourceLocation)
        }
    }

    func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Outcome {
        let name = UUID().uuidString
        let output = scratch.appendingPathComponent("\(name).out")
        let error = scratch.appendingPathComponent("\(name).err")
        let process = try start(
            arguments, output: output, error: error, environment: environment)
        process.waitUntilExit()
        guard process.terminationReason == .exit else {
            throw Failure(description: "\(arguments) died by signal \(process.terminationStatus)")
        }
        return Outcome(
            status: process.terminationStatus,
            output: String(decoding: try Data(contentsOf: output), as: UTF8.self),
            error: String(decoding: try Data(contentsOf: error), as: UTF8.self))
    }
}
