package import BlyanKernel
internal import BlyanModel
internal import Foundation
internal import Synchronization

/// One call into a gate, on a thread of its own: it is left where it is if it takes longer than it may, or if nobody waits
/// for it any more.
///
/// Code in this process cannot be stopped from outside. So a call that is left keeps its thread, and what it reads stays
/// alive; but the host serves it no more, so that one that is slow and not dead ends soon. Its instance is not asked
/// again: for good if it took too long, else until the call returns. Any thread.
package final class GateCall: Sendable {
    private struct State {
        var isOver = false
        /// Services of the host that it is in now.
        var serving = 0
        var answer: Result<GatePlugin.Answer, KernelError>?
    }

    private let gate: LoadedPlugin
    private let state = Mutex(State())
    private let returned = DispatchSemaphore(value: 0)
    private let caller = Cancellation.current

    /// Between two looks at the time and at whoever waits.
    private static let tick = Duration.milliseconds(20)
    /// What a tick counts for at most: a process that was stopped, or a machine that slept, is no gate that hangs.
    private static let longestTick = Duration.seconds(1)
    /// How long a call that is to end may take to do so by itself.
    private static let grace = Duration.seconds(1)

    private init(_ gate: LoadedPlugin) { self.gate = gate }

    // MARK: Instances

    /// What is known of an instance that must not be asked now.
    private enum Standing {
        case asked
        /// Whoever waited for it has gone, and it has not returned yet.
        case left(KernelError)
        case overdue(KernelError)
    }

    // The plugin is held, so that no other one gets its identity.
    private static let standings = Mutex<[ObjectIdentifier: (gate: LoadedPlugin, Standing)]>([:])
    private static let leftThreads = Atomic<Int>(0)

    /// Whether calls that were left have not returned yet: code of theirs may run until the process ends.
    package static var areLeft: Bool { leftThreads.load(ordering: .relaxed) > 0 }

    /// Why an instance is asked nothing more; nil if it can be.
    package static func fault(of gate: LoadedPlugin) -> KernelError? {
        standings.withLock { standings in
            switch standings[ObjectIdentifier(gate)]?.1 {
            case .left(let error), .overdue(let error): error
            case .asked, nil: nil
            }
        }
    }

    private static func setStanding(_ standing: Standing?, of gate: LoadedPlugin) {
        standings.withLock { $0[ObjectIdentifier(gate)] = standing.map { (gate, $0) } }
    }

    /// Waits until nobody else asks an instance, which is one call at a time.
    private static func begin(_ gate: LoadedPlugin) throws(KernelError) {
        while true {
            let fault = fault(of: gate)
            if let fault { throw fault }
            let isFree = standings.withLock { standings in
                guard standings[ObjectIdentifier(gate)] == nil else { return false }
                standings[ObjectIdentifier(gate)] = (gate, .asked)
                return true
            }
            if isFree { return }
            try Cancellation.check()
            usleep(20_000)
        }
    }

    // MARK: The call

    /// Runs a call.
    ///
    /// - Parameters:
    ///   - candidate: what errors call the candidate.
    ///   - body: gets the call, by which services of the host know whether it still counts.
    /// - Throws: What `body` throws; ``KernelError`` with code `plugin` if it takes longer than the manifest's
    ///   `limits.call_milliseconds`, or if the instance is asked nothing more; `cancelled` on request.
    static func run(
        _ gate: LoadedPlugin, about candidate: String,
        _ body: @escaping @Sendable (GateCall) throws(KernelError) -> GatePlugin.Answer
    ) throws(KernelError) -> GatePlugin.Answer {
        try begin(gate)
        let call = GateCall(gate)
        let thread = Thread {
            let answer = Cancellation.$current.withValue(call.cancellation) {
                Result { () throws(KernelError) in try body(call) }
            }
            call.returns(answer)
        }
        thread.stackSize = 8 << 20
        thread.start()
        return try call.wait(candidate)
    }

    private func wait(_ candidate: String) throws(KernelError) -> GatePlugin.Answer {
        let limit = gate.manifest.callMilliseconds
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
                    "the gate \(gate.manifest.name) \(gate.manifest.version) gave no answer about candidate \(candidate) within \(limit) milliseconds, the limit of its manifest; its call was left, and it is asked nothing more",
                    hint:
                        "raise limits.call_milliseconds in \(gate.manifest.path), or put another gate in its place; then run `blyan plugin reload`"
                )
                if leave(.overdue(error)) { throw error }
            }
            if caller.isRequested() { stopping += passed }
            if stopping > Self.grace {
                let error = KernelError(
                    .plugin,
                    "the gate \(gate.manifest.name) \(gate.manifest.version) is still at candidate \(candidate), though it was told to stop",
                    hint: "try again later, or run `blyan plugin reload`")
                if leave(.left(error)) { throw KernelError(.cancelled, "stopped on request") }
            }
        }
        guard let answer = state.withLock({ $0.answer }) else {
            throw KernelError(.plugin, "the gate \(gate.manifest.name) returned without an answer")
        }
        return try answer.get()
    }

    /// The call's thread is back.
    private func returns(_ answer: Result<GatePlugin.Answer, KernelError>) {
        state.withLock { state in
            guard state.isOver else {
                (state.answer, state.isOver) = (answer, true)
                Self.setStanding(nil, of: gate)
                return
            }
            Self.leftThreads.subtract(1, ordering: .relaxed)
            Self.standings.withLock { standings in
                if case .left? = standings[ObjectIdentifier(gate)]?.1 {
                    standings[ObjectIdentifier(gate)] = nil
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
            Self.leftThreads.add(1, ordering: .relaxed)
            Self.setStanding(standing, of: gate)
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
    var isToEnd: Bool { state.withLock { $0.isOver } || caller.isRequested() }

    /// What asks its work to stop.
    private var cancellation: Cancellation { Cancellation { [self] in isToEnd } }

    /// Runs a service of the host for the call, on whatever thread it asks.
    ///
    /// - Throws: What `body` throws; ``KernelError`` with code `cancelled` if the call is to end.
    func serve<R>(_ body: () throws(KernelError) -> R) throws(KernelError) -> R {
        let isServed =
            !caller.isRequested()
            && state.withLock { state in
                if !state.isOver { state.serving += 1 }
                return !state.isOver
            }
        guard isServed else {
            throw KernelError(.cancelled, "this call is to end: the judgement was given up")
        }
        defer { state.withLock { $0.serving -= 1 } }
        return try Cancellation.$current.withValue(cancellation) {
            Result { () throws(KernelError) in try body() }
        }.get()
    }
}

/// A payload as a gate reads it, for as long as its call counts.
final class GatePayload: PayloadBytes {
    private let bytes: MappedPayload
    private let call: GateCall

    init(_ bytes: MappedPayload, for call: GateCall) {
        self.bytes = bytes
        self.call = call
    }

    var size: UInt64 { bytes.size }

    func read(offset: UInt64, length: UInt64) throws(KernelError) -> UnsafeRawPointer {
        guard !call.isToEnd else {
            throw KernelError(.cancelled, "this call is to end: the judgement was given up")
        }
        return try unsafe bytes.read(offset: offset, length: length)
    }
}
