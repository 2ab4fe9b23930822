import BlyanJSON
import BlyanKernel
import Foundation
import Testing

/// The published vectors, made by other people's libraries: Examples/vectors/make_vectors.py.
private struct Vectors: Decodable {
    struct Valid: Decodable { let note, hash, line: String }
    struct Invalid: Decodable { let note, error, line_hex: String }
    let key, public_key: String
    let valid: [Valid]
    let invalid: [Invalid]

    static func read() throws -> Vectors {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent()
            .deletingLastPathComponent()
        return try JSONDecoder().decode(
            Vectors.self,
            from: Data(contentsOf: root.appendingPathComponent("Examples/vectors/headers.json")))
    }
}

@Suite struct VectorTests {
    @Test func everyValidHeaderIsReadAndWrittenToTheByte() throws {
        let vectors = try Vectors.read()
        let key = try SigningKey(#require(Hex.decode(vectors.key, count: 32)))
        #expect(key.publicKey == vectors.public_key)
        #expect(vectors.valid.count >= 4)
        for vector in vectors.valid {
            let block = try Block(parsing: Array(vector.line.utf8))
            #expect(block.hash.description == vector.hash, "\(vector.note)")
            #expect(block.line == Array(vector.line.utf8), "\(vector.note)")
            #expect(block.isSignatureValid, "\(vector.note)")
            // RFC 6979: the same key and digest give the same signature.
            #expect(try key.sign(block.hash) == block.signature, "\(vector.note)")
        }
    }

    @Test func everyInvalidHeaderIsRefusedForItsReason() throws {
        let vectors = try Vectors.read()
        #expect(vectors.invalid.count >= 30)
        for vector in vectors.invalid {
            let line = try #require(Hex.decode(vector.line_hex, count: vector.line_hex.count / 2))
            do {
                let block = try Block(parsing: line)
                #expect(vector.error == "signature" && !block.isSignatureValid, "\(vector.note)")
            } catch {
                #expect(error.code.description == vector.error, "\(vector.note): \(error)")
            }
        }
    }

    /// Every single-byte change of a header is refused, or is another block whose signature does not hold.
    @Test func noChangedByteKeepsTheSignature() throws {
        let line = Array(try Vectors.read().valid[1].line.utf8)
        for i in line.indices {
            for change: UInt8 in [1, 0x20, 0x80] {
                var changed = line
                changed[i] ^= change
                if let block = try? Block(parsing: changed) { #expect(!block.isSignatureValid) }
            }
        }
    }

    /// RFC 6962 trees of 0 to 8 leaves, from the certificate-transparency reference (merkletree tests of google/trillian).
    @Test func merkleRootsAreThoseOfCertificateTransparency() throws {
        let inputs = [
            "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ]
        #expect(
            Merkle.root([]).description
                == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        var leaves: [Digest] = []
        for (input, root) in zip(inputs, roots) {
            let bytes = try #require(Hex.decode(input, count: input.count / 2))
            leaves.append(bytes.withUnsafeBytes { Merkle.leaf($0) })
            #expect(Merkle.root(leaves).description == root)
        }
    }
}
