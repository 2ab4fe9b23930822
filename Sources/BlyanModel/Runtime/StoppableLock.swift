package import BlyanKernel
package import Foundation

extension NSLock {
    /// Takes the lock, however long somebody else holds it; whoever waits for it can be told to stop.
    ///
    /// - Throws: ``KernelError`` with code `cancelled` on request; then it is not taken.
    package func lockUnlessStopped() throws(KernelError) {
        while !self.try() {
            try Cancellation.check()
            usleep(20_000)
        }
    }
}
