internal import ArgumentParser
internal import BlyanKernel
internal import BlyanModel
internal import BlyanServer
internal import CBlyanPlugin
internal import Foundation

struct LoadBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract:
            "An expert of 512 MiB in each enabled format: ready, verified, read, and what memory it adds."
    )

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
        var figures: [String: Double] = ["MiB": Double(rows) * 16 / 1024]
        for type in node.manifest.formats {
            let block = try store(node, type)
            for (name, value) in try measure(node, block, type) {
                figures["\(type)_\(name)"] = value
            }
        }
        try report(figures)
    }

    /// Medians of five rounds, each with a new mapping.
    private func measure(_ node: Node, _ block: Block, _ type: String) throws -> [String: Double] {
        let format = try node.plugins.format(for: type)
        let size = Double(block.header.payloadSize)
        var samples: [String: [Double]] = [:]
        var checksum: UInt64?
        for isCold in [true, false, false, false, false, false] {
            if isCold { try evict(node, block) }
            let before = ProcessMemory.current.anonymous
            var mapped: MappedPayload?
            let ready = try seconds {
                let payload = try node.store.map(block, mode: .touch)
                _ = try format.describe(payload)
                mapped = payload
            }
            guard let payload = mapped else { continue }
            guard !isCold else {
                samples["ready_cold_ms"] = [ready * 1000]
                continue
            }
            // A format whose payload stores no leaf hashes has been verified whole before it is ready.
            let verify = try ready + seconds { try payload.verifyAll(threads: 1) }
            let added = Double(max(0, ProcessMemory.current.anonymous - before))
            let start = try unsafe payload.read(offset: 0, length: payload.size)
            let bytes = unsafe UnsafeRawBufferPointer(start: start, count: Int(payload.size))
            let hash = seconds { _ = unsafe SHA256.hash(bytes) }
            var found: UInt64 = 0
            let read = seconds { unsafe found = sum(bytes) }
            guard checksum ?? found == found else {
                throw KernelError(.integrity, "two readings of one payload differ")
            }
            checksum = found
            for (name, value) in [
                ("ready_warm_ms", ready * 1000), ("ready_and_verified_ms", verify * 1000),
                ("read_ms", read * 1000), ("verify_GB_per_s", size / verify / 1e9),
                ("verify_share_of_sha256", hash / verify), ("private_share", added / size),
            ] { samples[name, default: []].append(value) }
        }
        return samples.mapValues(median)
    }

    /// The sum of all words.
    private func sum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var sum = SIMD8<UInt64>(repeating: 0)
        for at in stride(from: 0, to: bytes.count - 63, by: 64) {
            unsafe sum &+= bytes.loadUnaligned(fromByteOffset: at, as: SIMD8<UInt64>.self)
        }
        return sum.wrappedSum()
    }

    /// Takes the payload's pages out of the system's memory.
    private func evict(_ node: Node, _ block: Block) throws {
        guard let hash = block.header.payloadHash else { return }
        let file = try FileHandle(
            forReadingFrom: URL(fileURLWithPath: node.store.payloads.path(of: hash)))
        posix_fadvise(file.fileDescriptor, 0, 0, POSIX_FADV_DONTNEED)
        try file.close()
    }

    /// One part with one large matrix, in a format.
    private func store(_ node: Node, _ type: String) throws -> Block {
        let columns = 8192
        var state: UInt64 = 1
        let writer = try node.store.payloads.makeWriter()
        let sink = MatrixSink(writer)
        var data = [UInt16](repeating: 0, count: rows * columns)
        for i in data.indices {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            data[i] = UInt16(truncatingIfNeeded: state >> 40) & 0x3BFF
        }
        let format = try node.plugins.format(for: type)
        let encoded = try unsafe data.withUnsafeBytes { bytes in
            let source = unsafe FormatPlugin.Source(
                name: "gate", dtype: 1, rows: rows, columns: columns, data: bytes,
                scales: UnsafeRawBufferPointer(start: nil, count: 0))
            return try format.encode([source], options: "{}", into: sink)
        }
        let place = node.store.next(on: "A")
        var header = BlockHeader(
            chainID: "A", blockType: "policy", index: place.index, previous: place.previous,
            timestamp: 2)
        let leaves = encoded.leaf_hashes_offset
        try writer.finish(leafHashesAt: leaves == 0 ? nil : leaves).describe(
            in: &header, type: type)
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

    func closeLeaves(size: UInt64) throws(KernelError) -> (stored: [Digest], root: Digest) {
        writer.closeLeaves()
    }
}
