package import BlyanKernel
internal import Foundation
internal import Synchronization

/// One call into a gate or a reward policy, on a thread of its own: it is left where it is if it takes longer than it may,
/// or if nobody waits for it any more.
///
/// Code in this process cannot be stopped from outside. So a call that is left keeps its thread, and what it reads stays
/// alive; but the host serves it no more, so that one that is slow and not dead ends soon. Its instance is not asked
/// again: for good if it took too long, else until the call returns. Any thread.
package final class PluginCall: Sendable {
    private struct State {
        var isOver = false
        /// Services of the host that it is in now.
        var serving = 0
    }

    /// What the thread of a call answered.
    private final class Box<Answer: Sendable>: Sendable {
        let answer = Mutex<Result<Answer, KernelError>?>(nil)
    }

    private let plugin: LoadedPlugin
    private let state = Mutex(State())
    private let returned = DispatchSemaphore(value: 0)
    private let caller = Cancellation.current

    /// Between two looks at the time and at whoever waits.
    private static let tick = Duration.milliseconds(20)
    /// What a tick counts for at most: a process that was stopped, or a machine that slept, is no plugin that hangs.
    private static let longestTick = Duration.seconds(1)
    /// How long a call that is to end may take to do so by itself.
    private static let grace = Duration.seconds(1)

    private init(_ plugin: LoadedPlugin) { self.plugin = plugin }

    // MARK: Instances

    /// What is known of an instance that must not be asked now.
    private enum Standing {
        case asked
        /// Whoever waited for it has gone, and it has not returned yet.
        case left(KernelError)
        case overdue(KernelError)
    }

    // The plugin is held, so that no other one gets its identity.
    private static let standings = Mutex<[ObjectIdentifier: (plugin: LoadedPlugin, Standing)]>([:])
    private static let running = Atomic<Int>(0)

    /// Whether calls have not returned yet, left or not: code of theirs may run until the process ends.
    package static var areUnderWay: Bool { running.load(ordering: .relaxed) > 0 }

    /// Why an instance is asked nothing more; nil if it can be.
    package static func fault(of plugin: LoadedPlugin) -> KernelError? {
        standings.withLock { standings in
            switch standings[ObjectIdentifier(plugin)]?.1 {
            case .left(let error), .overdue(let error): error
            case .asked, nil: nil
            }
        }
    }

    private static func setStanding(_ standing: Standing?, of plugin: LoadedPlugin) {
        standings.withLock { $0[ObjectIdentifier(plugin)] = standing.map { (plugin, $0) } }
    }

    /// Waits until nobody else asks an instance, which is one call at a time.
    private static func begin(_ plugin: LoadedPlugin) throws(KernelError) {
        while true {
            let fault = fault(of: plugin)
            if let fault { throw fault }
            try Cancellation.check()
            let isFree = standings.withLock { standings in
                guard standings[ObjectIdentifier(plugin)] == nil else { return false }
                standings[ObjectIdentifier(plugin)] = (plugin, .asked)
                return true
            }
            if isFree { return }
            usleep(20_000)
        }
    }

    // MARK: The call

    /// Runs a call.
    ///
    /// - Parameters:
    ///   - subject: what errors say that it is about.
    ///   - body: owns what the plugin reads and writes, since it may run on when this has returned; gets the call, by which
    ///     services of the host know whether it still counts.
    /// - Throws: What `body` throws; ``KernelError`` with code `plugin` if it takes longer than the manifest's
    ///   `limits.call_milliseconds`, or if the instance is asked nothing more; `cancelled` on request.
    package static func run<Answer: Sendable>(
        _ plugin: LoadedPlugin, about subject: String,
        _ body: @escaping @Sendable (PluginCall) throws(KernelError) -> Answer
    ) throws(KernelError) -> Answer {
        try begin(plugin)
        let (call, box) = (PluginCall(plugin), Box<Answer>())
        running.add(1, ordering: .relaxed)
        let thread = Thread {
            let answer = Cancellation.$current.withValue(call.cancellation) {
                Result { () throws(KernelError) in try body(call) }
            }
            box.answer.withLock { $0 = answer }
            call.returns()
        }
        thread.stackSize = 8 << 20
        thread.start()
        try call.wait(subject)
        guard let answer = box.answer.withLock({ $0 }) else {
            throw KernelError(.plugin, "\(call.name) returned without an answer")
        }
        return try answer.get()
    }

    private var name: String {
        "the \(plugin.manifest.kind.noun) \(plugin.manifest.name) \(plugin.manifest.version)"
    }

    /// Returns once the call has.
    private func wait(_ subject: String) throws(KernelError) {
        let limit = plugin.manifest.callMilliseconds
        var (spent, stopping) = (Duration.zero, Duration.zero)
        var last = ContinuousClock.now
        while returned.wait(timeout: .now() + Self.tick.seconds) == .timedOut {
            let now = ContinuousClock.now
            let passed = min(now - last, Self.longestTick)
            last = now
            spent += passed
            if let limit, spent > .milliseconds(limit) {
                let error = KernelError(
                    .plugin,
                    "\(name) gave no answer about \(subject) within \(limit) milliseconds, the limit of its manifest; its call was left, and it is asked nothing more",
                    hint:
                        "raise limits.call_milliseconds in \(plugin.manifest.path), or put another \(plugin.manifest.kind.noun) in its place; then run `blyan plugin reload`"
                )
                if leave(.overdue(error)) { throw error }
            }
            if caller.isRequested() { stopping += passed }
            if stopping > Self.grace {
                let error = KernelError(
                    .plugin, "\(name) is still at \(subject), though it was told to stop",
                    hint: "try again later, or run `blyan plugin reload`")
                if leave(.left(error)) { throw KernelError(.cancelled, "stopped on request") }
            }
        }
    }

    /// The call's thread is back.
    private func returns() {
        Self.running.subtract(1, ordering: .relaxed)
        state.withLock { state in
            guard state.isOver else {
                state.isOver = true
                Self.setStanding(nil, of: plugin)
                return
            }
            Self.standings.withLock { standings in
                if case .left? = standings[ObjectIdentifier(plugin)]?.1 {
                    standings[ObjectIdentifier(plugin)] = nil
                }
            }
        }
        returned.signal()
    }

    /// Gives the call up, unless it has just returned; then waits a moment for the services that it is in to end.
    private func leave(_ standing: Standing) -> Bool {
        let isLeft = state.withLock { state in
            guard !state.isOver else { return false }
            state.isOver = true
            Self.setStanding(standing, of: plugin)
            return true
        }
        let limit = ContinuousClock.now + Self.grace
        while isLeft, ContinuousClock.now < limit, state.withLock({ $0.serving > 0 }) {
            usleep(5000)
        }
        return isLeft
    }

    // MARK: What it may ask for

    /// Whether the call is to end: it was left, or nobody waits for it any more.
    package var isToEnd: Bool { state.withLock { $0.isOver } || caller.isRequested() }

    /// What asks its work to stop.
    private var cancellation: Cancellation { Cancellation { [self] in isToEnd } }

    /// Runs a service of the host for the call, on whatever thread it asks.
    ///
    /// - Throws: What `body` throws; ``KernelError`` with code `cancelled` if the call is to end.
    package func serve<R>(_ body: () throws(KernelError) -> R) throws(KernelError) -> R {
        let isServed =
            !caller.isRequested()
            && state.withLock { state in
                if !state.isOver { state.serving += 1 }
                return !state.isOver
            }
        guard isServed else {
            throw KernelError(.cancelled, "this call is to end: nobody waits for it any more")
        }
        defer { state.withLock { $0.serving -= 1 } }
        return try Cancellation.$current.withValue(cancellation) {
            Result { () throws(KernelError) in try body() }
        }.get()
    }
}

extension PluginManifest.Kind {
    /// What a plugin of this kind is called.
    package var noun: String {
        switch self {
        case .format, .gate, .router: rawValue
        case .reward: "reward policy"
        }
    }
}
