internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLedger
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Dispatch
internal import Foundation
internal import Synchronization

struct Run: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Hold a home and serve all other commands by its control socket, until interrupted.",
        discussion: """
            SIGHUP does what `blyan plugin reload` does. The key \
            stays locked until a command signs, and then takes that command's passphrase; with --passphrase-file or \
            BLYAN_PASSPHRASE it is unlocked at the start.
            """)

    @OptionGroup var home: HomeOptions

    var mustHold: Bool { true }

    func run(_ node: Node, _ console: Console) throws {
        if try Passphrase(home, console: console).isGiven { _ = try node.signingKey() }
        try console.print("holding   \(node.home.path) as process \(getpid()); stop with Ctrl-C")
        let log: @Sendable (String) -> Void = { console.note("\(timestamp()) \($0)") }
        node.messages.subscribe(to: .blockStored, capacity: 1024, whenFull: .dropOldest) {
            message in
            let header = message.block.header
            let name =
                header.expertName.isEmpty
                ? header.metadata["model"]?.string ?? "" : header.expertName
            log("stored    \(header.blockType) \(name) \(message.block.hash)")
        }
        node.messages.subscribe(to: .expertLoaded, capacity: 1024, whenFull: .dropOldest) {
            message in
            log("mapped    \(message.model) \(message.expert), \(message.bytes.asBytes)")
        }
        node.messages.subscribe(to: .pluginsReloaded, capacity: 64, whenFull: .dropOldest) {
            message in
            log(
                "reloaded  generation \(message.generation): \(message.plugins.joined(separator: ", "))"
            )
        }
        // What waited when the last holder ended, once a command has unlocked the key or it was given.
        if try Passphrase(home, console: console).isGiven { judgeWaiting(node, log) }
        let done = DispatchSemaphore(value: 0)
        var sources: [any DispatchSourceSignal] = []
        for number in [SIGINT, SIGTERM] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { done.signal() }
            source.resume()
            sources.append(source)
        }
        signal(SIGHUP, SIG_IGN)
        let hangup = DispatchSource.makeSignalSource(signal: SIGHUP, queue: .global())
        hangup.setEventHandler {
            do {
                _ = try node.reloadPlugins()
                if let policy = try node.adoptPolicy() { log("policy    \(policy.hash)") }
            } catch {
                log("not reloaded: \(error)")
            }
        }
        hangup.resume()
        sources.append(hangup)
        let isOver = Mutex(false)
        let scrubbed = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            do {
                try node.ledger.rememberAccounts(until: { isOver.withLock { $0 } })
            } catch {
                log("accounts are not kept in memory: \(error)")
            }
            node.scrub(until: { isOver.withLock { $0 } }) { log($0) }
            scrubbed.signal()
        }
        done.wait()
        isOver.withLock { $0 = true }
        scrubbed.wait()
        withExtendedLifetime(sources) {}
        log("stopping; commands under way are ended")
    }

    /// Judges candidates that wait, in the background; a fault is told, and the candidate waits on.
    private func judgeWaiting(_ node: Node, _ log: @escaping @Sendable (String) -> Void) {
        Thread.detachNewThread {
            do {
                let judge = try node.judge()
                for entry in judge.candidates.queue {
                    let made = try judge.judge(entry.block.hash)
                    log("judged    \(made.outcome.rawValue) \(made.reason) \(entry.block.hash)")
                }
            } catch {
                log("not judged: \(error)")
            }
        }
    }
}
