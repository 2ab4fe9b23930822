import BlyanJSON
import BlyanKernel
import Testing

@Suite struct SignatureTests {
    private func bytes(_ hex: String) throws -> [UInt8] {
        try #require(Hex.decode(hex, count: hex.utf8.count / 2))
    }

    /// RFC 6979 nonces on secp256k1 with SHA-256: the vectors of Trezor's and Bitcoin's test suites
    /// (github.com/bitcoinjs/tiny-secp256k1, tests/fixtures/ecdsa.json).
    @Test(arguments: [
        (
            "0000000000000000000000000000000000000000000000000000000000000001", "Satoshi Nakamoto",
            "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d82442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
        ),
        (
            "0000000000000000000000000000000000000000000000000000000000000001",
            "All those moments will be lost in time, like tears in rain. Time to die...",
            "8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21"
        ),
        (
            "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", "Satoshi Nakamoto",
            "fd567d121db66e382991534ada77a6bd3106f0a1098c231e47993447cd6af2d06b39cd0eb1bc8603e159ef5c20a5c8ad685a45b06ce9bebed3f153d10d93bed5"
        ),
        (
            "f8b8af8ce3c7cca5e300d33939540c10d45ce001b8f252bfbc57ba0342904181", "Alan Turing",
            "7063ae83e7f62bbb171798131b4a0564b956930092b33b07b395615d9ec7e15c58dfcc1e00a35e1572f366ffe34ba0fc47db1e7189759b9fb233c5b05ab388ea"
        ),
    ])
    func signsThePublishedExamples(secret: String, message: String, signature: String) throws {
        let key = try SigningKey(bytes(secret))
        let digest = SHA256.hash(Array(message.utf8))
        let signed = try key.sign(digest)
        #expect(Hex.encode(signed) == signature)
        #expect(Signature.isValid(signed, over: digest, publicKey: key.publicKey))
        // Every twin with one bit changed fails.
        for bit in 0..<512 {
            var twin = signed
            twin[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(!Signature.isValid(twin, over: digest, publicKey: key.publicKey))
        }
        for bit in 0..<256 {
            var twin = digest.bytes
            twin[bit / 8] ^= 1 << UInt8(bit % 8)
            let other = try #require(Digest(twin))
            #expect(!Signature.isValid(signed, over: other, publicKey: key.publicKey))
        }
    }

    /// In the manner of Wycheproof's ecdsa_secp256k1_sha256 tests: values at and beyond the edges of the field.
    @Test func refusesTheEdgesOfTheCurve() throws {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
        let zero = String(repeating: "0", count: 64)
        let one = String(repeating: "0", count: 63) + "1"
        let all = String(repeating: "f", count: 64)
        let key = try SigningKey([UInt8](repeating: 1, count: 32))
        for r in [zero, one, order, all] {
            for s in [zero, one, order, all] {
                let signature = try bytes(r + s)
                #expect(!Signature.isValid(signature, over: .zero, publicKey: key.publicKey))
            }
        }
        let good = try key.sign(.zero)
        #expect(Signature.isValid(good, over: .zero, publicKey: key.publicKey))
        #expect(!Signature.isValid(good + [0], over: .zero, publicKey: key.publicKey))
        #expect(!Signature.isValid(Array(good.dropLast()), over: .zero, publicKey: key.publicKey))
        #expect(!Signature.isValid([], over: .zero, publicKey: key.publicKey))
        for wrong in [
            "", "04" + key.publicKey.dropFirst(2), key.publicKey.uppercased(), "02" + all,
            "00" + zero,
            key.publicKey.replacing("0", with: "o"),
        ] {
            #expect(!Signature.isValid(good, over: .zero, publicKey: wrong))
        }
        for secret in [zero, order, all] {
            let error = #expect(throws: KernelError.self) { try SigningKey(try bytes(secret)) }
            #expect(error?.code == .key)
        }
    }

    /// Made with Python's hashlib over "blyan/KIND/1\n" ‖ 00 01 … 1f ‖ {"amount":"5","to":"x"}.
    @Test func statementsBindKindNetworkAndBody() throws {
        let genesis = try #require(Digest((0..<32).map { UInt8($0) }))
        let body = JSONValue.object(["to": .string("x"), "amount": .string("5")])
        let transfer = try Statement("transfer", genesis: genesis, body: body)
        #expect(
            "\(transfer.digest)"
                == "7da17658110a52fd5b402e28423ad6d37350d138bebae6d4168356ebc1dab06b")
        let verdict = try Statement("verdict", genesis: genesis, body: body)
        #expect(
            "\(verdict.digest)"
                == "efd222656a443edf116b16efe3326ae5bd9c8e08aa50892d5aa21fdce5652cd7")
        let key = try SigningKey([UInt8](repeating: 1, count: 32))
        let signature = try key.sign(transfer.digest)
        let twins = [
            verdict.digest, try Statement("transfer", genesis: .zero, body: body).digest,
            try Statement("transfer", genesis: genesis, body: .object(["to": .string("x")])).digest,
        ]
        #expect(Signature.isValid(signature, over: transfer.digest, publicKey: key.publicKey))
        for twin in twins {
            #expect(!Signature.isValid(signature, over: twin, publicKey: key.publicKey))
        }
        for kind in ["", "a/b", "A", "a\n", String(repeating: "a", count: 33)] {
            #expect(throws: KernelError.self) { try Statement(kind, genesis: genesis, body: body) }
        }
        #expect(throws: KernelError.self) {
            try Statement(
                "transfer", genesis: genesis, body: .int(JSONValue.integers.upperBound + 1))
        }
    }
}
