import BlyanKernel
import Foundation

/// A tensorblock payload written from FORMAT.md with literal numbers, and none of the plugin's constants.
///
/// Every field can be set wrong before ``bytes`` puts the payload together.
struct TensorBlockBuilder {
    struct Block {
        var name: [UInt8]
        var dtype: UInt32
        var rows: UInt64
        var columns: UInt64
        var layout: UInt32 = 0
        var quantisation: UInt32 = 0
        var scales: [Float] = []
        var zeros: [Float] = []
        var data: [UInt8]

        /// 3 x 4 of f32, 0 to 11.
        init(_ name: String = "gate") {
            self.name = Array(name.utf8)
            (dtype, rows, columns) = (5, 3, 4)
            data = (0..<12).flatMap { Self.little(Float($0).bitPattern) }
        }

        init(
            _ name: String, dtype: UInt32, rows: UInt64, columns: UInt64, layout: UInt32 = 0,
            quantisation: UInt32 = 0, scales: [Float] = [], zeros: [Float] = [], data: [UInt8]
        ) {
            self.init(name)
            (self.dtype, self.rows, self.columns) = (dtype, rows, columns)
            (self.layout, self.quantisation) = (layout, quantisation)
            (self.scales, self.zeros, self.data) = (scales, zeros, data)
        }

        var metadata: [UInt8] { (scales + zeros).flatMap { Self.little($0.bitPattern) } }
        var dataOffset: Int { Self.align(128 + metadata.count) }
        var length: Int { dataOffset + Self.align(data.count) }

        func bytes(merkle: UInt64) -> [UInt8] {
            var out = Array("TBLOCK01".utf8)
            out += Self.little(UInt32(1)) + Self.little(dtype)
            out += Self.little(rows) + Self.little(columns)
            out += Self.little(layout) + Self.little(quantisation)
            out += Self.little(UInt64(quantisation == 0 ? 0 : 128))
            out += Self.little(UInt64(dataOffset)) + Self.little(merkle)
            out += [UInt8](repeating: 0, count: 64)
            precondition(out.count == 128)
            out += metadata
            out += [UInt8](repeating: 0, count: dataOffset - out.count)
            out += data
            return out + [UInt8](repeating: 0, count: length - out.count)
        }

        static func align(_ n: Int) -> Int { (n + 4095) & ~4095 }

        static func little<I: FixedWidthInteger>(_ value: I) -> [UInt8] {
            withUnsafeBytes(of: value.littleEndian) { Array($0) }
        }
    }

    var blocks: [Block]

    init(_ blocks: [Block] = [Block("gate"), Block("up")]) { self.blocks = blocks }

    /// Where the directory begins.
    var directoryOffset: Int { blocks.reduce(0) { $0 + $1.length } }
    /// Where the index begins.
    var covered: Int { directoryOffset + 16 + blocks.reduce(0) { $0 + 20 + $1.name.count } }

    /// The whole payload.
    var bytes: [UInt8] {
        var out: [UInt8] = []
        var directory = Array("TBDIRECT".utf8)
        directory += Block.little(UInt32(blocks.count)) + Block.little(UInt32(0))
        for block in blocks {
            directory += Block.little(UInt64(out.count)) + Block.little(UInt64(block.length))
            directory += Block.little(UInt32(block.name.count)) + block.name
            out += block.bytes(merkle: UInt64(covered - out.count))
        }
        return Self.sealed(out + directory, directory: out.count)
    }

    /// Covered bytes with their index.
    static func sealed(_ covered: [UInt8], directory: Int) -> [UInt8] {
        let leaves = MerkleTree.leaves(covered, size: 65_536)
        var out = covered + MerkleTree.root(leaves[...])
        for field in [65_536, leaves.count, covered.count, directory] {
            out += Block.little(UInt64(field))
        }
        let branches = stride(from: 0, to: leaves.count, by: 128).map {
            MerkleTree.root(leaves[$0..<min($0 + 128, leaves.count)])
        }
        return out + (leaves + (branches.count > 1 ? branches : [])).flatMap { $0 }
    }
}

extension [UInt8] {
    /// Overwrites bytes from `offset` on.
    mutating func put<I: FixedWidthInteger>(_ value: I, at offset: Int) {
        let bytes = TensorBlockBuilder.Block.little(value)
        replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }
}
