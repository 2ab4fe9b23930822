import BlyanKernel
import BlyanLedger
import BlyanServer
import Foundation
import Testing

/// Wallets from the command line, alone and while another process holds the home.
@Suite struct WalletTests {
    private struct Balance: Decodable {
        let account, totalMicroBly, spendableMicroBly, nonce: String
        let vestingRewards: Int
        let height: Int64
    }

    private func decode<T: Decodable>(_ type: T.Type, _ text: String) throws -> T {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(type, from: Data(text.utf8))
    }

    private func balance(_ home: Home, _ name: String...) throws -> Balance {
        let outcome = try home.run(["wallet", "balance"] + name + ["--json"])
        try #require(outcome.status == 0, "\(outcome.error)")
        return try decode(Balance.self, outcome.output)
    }

    /// Opens the home's chains with the node's key, past the program.
    private func withLedger<R>(
        _ home: Home, _ body: (ChainStore, Ledger, SigningKey) throws -> R
    ) throws -> R {
        let store = try ChainStore(home: home.folder, specs: ChainSpec.all)
        let ledger = Ledger(store: store, home: home.folder)
        defer {
            ledger.close()
            store.close()
        }
        let secret = try #require(KeyFile(home: home.folder).passphrase)
        let key = try Keystore(home: home.folder).unlock(passphrase: secret)
        return try body(store, ledger, key)
    }

    /// Rewards for the node's own account.
    private func pay(_ home: Home, _ amount: Int64, vesting: Int64 = 0) throws {
        try withLedger(home) { store, ledger, key in
            let genesis = try #require(store.genesis)
            let policy = Reason.Policy(
                name: "test", version: "1.0.0", vectors: .zero, library: .zero)
            let reward = Reward(
                to: Account(key), amount: amount, vesting: vesting,
                reason: Reason(blocks: [genesis], verdict: nil, policy: policy))
            _ = try ledger.append([.reward(reward)], key: key, time: 1_700_000_000_000)
        }
    }

    private func file(_ text: String, _ name: String, in home: Home) throws -> String {
        let file = home.scratch.appendingPathComponent(name)
        try Data(text.utf8).write(to: file)
        return file.path
    }

