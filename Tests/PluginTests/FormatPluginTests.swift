import BlyanKernel
import BlyanModel
import CBlyanPlugin
import Foundation
import Synchronization
import Testing

/// A format in a few lines of C, with tensors that lie where a test wants it, and what the host makes of it.
@Suite struct FormatPluginTests {
    static let source = """
        #include "blyan_plugin.h"
        #include <string.h>
        static blyan_status describe(void *i, const blyan_payload *p, blyan_tensor *t, uint32_t capacity,
                                     uint32_t *count, blyan_error *e) {
          (void)i;
          const uint8_t *bytes;
          blyan_status s = p->read(p->context, READ_AT, 4, &bytes, e);
          if (s != BLYAN_OK) return s;
          *count = COUNT;
          for (uint32_t k = 0; k < COUNT && k < capacity; k++) {
            blyan_tensor x = {.struct_size = sizeof x, .dtype = DTYPE, .layout = LAYOUT, .quantisation = QUANT,
              .rows = ROWS, .columns = COLUMNS, .row_stride = STRIDE, .data_offset = OFFSET, .data_length = LENGTH,
              .scale_offset = SCALE_OFFSET, .scale_length = SCALE_LENGTH, .name_length = NAME_LENGTH};
            memcpy(x.name, NAME, 4);
            x.name[0] = (char)(x.name[0] + k * NAME_STEP);
            t[k] = x;
          }
          return COUNT > capacity ? BLYAN_E_CAPACITY : BLYAN_OK; }
        static blyan_status decode(void *i, const blyan_payload *p, uint32_t index, uint64_t begin, uint64_t end,
                                   float *out, blyan_error *e) {
          (void)i; (void)index;
          const uint8_t *bytes;
          blyan_status s = p->read(p->context, 16 + begin * 12, (end - begin) * 12, &bytes, e);
          if (s == BLYAN_OK) memcpy(out, bytes, (end - begin) * 12);
          return s; }
        static blyan_status encode(void *i, const blyan_source *const *sources, uint32_t count, blyan_string options,
                                   const blyan_sink *sink, blyan_encoded *out, blyan_error *e) {
          (void)i; (void)options;
          for (uint32_t k = 0; k < count; k++) {
            const blyan_bytes name = {(const uint8_t *)sources[k]->name.data, sources[k]->name.size};
            blyan_status s = sink->write(sink->context, name, e);
            if (s == BLYAN_OK) s = sink->write(sink->context, sources[k]->data, e);
            if (s != BLYAN_OK) return SWALLOW ? BLYAN_OK : s;
            out->covered += name.size + sources[k]->data.size;
          }
          const uint8_t *hashes; uint64_t n; uint8_t root[32];
          blyan_status s = sink->leaves(sink->context, 4, &hashes, &n, root, e);
          if (s != BLYAN_OK) return s;
          out->leaf_size = 4;
          out->leaf_hashes_offset = out->covered;
          const blyan_bytes all = {hashes, n * 32};
          return sink->write(sink->context, all, e); }
        static const blyan_format_view view = {sizeof view, 0, describe};
        static const blyan_format_decode decoder = {sizeof decoder, 0, describe, decode};
        static const blyan_format_encode encoder = {sizeof encoder, 0, encode};
        static blyan_status create(const blyan_host *h, blyan_string c, void **i, blyan_error *e) {
          (void)c; (void)e;
          uint8_t digest[32];
          const blyan_bytes config = {(const uint8_t *)c.data, c.size}; /* {}, whose hash begins with 44 */
          if (h->sha256(h->context, config, digest) != BLYAN_OK || digest[0] != 0x44) return BLYAN_E_INTERNAL;
          if (h->monotonic_ns(h->context) == 0 || h->is_cancelled(h->context)) return BLYAN_E_INTERNAL;
          if (h->get_service(h->context, "none/1") || !h->get_service(h->context, "test.service/1"))
            return BLYAN_E_INTERNAL;
          h->log(h->context, BLYAN_LOG_WARNING, (blyan_string){"made", 4});
          *i = 0; return BLYAN_OK; }
        static void destroy(void *i) { (void)i; }
        static blyan_status self_test(void *i, blyan_error *e) { (void)i; (void)e; return BLYAN_OK; }
        static const void *get_ability(void *i, const char *id) { (void)i;
          if (VIEW && !strcmp(id, BLYAN_FORMAT_VIEW)) return &view;
          if (!strcmp(id, BLYAN_FORMAT_DECODE)) return &decoder;
          return !strcmp(id, BLYAN_FORMAT_ENCODE) ? &encoder : 0; }
        static const blyan_plugin plugin = {BLYAN_PLUGIN_MAGIC, sizeof plugin, 1, 0, BLYAN_KIND_FORMAT, 0, "mini",
          "1.0.0", "{\\"type\\":\\"object\\"}", create, destroy, self_test, get_ability};
        const blyan_plugin *blyan_plugin_entry(void); const blyan_plugin *blyan_plugin_entry(void) { return &plugin; }
        """

