import BlyanKernel
import BlyanModel
import CBlyanPlugin
import Foundation
import Synchronization
import Testing

/// Plugins that lie, compiled from a few lines of C, and what the host says to each.
@Suite struct BadPluginTests {
    /// A router that does nothing wrong; each case breaks one thing of it.
    static let source = """
        #include "blyan_plugin.h"
        #include <string.h>
        static blyan_status open_(void *i, const blyan_router_model *m, void **r, blyan_error *e) {
          (void)i; (void)m; (void)e; *r = 0; return BLYAN_OK; }
        static blyan_status clone_(void *i, void *r, void **c, blyan_error *e) {
          (void)i; (void)r; (void)e; *c = 0; return BLYAN_OK; }
        static void close_(void *i, void *r) { (void)i; (void)r; }
        static blyan_status route_(void *i, const blyan_route *r, blyan_error *e) {
          (void)i; (void)e;
          for (uint32_t k = 0; k < r->rows * r->slots; k++) { r->ids[k] = ROUTE_ID; r->weights[k] = ROUTE_WEIGHT; }
          return BLYAN_OK; }
        static const blyan_router table = {TABLE_SIZE, 0, open_, clone_, close_, ROUTE};
        static blyan_status create(const blyan_host *h, blyan_string c, void **i, blyan_error *e) {
          (void)h; (void)c; (void)e; *i = 0; return CREATE; }
        static void destroy(void *i) { (void)i; }
        static blyan_status self_test(void *i, blyan_error *e) {
          (void)i; if (SELF_TEST && e) { memcpy(e->text, "two and two is five", 19); e->text_length = 19; }
          return SELF_TEST; }
        static const void *get_ability(void *i, const char *id) {
          (void)i; return strcmp(id, ABILITY) == 0 ? &table : 0; }
        static const blyan_plugin plugin = {MAGIC, SIZE, MAJOR, MINOR, KIND, 0, NAME, VERSION, SCHEMA,
          create, destroy, SELF, get_ability};
        const blyan_plugin *SYMBOL(void); const blyan_plugin *SYMBOL(void) { return RESULT; }
        """

    static let sound = [
        "ROUTE_ID": "(k % r->slots)", "ROUTE_WEIGHT": "1", "TABLE_SIZE": "sizeof(blyan_router)",
        "ROUTE": "route_", "CREATE": "BLYAN_OK", "SELF_TEST": "BLYAN_OK",
        "ABILITY": "BLYAN_ROUTER_ROUTE", "MAGIC": "BLYAN_PLUGIN_MAGIC",
        "SIZE": "sizeof(blyan_plugin)", "MAJOR": "1", "MINOR": "0", "KIND": "BLYAN_KIND_ROUTER",
        "NAME": "\"bad\"", "VERSION": "\"1.0.0\"", "SCHEMA": "\"{\\\"type\\\":\\\"object\\\"}\"",
        "SELF": "self_test", "SYMBOL": "blyan_plugin_entry", "RESULT": "&plugin",
    ]

    /// Compiles the plugin with some macros changed.
    static func compile(_ bench: Bench, _ changes: [String: String]) throws -> String {
        let library = bench.folder.appendingPathComponent("bad.so").path
        let source = try bench.write(Self.source, to: "bad.c")
        let header = Bench.root.appendingPathComponent("Sources/CBlyanPlugin/include").path
        let macros = sound.merging(changes) { $1 }.map { "-D\($0)=\($1)" }
        try Bench.run(
            "/usr/bin/cc",
            ["-std=c11", "-shared", "-fPIC", "-I", header, source, "-o", library] + macros)
        return library
    }

    static func manifest(
        _ bench: Bench, sha256: String, edit: (String) -> String = { $0 }
    ) throws -> PluginManifest {
        let text = """
            name: bad
            kind: router
            version: 1.0.0
            library: bad.so
            sha256: \(sha256)
            abi: {major: 1, minor: 0}
            isolation: in-process

            """
        return try PluginManifest(path: bench.write(edit(text), to: "bad.yaml"))
    }

    /// Compiles, trusts and loads.
    static func load(
        _ bench: Bench, _ changes: [String: String] = [:], edit: (String) -> String = { $0 }
    ) throws -> LoadedPlugin {
        _ = try compile(bench, changes)
        let hash = try PluginHost.libraryHash(of: manifest(bench, sha256: "unset"))
        return try Bench.host.load(manifest(bench, sha256: "\(hash)", edit: edit))
    }

    @Test func theSoundOneLoads() throws {
        let bench = try Bench()
        let plugin = try Self.load(bench)
        #expect(plugin.abilityIDs == ["blyan.router.route/1"])
        #expect(plugin.manifest.name == "bad")
    }

