import Foundation
import Testing

/// The reference path has the same bits on every machine: those of the committed fixture, with every variant of the
/// kernels that this processor has.
///
/// `Tests/GoldenChild` computes them, with 1, 2 and 3 threads, in one chunk and in many; its head says how the fixture
/// is written anew.
@Suite struct GoldenTests {
    static let fixture = Bench.root.appendingPathComponent("Tests/Fixtures/golden/reference.json")

    private func compute(_ variant: String) throws -> [String: String]? {
        let process = Process(), output = Pipe()
        process.executableURL = Bench.products.appendingPathComponent("GoldenChild")
        process.arguments = [variant]
        process.standardOutput = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        if process.terminationStatus == 3 { return nil }
        try #require(process.terminationStatus == 0)
        return try JSONDecoder().decode([String: String].self, from: data)
    }

    @Test(arguments: ["portable", "avx2", "avx512-vnni", "neon"])
    func everyVariantHasTheCommittedBits(variant: String) throws {
        let expected = try JSONDecoder().decode(
            [String: String].self, from: Data(contentsOf: Self.fixture))
        try #require(expected.count > 150)
        guard let found = try compute(variant) else {
            // Every processor has the portable one.
            #expect(variant != "portable")
            return
        }
        #expect(found.keys.sorted() == expected.keys.sorted())
        let different = expected.keys.filter { found[$0] != expected[$0] }.sorted()
        #expect(different.isEmpty)
    }
}
