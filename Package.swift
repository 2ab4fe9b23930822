// swift-tools-version: 6.2
import PackageDescription

/// One set of settings for every Swift target; see CONTRIBUTING.md.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableExperimentalFeature("Lifetimes"),
]

/// Tests damage files and poke at memory: the same settings without the memory-safety audit.
let testing: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// A plugin is a shared library that shows one symbol and links to nothing of the host.
///
/// Swift's own lld is named because gold leaves local Swift symbols in the dynamic table.
let pluginLinking: [LinkerSetting] = [
    .unsafeFlags([
        "-use-ld=lld",
        "-Xlinker", "--version-script=\(Context.packageDirectory)/Plugins/exports.map",
    ])
]

/// Kernels are C at full optimisation in debug builds too: numbers must not depend on the build.
let kernelFlags: [CSetting] = [
    .unsafeFlags([
        "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi",
    ])
]

func plugin(_ name: String, in folder: String) -> Target {
    .target(
        name: name,
        dependencies: ["CBlyanPlugin", "BlyanPluginKit"],
        path: "Plugins/\(folder)/\(name)",
        exclude: ["FORMAT.md"].filter { _ in folder == "Formats" },
        swiftSettings: strict,
        linkerSettings: pluginLinking)
}

let package = Package(
    name: "blyan",
    products: [
        .executable(name: "blyan", targets: ["blyan"]),
        .library(name: "PickleLegacy", type: .dynamic, targets: ["PickleLegacy"]),
        .executable(name: "blyan-bench", targets: ["blyan-bench"]),
        .library(name: "Flat", type: .dynamic, targets: ["Flat"]),
        .library(name: "Improvement", type: .dynamic, targets: ["Improvement"]),
        .library(name: "Canary", type: .dynamic, targets: ["Canary"]),
        .library(name: "ProofOfLearning", type: .dynamic, targets: ["ProofOfLearning"]),
        .library(name: "Immune", type: .dynamic, targets: ["Immune"]),
        .library(name: "Similarity", type: .dynamic, targets: ["Similarity"]),
        .library(name: "QuickPerplexity", type: .dynamic, targets: ["QuickPerplexity"]),
        .library(name: "Structure", type: .dynamic, targets: ["Structure"]),
        .library(name: "TensorBlock", type: .dynamic, targets: ["TensorBlock"]),
        .library(name: "TopK", type: .dynamic, targets: ["TopK"]),
        .library(name: "LayerCapped", type: .dynamic, targets: ["LayerCapped"]),
        .library(name: "UsageQuality", type: .dynamic, targets: ["UsageQuality"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2")
    ],
    targets: [
        .target(name: "CBlyanPlugin"),
        .target(
            name: "CBlyanMath", dependencies: ["CBlyanPlugin"], exclude: ["EXACT.md"],
            cSettings: kernelFlags),
        .target(name: "CBlyanFault", cSettings: kernelFlags),
        .target(name: "CLinux", cSettings: kernelFlags),
        .systemLibrary(name: "CLevelDB"),
        .systemLibrary(name: "CSecp256k1"),
        .systemLibrary(name: "CYAML"),
        .systemLibrary(name: "COpenSSL"),
        .target(name: "BlyanJSON", swiftSettings: strict),
        .target(name: "BlyanYAML", dependencies: ["CYAML"], swiftSettings: strict),
        .target(
            name: "BlyanKernel",
            dependencies: [
                "BlyanJSON", "BlyanYAML", "CBlyanFault", "CBlyanPlugin", "CLevelDB", "CLinux",
                "CSecp256k1",
                "COpenSSL",
            ],
            exclude: ["Storage/STORAGE.md"],
            resources: [.embedInCode("../../Manifests/plugin.schema.json")],
            swiftSettings: strict),
        .target(
            name: "BlyanPluginKit", dependencies: ["BlyanJSON", "CBlyanPlugin"],
            swiftSettings: strict),
        .target(
            name: "BlyanModel",
            dependencies: [
                "BlyanJSON", "BlyanKernel", "BlyanYAML", "CBlyanFault", "CBlyanMath",
                "CBlyanPlugin",
            ],
            resources: [.embedInCode("../../Manifests/node.schema.json")],
            swiftSettings: strict),
        .target(
            name: "BlyanLearning",
            dependencies: ["BlyanJSON", "BlyanKernel", "BlyanModel", "CBlyanMath", "CBlyanPlugin"],
            exclude: ["JUDGEMENT.md"],
            swiftSettings: strict),
        .target(
            name: "BlyanLedger", dependencies: ["BlyanJSON", "BlyanKernel"],
            exclude: ["LEDGER.md"],
            swiftSettings: strict),
        .target(
            name: "BlyanServer",
            dependencies: [
                "BlyanJSON", "BlyanKernel", "BlyanLearning", "BlyanLedger", "BlyanModel",
            ],
            swiftSettings: strict),
        plugin("PickleLegacy", in: "Formats"),
        plugin("TensorBlock", in: "Formats"),
        plugin("TopK", in: "Routers"),
        plugin("Immune", in: "Gates"),
        plugin("Canary", in: "Gates"),
        plugin("Similarity", in: "Gates"),
        plugin("Structure", in: "Gates"),
        plugin("QuickPerplexity", in: "Gates"),
        plugin("ProofOfLearning", in: "Gates"),
        plugin("Flat", in: "Rewards"),
        plugin("Improvement", in: "Rewards"),
        plugin("UsageQuality", in: "Rewards"),
        .target(
            name: "LayerCapped", dependencies: ["CBlyanPlugin"],
            path: "Plugins/Routers/LayerCapped",
            publicHeadersPath: ".", cSettings: kernelFlags,
            linkerSettings: pluginLinking),
        .executableTarget(
            name: "blyan",
            dependencies: [
                "BlyanJSON", "BlyanKernel", "BlyanLearning", "BlyanLedger", "BlyanModel",
                "BlyanServer",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            // Beside the binary: what "init" copies into a home.
            resources: [.copy("../../Manifests")],
            swiftSettings: strict),
        .executableTarget(
            name: "blyan-bench",
            dependencies: [
                "BlyanJSON", "BlyanKernel", "BlyanLearning", "BlyanLedger", "BlyanModel",
                "BlyanServer", "CBlyanMath", "CBlyanPlugin",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "CBlyanMathTests", dependencies: ["CBlyanMath", "CBlyanPlugin"],
            swiftSettings: testing),
        .executableTarget(
            name: "CrashChild", dependencies: ["BlyanKernel"], path: "Tests/CrashChild",
            swiftSettings: testing),
        .testTarget(
            name: "BlyanKernelTests",
            dependencies: ["BlyanJSON", "BlyanKernel", "BlyanYAML", "CrashChild"],
            swiftSettings: testing),
        .executableTarget(
            name: "LedgerCrashChild", dependencies: ["BlyanKernel", "BlyanLedger"],
            path: "Tests/LedgerCrashChild", swiftSettings: testing),
        .testTarget(
            name: "BlyanLedgerTests",
            dependencies: ["BlyanJSON", "BlyanKernel", "BlyanLedger", "LedgerCrashChild"],
            swiftSettings: testing),
        .testTarget(name: "ArchitectureTests", swiftSettings: testing),
        .executableTarget(
            name: "GoldenChild",
            dependencies: ["BlyanJSON", "BlyanKernel", "BlyanModel", "CBlyanMath"],
            path: "Tests/GoldenChild", swiftSettings: testing),
        .testTarget(
            name: "PluginTests",
            dependencies: [
                "BlyanJSON", "BlyanModel", "BlyanKernel", "CBlyanMath", "CBlyanPlugin",
                "GoldenChild",
            ],
            swiftSettings: testing),
        .testTarget(
            name: "CommandLineTests",
            dependencies: [
                "BlyanJSON", "BlyanKernel", "BlyanLearning", "BlyanLedger", "BlyanModel",
                "BlyanServer", "RewardCrashChild",
            ], swiftSettings: testing),
        .executableTarget(
            name: "RewardCrashChild",
            dependencies: [
                "BlyanKernel", "BlyanLearning", "BlyanLedger", "BlyanModel", "BlyanServer",
            ],
            path: "Tests/RewardCrashChild", swiftSettings: testing),
        .testTarget(
            name: "BlyanLearningTests",
            dependencies: [
                "BlyanJSON", "BlyanKernel", "BlyanLearning", "BlyanLedger", "BlyanModel",
                "BlyanServer", "CBlyanMath", "CBlyanPlugin",
            ],
            swiftSettings: testing),
        .testTarget(
            name: "BlyanModelTests",
            dependencies: ["BlyanModel", "BlyanKernel", "CBlyanMath", "CBlyanPlugin"],
            swiftSettings: testing),
    ]
)