    @Test(arguments: [
        (["MAGIC": "1"], "shows magic 1, expected 474c504e41594c42"),
        (["MAJOR": "2"], "was built for plugin ABI 2.0, this node has 1.1"),
        (["MINOR": "2"], "was built for plugin ABI 1.2, this node has 1.1"),
        (["SIZE": "8"], "shows a table of 8 bytes, expected at least 80"),
        (["SYMBOL": "other"], "has no symbol blyan_plugin_entry"),
        (["RESULT": "0"], "returned no table"),
        (["NAME": "\"worse\""], "the library says name \"worse\", the manifest \"bad\""),
        (["NAME": "0"], "null entries"), (["SELF": "0"], "null entries"),
        (["VERSION": "\"2.0.0\""], "the library says version \"2.0.0\", the manifest \"1.0.0\""),
        (
            ["KIND": "BLYAN_KIND_FORMAT"],
            "the library says kind \"format\", the manifest \"router\""
        ),
        (["KIND": "77"], "the library says kind \"number 77\""),
        (["SELF_TEST": "BLYAN_E_INTERNAL"], "self_test: two and two is five (status -12)"),
        (["CREATE": "BLYAN_E_CONFIG"], "create: no reason given (status -10)"),
        (["ABILITY": "\"other/1\""], "of kind router lacks blyan.router.route/1"),
        (["TABLE_SIZE": "16"], "table blyan.router.route/1 has 16 bytes, expected 40"),
        (["ROUTE": "0"], "function 3 of table blyan.router.route/1 is null"),
        (["SCHEMA": "\"{\\\"oneOf\\\":[]}\""], "schema keyword \"oneOf\""),
        (["SCHEMA": "\"not a schema\""], "a schema must be an object"),
    ])
    func isRefusedWithFoundAndExpected(changes: [String: String], message: String) throws {
        let bench = try Bench()
        let error = #expect(throws: KernelError.self) { try Self.load(bench, changes) }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
        #expect(error?.message.contains("plugin bad (\(bench.folder.path)/bad.yaml)") == true)
    }

    @Test func anotherLibraryThanTrustedNamesTheCommand() throws {
        let bench = try Bench()
        _ = try Self.compile(bench, [:])
        let found = try PluginHost.libraryHash(of: Self.manifest(bench, sha256: "unset"))
        let wrong = String(repeating: "0", count: 64)
        let error = #expect(throws: KernelError.self) {
            try Bench.host.load(Self.manifest(bench, sha256: wrong))
        }
        #expect(error?.message.contains("has sha256 \(found), the manifest says \(wrong)") == true)
        #expect(error?.hint?.contains("blyan plugin trust bad") == true)
        let unset = #expect(throws: KernelError.self) {
            try Bench.host.load(Self.manifest(bench, sha256: "unset"))
        }
        #expect(unset?.message.contains("no library is trusted yet") == true)
    }

    @Test func aMissingOrUnreadableLibraryIsNamed() throws {
        let bench = try Bench()
        let hash = String(repeating: "0", count: 64)
        let missing = #expect(throws: KernelError.self) {
            try Bench.host.load(Self.manifest(bench, sha256: hash), libraryFolders: ["/none"])
        }
        #expect(missing?.message.contains("\(bench.folder.path)/bad.so, /none/bad.so") == true)
        let text = try bench.write("no library\n", to: "bad.so")
        let trusted = try PluginHost.libraryHash(of: Self.manifest(bench, sha256: "unset"))
        let broken = #expect(throws: KernelError.self) {
            try Bench.host.load(Self.manifest(bench, sha256: "\(trusted)"))
        }
        #expect(broken?.message.contains("is no whole ELF file") == true, "\(text)")
    }

    @Test(arguments: [
        (
            "isolation: in-process", "isolation: process",
            "isolation \"process\", which is not built yet"
        ),
        ("sha256:", "sha265:", "bad.yaml:5:1: unknown key \"sha265\", did you mean \"sha256\"?"),
        (
            "version: 1.0.0", "version: one",
            "bad.yaml:3:10: \"version\" is \"one\", which does not match"
        ),
        ("major: 1", "major: 1, patch: 3", "bad.yaml:6:17: unknown key \"patch\""),
        ("kind: router", "kind: routers", "expected one of \"format\", \"gate\", \"router\""),
        ("minor: 0", "minor: 1", "the library says abi \"1.0\", the manifest \"1.1\""),
    ])
    func aBadManifestSaysWhere(old: String, new: String, message: String) throws {
        let bench = try Bench()
        let error = #expect(throws: KernelError.self) {
            try Self.load(bench) { $0.replacing(old, with: new) }
        }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    /// A loader that maps more than the file has ends the process: at any cut the answer is an error.
    @Test(arguments: [0, 63, 64, 600, 5000, -1])
    func aLibraryThatWasCutIsRefused(length: Int) throws {
        let bench = try Bench()
        let whole = try Data(contentsOf: URL(fileURLWithPath: Self.compile(bench, [:])))
        let cut = whole.prefix(length < 0 ? whole.count / 2 : length)
        try cut.write(to: bench.folder.appendingPathComponent("bad.so"))
        let hash = try PluginHost.libraryHash(of: Self.manifest(bench, sha256: "unset"))
        let error = try #require(throws: KernelError.self) {
            try Bench.host.load(Self.manifest(bench, sha256: "\(hash)"))
        }
        #expect(error.code == .plugin)
    }

    @Test func aConfigurationIsCheckedByThePluginsOwnSchema() throws {
        let bench = try Bench()
        let error = #expect(throws: KernelError.self) {
            try bench.load("layer-capped") { $0.replacing("max_experts: 6", with: "max_expert: 4") }
        }
        #expect(
            error?.message.contains("unknown key \"max_expert\", did you mean \"max_experts\"?")
                == true)
        let range = #expect(throws: KernelError.self) {
            try bench.load("layer-capped") {
                $0.replacing("max_experts: 6", with: "max_experts: 0")
            }
        }
        #expect(range?.message.contains("\"config.max_experts\" is 0, expected at least 1") == true)
    }

    @Test(arguments: [
        (["ROUTE_ID": "9"], "expert 9 of 4"), (["ROUTE_ID": "0"], "expert 0 is picked twice"),
        (["ROUTE_WEIGHT": "-1"], "weight -1.0"), (["ROUTE_WEIGHT": "(0.0f/0.0f)"], "nan"),
        (["ROUTE_ID": "BLYAN_NO_EXPERT"], "an empty slot has weight 1.0"),
    ])
    func whatARouterAnswersIsChecked(changes: [String: String], message: String) throws {
        let bench = try Bench()
        let router = try RouterPlugin(Self.load(bench, changes))
        let request = try router.open(layers: 1, experts: 4, slots: 2, normalises: true)
        let error = #expect(throws: KernelError.self) {
            try route(router, request, layer: 0, [0, 1, 2, 3])
        }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }
}

