import BlyanModel
import CBlyanMath
import Foundation

// Computes the golden values with one variant of the kernels and prints them as JSON, f32 as eight hex digits each. A
// process of its own, since the variant is one for the process.
//
// Writes the fixture anew, which only a deliberate change of the arithmetic should need:
//
//     .build/release/GoldenChild portable > Tests/Fixtures/golden/reference.json
//
// Ends with 3 if the processor lacks the variant, with 1 if a number depends on threads or chunks.

let variants: [String: Int] = [
    "portable": Int(BLYAN_ISA_PORTABLE), "avx2": Int(BLYAN_ISA_AVX2),
    "avx512-vnni": Int(BLYAN_ISA_AVX512), "neon": Int(BLYAN_ISA_NEON),
]
guard CommandLine.arguments.count == 2, let isa = variants[CommandLine.arguments[1]] else {
    FileHandle.standardError.write(Data("usage: GoldenChild \(variants.keys.sorted())\n".utf8))
    exit(2)
}
guard blyan_math_select(Int32(isa)) == 0 else { exit(3) }

do {
    var values = scalarValues()
    let home = try GoldenHome()
    for (key, text) in try home.routerValues() { values[key] = text }
    for model in GoldenHome.models {
        for (key, text) in try home.modelValues(model) { values[key] = text }
    }
    home.remove()
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    FileHandle.standardOutput.write(try encoder.encode(values) + Data("\n".utf8))
} catch {
    FileHandle.standardError.write(Data("\(error)\n".utf8))
    exit(1)
}
