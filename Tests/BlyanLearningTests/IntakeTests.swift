import BlyanKernel
import BlyanLearning
import BlyanModel
import BlyanServer
import Dispatch
import Foundation
import Synchronization
import Testing

/// What many submit at once, and what is left of what is refused.
@Suite(.serialized) struct IntakeTests {
    /// Submits all at once; answers what each was refused with.
    private func submit(_ blocks: [Block], to judge: Judge) -> [KernelError] {
        let refusals = Mutex<[KernelError]>([])
        // Threads of their own, as commands have them: more than there are processors.
        let group = DispatchGroup()
        for block in blocks {
            group.enter()
            Thread.detachNewThread {
                defer { group.leave() }
                do { try judge.submit(block) } catch let error as KernelError {
                    refusals.withLock { $0.append(error) }
                } catch { Issue.record("\(error)") }
            }
        }
        group.wait()
        return refusals.withLock { $0 }
    }

    @Test func manyAtOnceDoNotExceedTheQuota() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let judge = try home.node.judge()
        let author = try SigningKey(), base = try home.tensors()
        let blocks = try (1...32).map { i in
            try home.block(base.mapped { $3 * (1 + Float(i) / 256) }, key: author)
        }
        let refusals = submit(blocks, to: judge)
        #expect(judge.candidates.queue.count == 20 && refusals.count == 12)
        #expect(refusals.allSatisfy { $0.message.contains("quota exceeded") })
        // Another author has uploads of their own.
        let other = try home.block(base.mapped { $3 * 1.5 }, key: SigningKey())
        #expect(submit([other], to: judge).isEmpty)
    }

    @Test func theSameWorkWaitsOnceHoweverManyBringItAtOnce() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let judge = try home.node.judge()
        let tensors = try home.tensors().mapped { $3 * 1.01 }
        let blocks = try (0..<16).map { _ in try home.block(tensors, key: SigningKey()) }
        let refusals = submit(blocks, to: judge)
        #expect(judge.candidates.queue.count == 1 && refusals.count == 15)
        #expect(refusals.allSatisfy { $0.message.contains("the same work waits") })
    }

    private func payloads(_ home: JudgedHome) throws -> Set<String> {
        let folder = home.folder.appendingPathComponent("payloads")
        return Set(
            try FileManager.default.subpathsOfDirectory(atPath: folder.path).filter {
                var isFolder: ObjCBool = false
                let path = folder.appendingPathComponent($0).path
                return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
                    && !isFolder.boolValue
            })
    }

    @Test func nothingIsLeftOfWhatIsRefused() throws {
        let home = try JudgedHome(gates: [("structure", "")], pool: [])
        let judge = try home.node.judge()
        let base = try home.tensors(), stale = try home.node.model(nil)
        func submit(_ factor: Float, by key: SigningKey) throws -> Block {
            try home.node.submit(
                JudgedHome.part, base.mapped { $3 * factor }, router: nil, to: stale, key: key,
                judge: judge)
        }
        let author = try SigningKey()
        for i in 1...20 { _ = try submit(1 + Float(i) / 256, by: author) }
        let kept = try payloads(home)
        // No upload is left: nothing is written.
        let none = #expect(throws: KernelError.self) { try submit(1.5, by: author) }
        #expect(none?.message.contains("quota exceeded") == true, "\(none?.message ?? "")")
        // The same work as one that waits, which keeps its payload.
        let twin = #expect(throws: KernelError.self) { try submit(1 + 1 / 256, by: SigningKey()) }
        #expect(twin?.message.contains("the same work waits") == true, "\(twin?.message ?? "")")
        #expect(try payloads(home) == kept)
        // Somebody else was faster.
        let first = try #require(judge.candidates.queue.first)
        #expect(try judge.judge(first.block.hash).outcome == .accept)
        let after = try payloads(home)
        let late = #expect(throws: KernelError.self) { try submit(1.5, by: SigningKey()) }
        #expect(late?.message.contains("somebody was faster") == true, "\(late?.message ?? "")")
        #expect(try payloads(home) == after && after.isSuperset(of: kept))
    }
}
