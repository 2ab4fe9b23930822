internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Dispatch
internal import Foundation
internal import Synchronization

/// Has candidates that wait judged while a node runs: at its start, and when gates or held-out text are others, since what
/// had failed or was deferred may come to a verdict then.
///
/// Where the key is locked, or a verdict awaits signatures, it waits until the next block tells that this is over. Any thread.
final class WaitingCandidates: Sendable {
    private let node: Node
    private let log: @Sendable (String) -> Void
    private let news = DispatchSemaphore(value: 0)
    // By a locked key, or a verdict that awaits signatures: the next block that is stored may tell that this is over.
    private let isStuck = Mutex(true)
    private let told = Mutex("")

    init(_ node: Node, _ log: @escaping @Sendable (String) -> Void) {
        self.node = node
        self.log = log
        node.messages.subscribe(to: .candidateJudged, capacity: 1024, whenFull: .dropOldest) {
            [weak self] in self?.tell($0)
        }
        node.messages.subscribe(to: .pluginsReloaded, capacity: 1, whenFull: .dropOldest) {
            [news] _ in news.signal()
        }
        node.messages.subscribe(to: .blockStored, capacity: 1024, whenFull: .dropOldest) {
            [weak self] message in
            guard let self else { return }
            let goesOn = isStuck.withLock { $0 }
            if goesOn || message.block.header.blockType == "policy" { news.signal() }
        }
    }

    /// Logs how a judgement ended; what keeps all of them waiting is told once.
    private func tell(_ message: CandidateJudged) {
        let line = Self.line(message)
        let isNew = told.withLock { last in
            defer { last = line }
            return last != line
        }
        if isNew { log(line) }
    }

    private static func line(_ message: CandidateJudged) -> String {
        switch message.result {
        case .success(let made):
            let parts = [made.outcome.rawValue, made.reason, "\(message.candidate.hash)"]
            return "judged    " + parts.filter { !$0.isEmpty }.joined(separator: " ")
        case .failure(let error as KernelError) where error.code == .cancelled:
            return "stopped   the judgement of \(message.candidate.hash), which waits"
        case .failure(let error): return "not judged: \(error)"
        }
    }

    /// Judges what is due whenever there is reason to, until it is cancelled.
    func run() {
        judgeAll()
        while !Cancellation.current.isRequested() {
            guard news.wait(timeout: .now() + 0.2) == .success else { continue }
            // A reload writes the policy after the plugins are others: both are one reason.
            Thread.sleep(forTimeInterval: 0.5)
            while news.wait(timeout: .now()) == .success {}
            judgeAll()
        }
    }

    private func judgeAll() {
        guard node.isKeyOpen else { return }
        isStuck.withLock { $0 = false }
        do {
            let judge = try node.judge()
            for entry in judge.candidates.queue {
                guard judge.verdict(of: entry.block.hash) == nil else { continue }
                guard judge.isDue(entry) else {
                    log("left out  \(judge.fault(of: entry) ?? "candidate \(entry.block.hash)")")
                    continue
                }
                // What comes of it is told to all who want to know, this log among them.
                do {
                    guard try judge.judge(entry.block.hash).awaitsSignatures else { continue }
                    return isStuck.withLock { $0 = true }
                } catch { try Cancellation.check() }
            }
        } catch let error as KernelError where error.code == .cancelled {
        } catch {
            log("not judged: \(error)")
        }
    }
}
