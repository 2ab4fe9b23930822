internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import CBlyanPlugin
internal import Foundation

struct LoadBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "An expert of 512 MiB: ready, touched and verified, and what memory it adds.")

    @Option(help: "Rows of the f16 matrix; each has 16 KiB.")
    var rows = 32_768

    @Option(help: "Folder for the temporary home.")
    var folder: String?

    func run() throws {
        let folder = try TemporaryFolder(in: folder)
        let home = folder.url.appendingPathComponent("home")
        let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent()
        _ = try HomeSetup.run(
            home: home, name: "bench", passphrase: Array("bench".utf8), program: program, now: 1)
        let node = try Node(home: home, passphrase: { Array("bench".utf8) }, log: { _ in })
        defer { node.close() }
        let block = try store(node)
        let format = try node.plugins.format(for: node.manifest.formats[0])
        let size = Double(block.header.payloadSize)

        var ready: [Double] = []
        var touch: [Double] = []
        var plain: [Double] = []
        var hash: [Double] = []
        for _ in 0..<5 {
            var payload: MappedPayload?
            ready.append(
                try seconds {
                    let mapped = try node.store.map(block, mode: .touch)
                    _ = try format.describe(mapped)
                    payload = mapped
                })
            guard let payload else { continue }
            let before = ProcessMemory.current.anonymous
            touch.append(try seconds { try payload.verifyAll(threads: 1) })
            let added = ProcessMemory.current.anonymous - before
            guard Double(added) < size else {
                throw KernelError(.limit, "verification copied the payload")
            }
            let start = try unsafe payload.read(offset: 0, length: payload.size)
            let bytes = unsafe UnsafeRawBufferPointer(start: start, count: Int(payload.size))
            hash.append(seconds { _ = unsafe SHA256.hash(bytes) })
            var sum: UInt64 = 0
            plain.append(
                seconds {
                    for at in stride(from: 0, to: bytes.count - 7, by: 8) {
                        unsafe sum &+= bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)
                    }
                })
            withExtendedLifetime(sum) {}
        }
        let before = ProcessMemory.current
        let payload = try node.store.map(block, mode: .touch)
        try payload.verifyAll(threads: 1)
        let after = ProcessMemory.current
        try report([
            "payload_MiB": size / 1_048_576, "ready_warm_ms": median(ready) * 1000,
            "verify_GB_per_s": size / median(touch) / 1e9,
            "sha256_GB_per_s": size / median(hash) / 1e9,
            "verify_share_of_sha256": median(hash) / median(touch),
            "plain_read_GB_per_s": size / median(plain) / 1e9,
            "private_share": Double(max(0, after.anonymous - before.anonymous)) / size,
        ])
        withExtendedLifetime(payload) {}
    }

    /// One part with one large matrix.
    private func store(_ node: Node) throws -> Block {
        let columns = 8192
        var state: UInt64 = 1
        var row = [UInt16](repeating: 0, count: columns)
        let writer = try node.store.payloads.makeWriter()
        let sink = MatrixSink(writer)
        var data = [UInt8]()
        data.reserveCapacity(rows * columns * 2)
        for _ in 0..<rows {
            for i in row.indices {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                row[i] = UInt16(truncatingIfNeeded: state >> 40) & 0x3BFF
            }
            unsafe row.withUnsafeBytes { unsafe data.append(contentsOf: $0) }
        }
        let format = try node.plugins.format(for: node.manifest.formats[0])
        var encodedAt: UInt64 = 0
        try unsafe data.withUnsafeBytes { bytes in
            let source = unsafe FormatPlugin.Source(
                name: "gate", dtype: 1, rows: rows, columns: columns, data: bytes,
                scales: UnsafeRawBufferPointer(start: nil, count: 0))
            encodedAt = try format.encode([source], options: "{}", into: sink).leaf_hashes_offset
        }
        let place = node.store.next(on: "A")
        var header = BlockHeader(
            chainID: "A", blockType: "policy", index: place.index, previous: place.previous,
            timestamp: 2)
        try writer.finish(leafHashesAt: encodedAt).describe(
            in: &header, type: node.manifest.formats[0])
        let block = try Block(signing: header, with: node.signingKey())
        try node.store.append([block])
        return block
    }
}

private final class MatrixSink: PayloadSink {
    private let writer: PayloadWriter

    init(_ writer: PayloadWriter) { self.writer = writer }

    func write(_ bytes: UnsafeRawBufferPointer) throws(KernelError) {
        try unsafe writer.write(bytes)
    }

    func leafHashes(leafSize: UInt64) throws(KernelError) -> (hashes: [Digest], root: Digest) {
        let leaves = writer.closeLeaves()
        return (leaves, Merkle.root(leaves))
    }
}
