import BlyanKernel
import Foundation

/// A gate compiled from a few lines of C, which does what a file says: it hangs, ends the process, or accepts.
struct TestGate {
    private let plugin: TestPlugin

    /// What the gate does when it is asked.
    enum Deed: String {
        case accept
        /// Never returns.
        case sleep
        /// Returns once it is told something else.
        case doze
        /// Asks for services and bytes until it is refused both, and says so.
        case busy
        case abort
        /// Accepts, with evidence that nests so many levels deep.
        case deep5, deep6, deep8, deep9
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
        static void listen(char *deed, char *whom) {
          deed[0] = whom[0] = 0;
          FILE *control = fopen(CONTROL, "r");
          if (!control) return;
          if (fscanf(control, "%15s %79s", deed, whom) < 1) deed[0] = 0;
          fclose(control);
        }
        static blyan_status judge(void *i, const blyan_candidate *c, blyan_verdict *v, blyan_error *e) {
          (void)i; (void)e;
          char deed[16], whom[80], context[4096] = "";
          listen(deed, whom);
          if (c->context.size < sizeof context) memcpy(context, c->context.data, c->context.size);
          if (!whom[0] || strstr(context, whom)) {
            if (!strcmp(deed, "sleep")) for (;;) sleep(1000);
            while (!strcmp(deed, "doze")) { usleep(5000); listen(deed, whom); }
            if (!strcmp(deed, "busy")) return busy(c);
            if (!strcmp(deed, "abort")) abort();
            if (!strcmp(deed, "null")) *(volatile int *)0 = 1;
          }
          v->verdict = BLYAN_VERDICT_ACCEPT;
          int levels = strncmp(deed, "deep", 4) ? 0 : deed[4] - '0';
          char *at = v->evidence;
          for (int n = 0; n < levels; n++) at += sprintf(at, "{\\"a\\":");
          at += sprintf(at, levels ? "1" : "{}");
          for (int n = 0; n < levels; n++) *at++ = '}';
          v->evidence_length = (uint32_t)(at - v->evidence);
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
        plugin = try TestPlugin("tester", Self.source, in: home, build: build)
        try self.limit(to: limit)
    }

    /// Writes the manifest.
    func limit(to milliseconds: Int) throws { try plugin.declare(.gate, limit: milliseconds) }

    /// What it does from now on.
    ///
    /// - Parameter candidate: to this candidate alone; others it accepts.
    func will(_ deed: Deed, to candidate: Digest? = nil) throws {
        try plugin.order("\(deed.rawValue) \(candidate?.description ?? "")")
    }

    /// What a busy one was told in the end: the statuses of a service and of a read.
    var said: String? { plugin.said }
}