    @Test(arguments: [false, true]) func moneyGoesFromWalletToWallet(isHeld: Bool) throws {
        let home = try Home()
        try pay(home, 5_000_000)
        let holder = isHeld ? try Holder(home) : nil
        let made = try home.run("wallet", "new", "savings")
        #expect(made.status == 0 && made.error.contains("savings.passphrase"), "\(made.error)")
        let account = try #require(made.output.split(separator: " ").last?.dropLast(1))
        #expect(Account(String(account)) != nil)
        let sent = try home.succeed("wallet", "send", "savings", "1.25")
        #expect(
            sent.contains("sent      1.25 BLY to \(account)") && sent.contains("left      3.75 BLY")
        )
        // Back, by the account's key, with a fee for the node that signs.
        let node = try balance(home)
        try home.succeed(
            "wallet", "send", node.account, "0.5", "--from", "savings", "--fee", "0.000001")
        #expect(try balance(home, "savings").totalMicroBly == "749999")
        #expect(try balance(home, String(account)).nonce == "1")
        #expect(try balance(home).totalMicroBly == "4250001")
        let list = try home.succeed("wallet", "list").split(separator: "\n")
        #expect(list.count == 3 && list[1].hasPrefix("node") && list[2].contains("0.749999 BLY"))
        let history = try home.succeed("wallet", "history", "savings").split(separator: "\n")
        try #require(history.count == 3)
        #expect(history[1].contains("-0.500001 BLY") && history[1].hasSuffix("node"))
        #expect(history[2].contains("+1.25 BLY") && history[2].hasSuffix("node"))
        #expect(try home.succeed("wallet", "history", "-n", "1").split(separator: "\n").count == 2)
        let verified = try home.succeed("chain", "verify")
        #expect(verified.contains("chain C   3 blocks"))
        #expect(verified.contains("ledger    2 accounts, 5 BLY in all"), "\(verified)")
        try home.succeed("chain", "check", "--read-data")
        #expect(try home.succeed("chain", "log", "--chain", "C").contains("transfer"))
        #expect(holder?.process.isRunning != false)
    }

    @Test func everyAnswerIsAlsoJSON() throws {
        struct Entry: Decodable { let name, account, totalMicroBly, spendableMicroBly: String }
        struct Sent: Decodable {
            let from, to, amountMicroBly, feeMicroBly, block: String
            let index, transaction: Int64
        }
        struct Line: Decodable {
            let block, transaction, timestamp: Int64
            let kind, changeMicroBly, feeMicroBly, counterparty: String
        }
        let home = try Home()
        try pay(home, 8_000_000, vesting: 4)
        let made = try home.run("wallet", "new", "a.b-c_9", "--json")
        let account = try #require(
            try decode([String: String].self, made.output)["account"])
        let here = try balance(home)
        #expect(here.totalMicroBly == "8000000" && here.spendableMicroBly == "2000000")
        #expect(here.vestingRewards == 1 && here.height == 1)
        let sent = try decode(
            Sent.self, try home.succeed("wallet", "send", account, "2 BLY", "--json"))
        #expect(sent.amountMicroBly == "2000000" && sent.to == account && sent.index == 1)
        try home.succeed("block", "show", sent.block)
        let list = try decode([Entry].self, try home.succeed("wallet", "list", "--json"))
        #expect(list.map(\.name) == ["node", "a.b-c_9"])
        #expect(list.map(\.totalMicroBly) == ["6000000", "2000000"])
        let lines = try decode([Line].self, try home.succeed("wallet", "history", "--json"))
        #expect(lines.map(\.kind) == ["transfer", "reward"])
        #expect(lines.map(\.changeMicroBly) == ["-2000000", "8000000"])
        #expect(lines.map(\.counterparty) == [account, ""])
    }

    @Test func errorsNameObjectAndRemedy() throws {
        let home = try Home()
        try pay(home, 4_000_000, vesting: 4)
        try home.succeed("wallet", "new", "rich")
        try home.fail("wallet", "send", "rich", "1.5", naming: ["can spend 1 BLY", "not vested"])
        try home.fail("wallet", "send", "node", "1", "--from", "rich", naming: ["has nothing"])
        try home.fail("wallet", "send", "node", "1", naming: ["pays itself"])
        try home.fail("wallet", "send", "rich", "0", naming: ["above 0"])
        try home.fail("wallet", "send", "rich", "1e3", naming: ["no amount of BLY", "1.25"])
        try home.fail("wallet", "send", "rich", "1", "--fee", "-1", naming: ["--fee"])
        try home.fail("wallet", "send", "rich", "1", "--fee=-1", naming: ["no amount of BLY"])
        try home.fail(
            "wallet", "send", "poor", "1", naming: ["no wallet \"poor\"", "wallet new poor"])
        try home.fail("wallet", "send", "rich", "1", "--from", "poor", naming: ["no wallet"])
        try home.fail(
            "wallet", "send", String(repeating: "0", count: 66), "1", naming: ["66 lower-case hex"])
        try home.fail(
            "wallet", "send", "02" + String(repeating: "f", count: 64), "1",
            naming: ["no public key"])
        try home.fail("wallet", "new", "rich", naming: ["wallet rich already", "wallet list"])
        try home.fail("wallet", "new", "node", naming: ["node's own key"])
        for name in ["", "../key", "a/b", "a\u{1B}[31m", ".hidden", "-x", "two words", "ä"] {
            let outcome = try home.run(
                ["wallet", "new", "--home", home.folder.path, "--", name])
            #expect(outcome.status != 0 && outcome.error.contains("no wallet's name"), "\(name)")
            #expect(!outcome.error.contains("\u{1B}"))
        }
        #expect(try home.succeed("wallet", "list").split(separator: "\n").count == 3)
        #expect(
            try Set(FileManager.default.contentsOfDirectory(atPath: home.folder.path + "/wallets"))
                == ["rich.json", "rich.passphrase"])
    }

    @Test(arguments: [false, true]) func aWalletsPassphraseIsItsOwn(isHeld: Bool) throws {
        let home = try Home()
        try pay(home, 4_000_000)
        let right = try file("correct horse\n", "right", in: home)
        let wrong = try file("wrong horse\n", "wrong", in: home)
        let holder = isHeld ? try Holder(home) : nil
        try home.succeed("wallet", "new", "safe", "--wallet-passphrase-file", right)
        let folder = home.folder.path + "/wallets"
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["safe.json"])
        let mode = try FileManager.default.attributesOfItem(atPath: folder + "/safe.json")
        #expect(mode[.posixPermissions] as? Int == 0o600)
        try home.succeed("wallet", "send", "safe", "1")
        let back = ["wallet", "send", "node", "0.25", "--from", "safe"]
        let locked = try home.run(back)
        #expect(locked.status != 0)
        #expect(locked.error.contains("wallet safe") && locked.error.contains("BLYAN_WALLET_PASS"))
        let denied = try home.run(back + ["--wallet-passphrase-file", wrong])
        #expect(denied.status != 0 && denied.error.contains("passphrase does not open"))
        let opened = try home.run(back + ["--wallet-passphrase-file", right])
        #expect(opened.status == 0, "\(opened.error)")
        let given = try home.run(
            back, environment: ["BLYAN_WALLET_PASSPHRASE": "correct horse"])
        #expect(given.status == 0, "\(given.error)")
        #expect(try balance(home, "safe").totalMicroBly == "500000")
        #expect(holder?.process.isRunning != false)
    }

    /// Sixteen commands pay from one wallet at once: each takes the next nonce.
    @Test func sendsAtOnceAllArrive() throws {
        let home = try Home()
        try pay(home, 4_000_000)
        try home.succeed("wallet", "new", "other")
        let holder = try Holder(home)
        let clients = try (0..<16).map { i in
            try home.start(
                ["wallet", "send", "other", "0.01"], output: URL(fileURLWithPath: "/dev/null"),
                error: home.scratch.appendingPathComponent("\(i).err"))
        }
        for (i, client) in clients.enumerated() {
            client.waitUntilExit()
            let error = try String(
                contentsOf: home.scratch.appendingPathComponent("\(i).err"), encoding: .utf8)
            #expect(client.terminationStatus == 0, "\(error)")
        }
        #expect(try balance(home, "other").totalMicroBly == "160000")
        #expect(try balance(home).nonce == "16")
        try home.succeed("chain", "verify")
        #expect(holder.process.isRunning)
    }

    /// A total that was forged and signed with the node's own key.
    @Test func aForgedLedgerBlockIsReported() throws {
        let home = try Home()
        try pay(home, 4_000_000)
        let hash = try withLedger(home) { store, ledger, key in
            let place = store.next(on: "C")
            let genesis = try #require(store.genesis)
            let transfer = try Transfer(
                signedBy: key, to: Account(try SigningKey()), amount: 1, nonce: 0, genesis: genesis)
            let writer = try store.payloads.makeWriter()
            try writer.write(
                LedgerDocument(transactions: [.transfer(transfer)], supply: 9_000_000).bytes)
            var header = BlockHeader(
                chainID: "C", blockType: "transfer", index: place.index, previous: place.previous,
                timestamp: 1)
            try writer.finish().describe(in: &header, type: "json")
            let block = try Block(signing: header, with: key)
            try store.append([block])
            return block.hash.description
        }
        for command in ["verify", "check"] {
            try home.fail(
                "chain", command, naming: [hash, "total supply of 9000000", "give 4000000"])
        }
        try home.fail("chain", "verify", "--json", naming: [])
        #expect(try home.run("chain", "verify", "--json").output.contains("\"ok\":false"))
        try home.fail("wallet", "balance", naming: ["ledger cannot be used", hash])
        // All else works; and a home that does not open is judged by its log alone.
        try home.succeed("chain", "log")
        try home.editManifest { $0.replacing("percent: 5", with: "percent: -1") }
        try home.fail("chain", "verify", naming: [hash, "total supply of 9000000"])
    }
}