@Suite struct PluginImageTests {
    /// Two libraries change places under one name while a third thread loads it: what is mapped is always what was
    /// hashed, or nothing.
    @Test func aLibrarySwappedBetweenHashAndLoadIsNeverMapped() throws {
        let bench = try Bench()
        let changes = [["ROUTE_ID": "(0 + k % r->slots)"], ["ROUTE_ID": "(2 + k % r->slots)"]]
        var libraries: [Data] = []
        for change in changes {
            libraries.append(
                try Data(contentsOf: URL(fileURLWithPath: BadPluginTests.compile(bench, change))))
        }
        let path = bench.folder.appendingPathComponent("bad.so")
        try libraries[0].write(to: path)
        let trusted = try PluginHost.libraryHash(
            of: BadPluginTests.manifest(bench, sha256: "unset"))
        let manifest = try BadPluginTests.manifest(bench, sha256: "\(trusted)")
        let files = libraries
        let swapping = Atomic(true)
        let swapper = Thread {
            var i = 0
            while swapping.load(ordering: .relaxed) {
                // Half of the time in place, half by rename.
                try? files[i % 2].write(to: path, options: i % 4 < 2 ? [] : .atomic)
                i += 1
            }
        }
        swapper.start()
        var loads = 0, refusals = 0
        while loads < 100 || refusals < 100 {
            guard let plugin = try? Bench.host.load(manifest) else {
                refusals += 1
                continue
            }
            loads += 1
            #expect(plugin.sha256 == trusted)
            let router = try RouterPlugin(plugin)
            let request = try router.open(layers: 1, experts: 4, slots: 2, normalises: false)
            #expect(try route(router, request, layer: 0, [0, 0, 0, 0]).ids == [0, 1])
        }
        swapping.store(false, ordering: .relaxed)
        while !swapper.isFinished { Thread.sleep(forTimeInterval: 0.001) }
        try libraries[0].write(to: path)
        #expect(try Bench.host.load(manifest).sha256 == trusted)
    }

    @Test func eachPluginShowsOneSymbol() throws {
        for library in ["TopK", "LayerCapped", "TensorBlock", "PickleLegacy"] {
            let path = Bench.products.appendingPathComponent("lib\(library).so").path
            guard FileManager.default.fileExists(atPath: path) else { continue }
            let symbols = try Bench.run("/usr/bin/nm", ["-D", "--defined-only", path])
                .split(separator: "\n").map { $0.split(separator: " ").last.map(String.init) }
            #expect(symbols == ["blyan_plugin_entry"], "\(library)")
        }
    }

    /// One image has one table: two would lie at two addresses.
    @Test func equalBytesAreMappedOnce() throws {
        let bench = try Bench()
        let first = try bench.load("topk")
        let second = try bench.load("topk")
        #expect(first.sha256 == second.sha256)
        let tables = [first, second].map { $0.table(BLYAN_ROUTER_ROUTE, as: blyan_router.self) }
        #expect(tables[0] != nil && tables[0] == tables[1])
    }
}
