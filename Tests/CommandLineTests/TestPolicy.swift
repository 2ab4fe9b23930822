import BlyanKernel
import BlyanModel
import Foundation

/// A reward policy compiled from a few lines of C, which does what a file says: it hangs, ends the process, or pays the
/// author of each event.
struct TestPolicy {
    private let plugin: TestPlugin

    /// What the policy does when it is asked.
    enum Deed: String {
        case pay
        /// Never returns.
        case sleep
        /// Returns once it is told something else.
        case doze
        case abort
    }

    private static let source = """
        #include "blyan_plugin.h"
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        static char deed[16], whom[80];
        static long long amount;
        static void listen(void) {
          deed[0] = whom[0] = 0; amount = 7;
          FILE *control = fopen(CONTROL, "r");
          if (!control) return;
          if (fscanf(control, "%15s %lld %79s", deed, &amount, whom) < 1) deed[0] = 0;
          fclose(control);
        }
        static blyan_status settle(void *i, const blyan_settlement *s, blyan_payment *p, uint32_t capacity,
                                   uint32_t *count, blyan_error *e) {
          (void)i; (void)e;
          char *events = calloc(1, s->events.size + 1);
          memcpy(events, s->events.data, s->events.size);
          listen();
          // The test vectors ask about no event.
          if (strstr(events, whom[0] ? whom : "kind")) {
            FILE *said = fopen(CONTROL ".said", "w");
            if (said) { fprintf(said, "%s", deed); fclose(said); }
            if (!strcmp(deed, "sleep")) for (;;) sleep(1000);
            if (!strcmp(deed, "abort")) abort();
            while (!strcmp(deed, "doze")) { usleep(5000); listen(); }
          }
          uint32_t n = 0;
          const char *author = events;
          while ((author = strstr(author, "\\"author\\":\\""))) {
            author += 10;
            if (n < capacity) {
              p[n].event = n; p[n].amount = amount; p[n].vesting = 0;
              memcpy(p[n].account, author, 66);
              memset(p[n].account + 66, 0, 6);
            }
            n++;
          }
          free(events);
          *count = n;
          return n > capacity ? BLYAN_E_CAPACITY : BLYAN_OK;
        }
        static const blyan_reward reward = {sizeof(blyan_reward), 0, settle};
        static blyan_status create(const blyan_host *h, blyan_string c, void **i, blyan_error *e) {
          (void)h; (void)c; (void)e; *i = 0; return BLYAN_OK; }
        static void destroy(void *i) { (void)i; }
        static blyan_status self_test(void *i, blyan_error *e) { (void)i; (void)e; return BLYAN_OK; }
        static const void *get_ability(void *i, const char *id) {
          (void)i; return strcmp(id, BLYAN_REWARD_SETTLE) == 0 ? &reward : 0; }
        static const blyan_plugin plugin = {BLYAN_PLUGIN_MAGIC, sizeof(blyan_plugin), 1, 1, BLYAN_KIND_REWARD, 0,
          "payer", "1.0.0", "{\\"type\\":\\"object\\",\\"description\\":\\"" BUILD "\\"}",
          create, destroy, self_test, get_ability};
        const blyan_plugin *blyan_plugin_entry(void);
        const blyan_plugin *blyan_plugin_entry(void) { return &plugin; }
        """

    private static let vectors = """
        {"format":"blyan-reward-vectors/1","policy":"payer","cases":[
          {"name":"nothing happened","config":{},"events":[],"payments":[]}]}
        """

    /// Puts the reward policy `payer` into a home's plugin folder, and trusts it.
    ///
    /// - Parameters:
    ///   - limit: milliseconds of a call.
    ///   - build: another text makes another library.
    init(in home: Home, limit: Int = 60_000, build: String = "first") throws {
        plugin = try TestPlugin("payer", Self.source, in: home, build: build)
        try Data(Self.vectors.utf8).write(
            to: plugin.folder.appendingPathComponent("payer.vectors.json"))
        try self.limit(to: limit)
    }

    /// Writes the manifest.
    func limit(to milliseconds: Int) throws {
        try plugin.declare(.reward, limit: milliseconds, more: "vectors: payer.vectors.json")
    }

    /// Events of anybody, and those of the test vectors.
    static let everything = "["

    /// What it does from now on.
    ///
    /// - Parameters:
    ///   - amount: micro-BLY that it pays for an event.
    ///   - events: where this text stands in the events; others it pays.
    func will(_ deed: Deed, amount: Int64 = 7, to events: String = "") throws {
        plugin.forgetSaid()
        try plugin.order("\(deed.rawValue) \(amount) \(events)")
    }

    /// Whether it has begun with what it was told last.
    var isAtIt: Bool { plugin.said != nil }
}
