import Foundation
import Testing

/// DESIGN.md, 5: what the reference path computes must not depend on the machine, so it calls nothing of a C library
/// whose last bit differs by version or processor.
@Suite struct ReferencePathTests {
    /// Functions of math.h whose results are not the same everywhere; each also with f or l after it.
    private static let functions = [
        "exp", "exp2", "exp10", "expm1", "log", "log2", "log10", "log1p", "pow", "sin", "cos",
        "tan",
        "sincos", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh",
        "atanh",
        "cbrt", "hypot", "erf", "erfc", "lgamma", "tgamma", "fmod", "remainder",
    ]

    /// Calls of math.h that are allowed: IEEE 754 leaves no choice in their results.
    private static let exact: Set<String> = [
        // Rounded once, by definition; an instruction where the processor has one.
        "sqrt", "sqrtf", "fma", "fmaf", "squareRoot", "addingProduct",
        // Nothing is rounded, or to a whole number in a stated direction.
        "fabs", "fabsf", "rint", "rintf", "roundeven", "roundevenf", "floor", "ceil", "trunc",
    ]

    /// Source files that compute numbers of the reference path.
    private static func files() throws -> [SourceTree.File] {
        try SourceTree.files(
            in: ["Sources/BlyanModel", "Sources/CBlyanMath", "Plugins/Routers"],
            ["swift", "c", "h", "inc"])
    }

    /// Names of free functions that a line calls; those after a dot are methods, which are no library's.
    private static func calls(_ line: Substring) -> [String] {
        let code = line.components(separatedBy: "//")[0].components(separatedBy: "/*")[0]
            .replacing(/func +[A-Za-z0-9_]+/, with: "")
        return code.matches(of: /[A-Za-z0-9_.]+\(/).compactMap { match in
            let path = match.output.dropLast().split(
                separator: ".", omittingEmptySubsequences: false)
            guard let name = path.last,
                path.count == 1 || ["Foundation", "Glibc", "Darwin", "Musl"].contains(path[0])
            else { return nil }
            return ["__builtin_", "elementwise_"].reduce(String(name)) {
                $0.hasPrefix($1) ? String($0.dropFirst($1.count)) : $0
            }
        }
    }

    @Test func nothingOfTheLibrarysMathematicsIsCalled() throws {
        let forbidden = Set(Self.functions.flatMap { [$0, $0 + "f", $0 + "l"] })
        let files = try Self.files()
        try #require(files.count > 50)
        var seen: Set<String> = []
        for file in files {
            for (i, line) in file.lines.enumerated() {
                for name in Self.calls(line) {
                    seen.insert(name)
                    #expect(!forbidden.contains(name), "\(file):\(i + 1) calls \(name)")
                }
            }
        }
        // The search sees calls at all.
        #expect(seen.contains("sqrtf") && seen.contains("blyan_math_sincos"))
        #expect(Self.exact.isDisjoint(with: forbidden))
    }

    @Test(arguments: [
        ("x = exp(y)", "exp"), ("func f(x: Float) -> Float { exp(x) }", "exp"),
        ("Foundation.pow(a, b)", "pow"), ("-cosf(a)", "cosf"),
        ("__builtin_tanhf(x)", "tanhf"), ("__builtin_elementwise_exp(v)", "exp"),
    ])
    func theSearchFinds(line: String, name: String) {
        #expect(Self.calls(line[...]).contains(name))
    }

    @Test(arguments: [
        "blyan_math_exp(x)", "host.log(x)", "// exp(x)", "/* exp(x) */", "exponential(x)",
    ])
    func theSearchPasses(line: String) {
        #expect(Set(Self.calls(line[...])).isDisjoint(with: Self.functions))
    }

    /// The libraries themselves, as built with this test: routers need no libm.
    @Test(arguments: ["libTopK.so", "libLayerCapped.so"])
    func routersImportNoMathematics(library: String) throws {
        let products = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent()
        let bytes = try Data(contentsOf: products.appendingPathComponent(library))
        for name in ["libm.so", "expf", "fmaf"] {
            #expect(bytes.range(of: Data("\0\(name)".utf8)) == nil, "\(library) names \(name)")
        }
    }
}
