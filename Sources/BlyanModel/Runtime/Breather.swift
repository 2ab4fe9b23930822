internal import CBlyanMath
internal import Foundation
internal import Synchronization

/// The work of this process that runs only where nothing else wants the processor.
enum BackgroundWork {
    private static let running = Atomic<Int>(0)

    static func begins() { running.add(1, ordering: .relaxed) }
    static func ends() { running.subtract(1, ordering: .relaxed) }

    /// Whether there is any now.
    static var isThere: Bool { running.load(ordering: .relaxed) > 0 }
}

/// Gives background work a twentieth of the time beside a chat that never pauses: a decoder stands still for a moment,
/// now and then, while there is such work.
///
/// Priorities alone starve it: beside threads that always want the processor Linux leaves SCHED_IDLE a third of a percent,
/// and a step of training takes a minute. Not thread-safe.
struct Breather {
    private static let period = Duration.milliseconds(19)
    private static let share = 19
    private static let longest = Duration.milliseconds(10)
    /// A chat that paused for so long has let others run.
    private static let pause = Duration.milliseconds(1)

    private var worked = Duration.zero
    private var began = ContinuousClock.now
    private var ended: ContinuousClock.Instant?

    /// Before a step: stands still if it is time to.
    mutating func stepBegins() {
        began = .now
        if let ended, began - ended > Self.pause { worked = min(worked, .zero) }
        // A decoder that is background work itself waits for nobody.
        guard worked >= Self.period, BackgroundWork.isThere, blyan_thread_is_background() == 0
        else { return }
        Thread.sleep(forTimeInterval: min(worked / Self.share, Self.longest).seconds)
        // By what it took, not by what was asked for: Linux may let whoever wakes up wait for the next tick.
        let now = ContinuousClock.now
        worked = min(.zero, worked - (now - began) * Self.share)
        began = now
    }

    /// After the step.
    mutating func stepEnds() {
        let now = ContinuousClock.now
        worked += now - began
        ended = now
    }
}
