import BlyanJSON
import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Foundation
import Testing

/// Losses depend on the router: the policy on chain says which one, and `node.yaml` does not.
@Suite(.serialized) struct RouterPolicyTests {
    private static let gate = (
        name: "proof-of-learning",
        config:
            "documents: 96\n  least_documents: 16\n  delta_ppm: 500\n  floor_ppm: -300000\n  resamples: 1000"
    )

    /// As an operator who edits `node.yaml`; no line with nil.
    private static func route(_ home: JudgedHome, by router: String?) throws {
        let file = home.folder.appendingPathComponent("node.yaml")
        let text = try String(contentsOf: file, encoding: .utf8)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).filter {
            !$0.hasPrefix("router:")
        }
        let all = lines.joined(separator: "\n") + (router.map { "router: \($0)\n" } ?? "")
        try all.write(to: file, atomically: true, encoding: .utf8)
    }

    private static func cap(_ home: JudgedHome, at experts: Int) throws {
        let file = home.folder.appendingPathComponent("plugins/layer-capped.yaml")
        let text = try String(contentsOf: file, encoding: .utf8)
        try text.replacing(/max_experts: \d+/, with: "max_experts: \(experts)").write(
            to: file, atomically: true, encoding: .utf8)
    }

    private static func baseline(_ made: Judge.Judgement) throws -> JSONValue {
        try #require(made.gates.last?.evidence["baseline_unat"])
    }

    @Test func theRouterOfThePolicyJudgesWhateverServes() throws {
        let home = try JudgedHome(gates: [Self.gate])
        var node: Node { home.node }
        let accepted = try home.judge(home.trained())
        try #require(accepted.outcome == .accept)
        let first = try #require(try node.judge().currentPolicy())
        let topk = try #require(first.policy.router)
        #expect(topk.name == "topk" && topk.config == .object([:]))
        #expect(topk.library == (try node.plugins.router().plugin.sha256.description))
        let verdict = try #require(accepted.verdict)

        // What serves is another one after a reload, and in a process that begins with it; the policy is the same.
        try Self.route(home, by: "layer-capped")
        _ = try node.reloadPlugins()
        #expect(try node.judge().audit(verdict).differences == [])
        let weights = try home.tensors().mapped { $3 * 1.01 }
        let still = try home.judge(weights)
        #expect(try node.judge().currentPolicy()?.block.hash == first.block.hash)
        #expect(try node.judge().audit(#require(still.verdict)).differences == [])

        // As `plugin reload` does, which makes it the policy: in this process losses of the other one are known.
        let second = try #require(try node.adoptPolicy())
        #expect(try node.adoptPolicy() == nil)
        let capped = try #require(try node.judge().currentPolicy()?.policy.router)
        #expect(capped.name == "layer-capped" && capped.config["max_experts"] == .int(6))
        let after = try home.judge(home.tensors().mapped { $3 * 1.02 })
        #expect(try Self.baseline(after) != Self.baseline(still))
        let document = try VerdictDocument(
            parsing: node.store.document(#require(after.verdict)))
        #expect(document.policy == second.hash)
        #expect(try node.judge().audit(#require(after.verdict)).differences == [])
        #expect(try node.judge().audit(verdict).differences == [])

        // Its configuration is the policy's too, and an auditor need not serve with any.
        for router in ["topk", "layer-capped", nil] {
            try Self.route(home, by: router)
            try Self.cap(home, at: 4)
            try home.reopen()
            for made in [accepted, still, after] {
                #expect(try home.node.judge().audit(#require(made.verdict)).differences == [])
            }
        }
    }

    @Test func aRouterThatIsNotHereIsNamed() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let made = try home.judge(home.tensors().mapped { $3 * 1.01 })
        let verdict = try #require(made.verdict)
        try Self.route(home, by: "layer-capped")
        let file = home.folder.appendingPathComponent("plugins/topk.yaml")
        let manifest = try String(contentsOf: file, encoding: .utf8)
        func refusal(_ text: String?) throws -> KernelError? {
            try home.replace { _ in
                try FileManager.default.removeItem(at: file)
                try text?.write(to: file, atomically: true, encoding: .utf8)
            }
            let error = #expect(throws: KernelError.self) {
                try home.node.judge().audit(verdict)
            }
            try manifest.write(to: file, atomically: true, encoding: .utf8)
            return error
        }
        for text in [
            nil, manifest.replacing("version: 1.0.1", with: "version: 1.0.9"),
            manifest.replacing("kind: router", with: "kind: gate"),
            manifest.replacing("libTopK.so", with: "libNowhere.so"),
        ] {
            let error = try #require(try refusal(text))
            #expect(error.message.contains("the router topk 1.0.1"), "\(error.message)")
            #expect(error.hint?.isEmpty == false, "\(error.message)")
        }
        try home.reopen()
        #expect(try home.node.judge().audit(verdict).differences == [])
    }

    /// A chain from before policies named a router: what judges next is named, and what was judged stays.
    @Test func aPolicyWithoutARouterGetsThisNodes() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        try Self.route(home, by: nil)
        try home.reopen()
        let policy = try home.node.judge().adoptPolicy()
        #expect(try JSONValue(parsing: home.node.store.document(policy))["router"] == nil)
        try Self.route(home, by: "topk")
        try home.reopen()
        let made = try home.judge(home.tensors().mapped { $3 * 1.01 })
        let current = try #require(try home.node.judge().currentPolicy())
        #expect(current.block.hash != policy.hash && current.policy.router?.name == "topk")
        let verdict = try #require(made.verdict)
        #expect(
            try VerdictDocument(parsing: home.node.store.document(verdict)).policy
                == current.block.hash)
        #expect(try home.node.judge().audit(verdict).differences == [])
        let document = try JSONValue(parsing: home.node.store.document(current.block))
        #expect(try JudgingPolicy(document) == current.policy)
        guard case .object(var members) = document else { return }
        members["router"] = .string("topk")
        #expect(throws: KernelError.self) { try JudgingPolicy(.object(members)) }
        members["router"] = nil
        #expect(try JudgingPolicy(.object(members)).router == nil)
    }
}