    /// Two tensors "aten" and "bten" of 2 x 3 f32 at byte 16.
    static let sound = [
        "READ_AT": "0", "COUNT": "2u", "DTYPE": "BLYAN_DTYPE_F32", "LAYOUT": "0", "QUANT": "0",
        "ROWS": "2", "COLUMNS": "3", "STRIDE": "12", "OFFSET": "16", "LENGTH": "24",
        "SCALE_OFFSET": "0", "SCALE_LENGTH": "0", "NAME_LENGTH": "4", "NAME": "\"aten\"",
        "NAME_STEP": "1", "SWALLOW": "0", "VIEW": "1",
    ]

    static let lines = Mutex<[String]>([])

    static func load(_ bench: Bench, _ changes: [String: String] = [:]) throws -> FormatPlugin {
        let library = bench.folder.appendingPathComponent("mini.so").path
        let header = Bench.root.appendingPathComponent("Sources/CBlyanPlugin/include").path
        let source = try bench.write(source, to: "mini.c")
        let macros = sound.merging(changes) { $1 }.map { "-D\($0)=\($1)" }
        try Bench.run(
            "/usr/bin/cc",
            ["-std=c11", "-shared", "-fPIC", "-I", header, source, "-o", library] + macros)
        let text =
            "name: mini\nkind: format\nversion: 1.0.0\nlibrary: mini.so\nsha256: unset\n"
            + "abi: {major: 1, minor: 0}\nisolation: in-process\npayload_types: [mini]\n"
        let manifest = try PluginManifest(path: bench.write(text, to: "mini.yaml"))
        let hash = try PluginHost.libraryHash(of: manifest)
        let trusted = try PluginManifest(
            path: bench.write(text.replacing("unset", with: "\(hash)"), to: "mini.yaml"))
        let service = UnsafeRawPointer(UnsafeMutablePointer<Int>.allocate(capacity: 1))
        let host = unsafe PluginHost(services: ["test.service/1": service]) { level, plugin, line in
            lines.withLock { $0.append("\(level) \(plugin): \(line)") }
        }
        return try FormatPlugin(host.load(trusted))
    }

    // Safe and Sendable: the buffer is written by init alone and freed at the end.
    /// Bytes in memory that can fail as a disk does.
    @safe final class Bytes: PayloadBytes, @unchecked Sendable {
        let buffer: UnsafeMutableRawBufferPointer
        let failure: KernelError?
        var size: UInt64 { UInt64(buffer.count) }

        init(count: Int = 40, failure: KernelError? = nil) {
            unsafe buffer = .allocate(byteCount: count, alignment: 16)
            for i in 0..<count { unsafe buffer[i] = 0 }
            self.failure = failure
        }

        deinit { unsafe buffer.deallocate() }

        func read(offset: UInt64, length: UInt64) throws(KernelError) -> UnsafeRawPointer {
            if let failure { throw failure }
            guard let base = unsafe buffer.baseAddress else { throw KernelError(.io, "no bytes") }
            return unsafe UnsafeRawPointer(base + Int(offset))
        }
    }

