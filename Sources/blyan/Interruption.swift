internal import BlyanKernel
internal import Dispatch
internal import Foundation
internal import Synchronization

// Unchecked: the sources are made in init and touched by init and deinit alone.
/// SIGINT and SIGTERM as a request to stop, for as long as this object lives and once for the process.
///
/// It goes with whoever made it: what threads keep of it is ``cancellation``, which holds no source. A source whose last
/// reference went in a thread's own clean-up would have libdispatch free what it has freed already.
final class Interruption: @unchecked Sendable {
    private final class Flag: Sendable {
        let isSet = Mutex(false)
        let semaphore = DispatchSemaphore(value: 0)
    }

    private let flag = Flag()
    private let sources: [any DispatchSourceSignal]

    init() {
        sources = [SIGINT, SIGTERM].map { number in
            DispatchSource.makeSignalSource(signal: number, queue: .global())
        }
        for source in sources {
            source.setEventHandler { [flag] in
                flag.isSet.withLock { $0 = true }
                flag.semaphore.signal()
            }
            source.resumeAndWait()
        }
    }

    deinit { for source in sources { source.cancel() } }

    /// What work asks between its pieces.
    var cancellation: Cancellation {
        Cancellation { [flag] in flag.isSet.withLock { $0 } }
    }

    /// Returns once it is requested.
    func wait() { flag.semaphore.wait() }
}

extension DispatchSourceSignal {
    /// Returns once the signal comes here.
    ///
    /// libdispatch takes it over on a thread of its own, and until then it does what it did before: one that was ignored
    /// meanwhile, so as not to end the process, would be lost.
    func resumeAndWait() {
        let isRegistered = DispatchSemaphore(value: 0)
        setRegistrationHandler { isRegistered.signal() }
        resume()
        isRegistered.wait()
    }
}
