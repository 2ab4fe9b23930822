internal import BlyanKernel
internal import Dispatch
internal import Foundation
internal import Synchronization

// Unchecked: the sources are made in init and touched by init and deinit alone.
/// SIGINT and SIGTERM as a request to stop, for as long as this object lives and once for the process.
final class Interruption: @unchecked Sendable {
    private let isRequested: Mutex<Bool>
    private let requested = DispatchSemaphore(value: 0)
    private let sources: [any DispatchSourceSignal]

    init() {
        sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number, queue: .global())
        }
        isRequested = Mutex(false)
        for source in sources {
            source.setEventHandler { [unowned self] in
                isRequested.withLock { $0 = true }
                requested.signal()
            }
            source.resume()
        }
    }

    deinit { for source in sources { source.cancel() } }

    /// What work asks between its pieces.
    var cancellation: Cancellation {
        Cancellation { [self] in isRequested.withLock { $0 } }
    }

    /// Returns once it is requested.
    func wait() { requested.wait() }
}
