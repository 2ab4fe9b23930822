import BlyanKernel
import Testing

@Suite struct DigestTests {
    /// FIPS 180-2, appendix B.1.
    @Test func hashesThePublishedExample() {
        #expect(
            SHA256.hash(Array("abc".utf8)).description
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }

    @Test func readsItsOwnHexAndRefusesOthers() {
        let digest = SHA256.hash([1, 2, 3])
        #expect(Digest(hex: digest.description) == digest)
        #expect(Digest(hex: digest.description.uppercased()) == nil)
        #expect(Digest(hex: String(digest.description.dropLast())) == nil)
    }
}