    @Test func describesAndDecodes() throws {
        let bench = try Bench()
        let format = try Self.load(bench)
        #expect(format.canView && format.canEncode && !format.canCompute)
        #expect(Self.lines.withLock { $0.contains("2 mini: made") })
        let payload = Bytes()
        unsafe payload.buffer.storeBytes(of: 1.5, toByteOffset: 28, as: Float.self)
        let tensors = try format.describe(payload)
        #expect(tensors.map(\.name) == ["aten", "bten"])
        #expect(tensors[0].data == 16..<40)
        #expect(tensors[0].rows == 2 && tensors[0].columns == 3)
        var row = [Float](repeating: 9, count: 3)
        try unsafe row.withUnsafeMutableBufferPointer {
            try unsafe format.decode(payload, tensor: tensors[1], index: 1, rows: 1..<2, into: $0)
        }
        #expect(row == [1.5, 0, 0])
        #expect(format.plugin.figures.calls == 2)
        #expect(throws: KernelError.self) {
            try unsafe row.withUnsafeMutableBufferPointer {
                try unsafe format.decode(
                    payload, tensor: tensors[1], index: 1, rows: 1..<3, into: $0)
            }
        }
    }

    @Test(arguments: [1, 16, 17, 40, 100])
    func takesAsManyTensorsAsThereAre(count: Int) throws {
        let bench = try Bench()
        let format = try Self.load(bench, ["COUNT": "\(count)u", "NAME": "\"\\x01ten\""])
        #expect(try format.describe(Bytes()).count == count)
    }

    @Test(arguments: [
        (["LENGTH": "28"], "data at 16 with 28 bytes leave the payload of 40"),
        (["OFFSET": "20"], "data at 20 with 24 bytes leave the payload of 40"),
        (["OFFSET": "UINT64_MAX - 3", "LENGTH": "24"], "leave the payload of 40"),
        (["LENGTH": "20"], "data have 20 bytes, expected 24"),
        (["STRIDE": "8"], "a stride of 8 does not fit 2 x 3"),
        (["STRIDE": "UINT64_MAX - 11", "ROWS": "3"], "does not fit 3 x 3"),
        (["ROWS": "UINT64_MAX / 2", "COLUMNS": "UINT64_MAX / 2"], "does not fit"),
        (["ROWS": "UINT64_MAX"], "shape 18446744073709551615 x 3"), (["ROWS": "0"], "shape 0 x 3"),
        (["DTYPE": "99"], "dtype 99"), (["LAYOUT": "7"], "layout 7 is not known"),
        (["QUANT": "9"], "quantisation 9 is not known"),
        (["QUANT": "1"], "scales have 0 bytes, expected 8"),
        (
            ["QUANT": "1", "SCALE_OFFSET": "36", "SCALE_LENGTH": "8"],
            "scales at 36 with 8 bytes leave"
        ),
        (["SCALE_LENGTH": "8"], "scales have 8 bytes, expected 0"),
        (["OFFSET": "14"], "elements of 4 bytes are not aligned"),
        (["NAME_STEP": "0"], "tensor aten stands twice"), (["NAME_LENGTH": "0"], "no valid name"),
        (["NAME_LENGTH": "400"], "no valid name"),
        (["NAME": "\"\\xff\\xfe\\xfd\\xfc\""], "no valid name"),
        (["COUNT": "70000u"], "a payload has 70000 tensors, at most 65536"),
        (["READ_AT": "38"], "bytes 38 + 4 leave the payload of 40 bytes"),
        (["READ_AT": "UINT64_MAX"], "leave the payload of 40 bytes"),
    ])
    func whatAFormatSaysIsChecked(changes: [String: String], message: String) throws {
        let bench = try Bench()
        let format = try Self.load(bench, changes)
        let error = #expect(throws: KernelError.self) { try format.describe(Bytes()) }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    @Test func theHostsOwnErrorReachesTheCaller() throws {
        let bench = try Bench()
        let format = try Self.load(bench)
        let failure = KernelError(
            .integrity, "payload abc, leaf 3: bytes are not those that were signed",
            hint: "fetch it again")
        let error = #expect(throws: KernelError.self) {
            try format.describe(Bytes(failure: failure))
        }
        #expect(error?.code == .integrity)
        #expect(error?.message == failure.message)
        #expect(error?.hint == failure.hint)
    }

    /// Collects what a format writes; refuses the write number `failing`.
    final class Sink: PayloadSink {
        var bytes: [UInt8] = []
        var failing = -1
        private var writes = 0

        func write(_ bytes: UnsafeRawBufferPointer) throws(KernelError) {
            writes += 1
            if writes == failing { throw KernelError(.io, "the disk is full") }
            unsafe self.bytes.append(contentsOf: bytes)
        }

        func closeLeaves(size: UInt64) throws(KernelError) -> (stored: [Digest], root: Digest) {
            ([SHA256.hash(bytes), .zero], .zero)
        }
    }

    static func encode(_ format: FormatPlugin, into sink: Sink) throws -> blyan_encoded {
        let data: [UInt8] = [1, 2, 3, 4]
        return try unsafe data.withUnsafeBytes { data in
            let sources = ["up", "down"].map {
                unsafe FormatPlugin.Source(
                    name: $0, dtype: UInt32(BLYAN_DTYPE_F32), rows: 1, columns: 1, data: data,
                    scales: UnsafeRawBufferPointer(start: nil, count: 0))
            }
            return try format.encode(sources, options: "{}", into: sink)
        }
    }

    @Test func encodesThroughTheSink() throws {
        let bench = try Bench()
        let sink = Sink()
        let encoded = try Self.encode(Self.load(bench), into: sink)
        let covered: [UInt8] = Array("up".utf8) + [1, 2, 3, 4] + Array("down".utf8) + [1, 2, 3, 4]
        #expect(sink.bytes == covered + SHA256.hash(covered).bytes + Digest.zero.bytes)
        #expect(encoded.covered == 14 && encoded.leaf_size == 4)
        #expect(encoded.leaf_hashes_offset == 14)
    }

    @Test(arguments: [1, 2, 4, 5], ["0", "1"])
    func aFailedWriteReachesTheCallerEvenIfTheFormatSwallowsIt(failing: Int, swallow: String) throws
    {
        let bench = try Bench()
        let sink = Sink()
        sink.failing = failing
        let error = #expect(throws: KernelError.self) {
            try Self.encode(Self.load(bench, ["SWALLOW": swallow]), into: sink)
        }
        #expect(error?.code == .io)
        #expect(error?.message == "the disk is full")
    }
}
