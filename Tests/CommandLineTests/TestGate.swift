import BlyanKernel
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// A gate compiled from a few lines of C, which does what a file says: it hangs, ends the process, or accepts.
struct TestGate {
    private let folder: URL

    /// What the gate does when it is asked.
    enum Deed: String {
        case accept
        /// Never returns.
        case sleep
        /// Returns after some seconds.
        case doze
        /// Asks for services and bytes until it is refused both, and says so.
        case busy
        case abort
        /// Dereferences a null pointer.
        case null
    }

    private static let source = """
        #include "blyan_plugin.h"
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        static const blyan_tensors *tensors;
        static int busy(const blyan_candidate *c) {
          blyan_status status = BLYAN_OK, reads = BLYAN_OK;
          blyan_error error = {sizeof(blyan_error), 0, {0}};
          for (int n = 0; n < 100000 && (status == BLYAN_OK || reads == BLYAN_OK); n++) {
            uint32_t count;
            const uint8_t *bytes;
            status = tensors->list(c, BLYAN_SUBJECT_CANDIDATE, 0, 0, &count, &error);
            if (status == BLYAN_E_CAPACITY) status = BLYAN_OK;
            reads = c->payload->read(c->payload->context, 0, 16, &bytes, &error);
            usleep(1000);
          }
          FILE *said = fopen(CONTROL ".said", "w");
          fprintf(said, "%d %d\\n", status, reads);
          fclose(said);
          return status;
        }
        static blyan_status judge(void *i, const blyan_candidate *c, blyan_verdict *v, blyan_error *e) {
          (void)i; (void)e;
          char deed[16] = "", whom[80] = "", context[4096] = "";
          FILE *control = fopen(CONTROL, "r");
          if (control) { if (fscanf(control, "%15s %79s", deed, whom) < 1) deed[0] = 0; fclose(control); }
          if (c->context.size < sizeof context) memcpy(context, c->context.data, c->context.size);
          if (!whom[0] || strstr(context, whom)) {
            if (!strcmp(deed, "sleep")) for (;;) sleep(1000);
            if (!strcmp(deed, "doze")) sleep(3);
            if (!strcmp(deed, "busy")) return busy(c);
            if (!strcmp(deed, "abort")) abort();
            if (!strcmp(deed, "null")) *(volatile int *)0 = 1;
          }
          v->verdict = BLYAN_VERDICT_ACCEPT;
          v->evidence_length = 2;
          memcpy(v->evidence, "{}", 2);
          return BLYAN_OK;
        }
        static const blyan_gate gate = {sizeof(blyan_gate), 0, judge};
        static blyan_status create(const blyan_host *h, blyan_string c, void **i, blyan_error *e) {
          (void)c; (void)e; *i = 0;
          tensors = h->get_service(h->context, BLYAN_HOST_TENSORS);
          return BLYAN_OK; }
        static void destroy(void *i) { (void)i; }
        static blyan_status self_test(void *i, blyan_error *e) { (void)i; (void)e; return BLYAN_OK; }
        static const void *get_ability(void *i, const char *id) {
          (void)i; return strcmp(id, BLYAN_GATE_JUDGE) == 0 ? &gate : 0; }
        static const blyan_plugin plugin = {BLYAN_PLUGIN_MAGIC, sizeof(blyan_plugin), 1, 1, BLYAN_KIND_GATE, 0,
          "tester", "1.0.0", "{\\"type\\":\\"object\\",\\"description\\":\\"" BUILD "\\"}",
          create, destroy, self_test, get_ability};
        const blyan_plugin *blyan_plugin_entry(void);
        const blyan_plugin *blyan_plugin_entry(void) { return &plugin; }
        """

    /// Puts the gate `tester` into a home's plugin folder, and trusts it.
    ///
    /// - Parameters:
    ///   - limit: milliseconds of a call.
    ///   - build: another text makes another library.
    init(in home: Home, limit: Int = 60_000, build: String = "first") throws {
        folder = home.folder.appendingPathComponent("plugins")
        let source = folder.appendingPathComponent("tester.c")
        try Data(Self.source.utf8).write(to: source)
        let header = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Sources/CBlyanPlugin/include").path
        let compiler = Process()
        compiler.executableURL = URL(fileURLWithPath: "/usr/bin/cc")
        compiler.arguments = [
            "-std=gnu11", "-O1", "-shared", "-fPIC", "-I", header, source.path, "-o",
            folder.appendingPathComponent("tester.so").path, "-DBUILD=\"\(build)\"",
            "-DCONTROL=\"\(folder.appendingPathComponent("tester.control").path)\"",
        ]
        try compiler.run()
        compiler.waitUntilExit()
        try #require(compiler.terminationStatus == 0)
        try self.limit(to: limit)
    }

    /// Writes the manifest.
    func limit(to milliseconds: Int) throws {
        let manifest = """
            name: tester
            kind: gate
            version: 1.0.0
            library: tester.so
            sha256: unset
            abi: {major: 1, minor: 1}
            isolation: in-process
            limits: {call_milliseconds: \(milliseconds)}

            """
        let file = folder.appendingPathComponent("tester.yaml")
        try Data(manifest.utf8).write(to: file)
        let hash = try PluginHost.libraryHash(of: PluginManifest(path: file.path))
        try Data(manifest.replacing("sha256: unset", with: "sha256: \(hash)").utf8).write(to: file)
    }

    /// What it does from now on.
    ///
    /// - Parameter candidate: to this candidate alone; others it accepts.
    func will(_ deed: Deed, to candidate: Digest? = nil) throws {
        try Data("\(deed.rawValue) \(candidate?.description ?? "")\n".utf8)
            .write(to: folder.appendingPathComponent("tester.control"))
    }

    /// What a busy one was told in the end: the statuses of a service and of a read.
    var said: String? {
        try? String(
            contentsOf: folder.appendingPathComponent("tester.control.said"), encoding: .utf8)
    }
}
