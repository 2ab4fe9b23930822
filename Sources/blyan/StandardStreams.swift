internal import Foundation

/// The three streams that every process is assumed to have.
enum StandardStreams {
    /// Opens what a parent closed on nothing, so that no file of a home gets the number of a stream, and with it what
    /// is printed.
    static func ensure() {
        for stream in 0...2 as ClosedRange<Int32> where fcntl(stream, F_GETFD) < 0 {
            // The lowest free number: this very one, since those below are open.
            _ = unsafe open("/dev/null", stream == 0 ? O_RDONLY : O_WRONLY)
        }
    }
}
