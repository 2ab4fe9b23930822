package import BlyanKernel
package import CBlyanPlugin
internal import Synchronization

/// A payload dressed as the C struct that plugins read from, for the length of one call.
package final class PayloadView: Sendable {
    private let bytes: any PayloadBytes
    // The first failed read, so that the host's own error reaches the caller and not the plugin's words for it.
    private let failure = Mutex<KernelError?>(nil)

    package init(_ bytes: any PayloadBytes) { self.bytes = bytes }

    /// Runs `body` with the payload, and prefers the host's own error to the one that comes back.
    package func lend<R>(
        _ body: (UnsafePointer<blyan_payload>) throws(KernelError) -> R
    ) throws(KernelError) -> R {
        var payload = unsafe blyan_payload(
            struct_size: UInt32(MemoryLayout<blyan_payload>.size), reserved: 0,
            context: Unmanaged.passUnretained(self).toOpaque(), size: bytes.size,
            read: { context, offset, length, out, error in
                guard let context = unsafe context, let out = unsafe out else {
                    return blyan_status(BLYAN_E_ARGUMENT)
                }
                let view = unsafe Unmanaged<PayloadView>.fromOpaque(context).takeUnretainedValue()
                return unsafe view.read(offset, length, out, error)
            })
        do throws(KernelError) {
            let result = try unsafe body(&payload)
            withExtendedLifetime(self) {}
            return result
        } catch {
            throw failure.withLock { $0 } ?? error
        }
    }

    private func read(
        _ offset: UInt64, _ length: UInt64, _ out: UnsafeMutablePointer<UnsafePointer<UInt8>?>,
        _ error: UnsafeMutablePointer<blyan_error>?
    ) -> blyan_status {
        do throws(KernelError) {
            let (end, overflow) = offset.addingReportingOverflow(length)
            guard !overflow, end <= bytes.size else {
                throw KernelError(
                    .limit,
                    "bytes \(offset) + \(length) leave the payload of \(bytes.size) bytes")
            }
            unsafe out.pointee = try unsafe bytes.read(offset: offset, length: length)
                .assumingMemoryBound(to: UInt8.self)
            return blyan_status(BLYAN_OK)
        } catch let problem {
            // A read outside is the plugin's own affair: it says malformed, and says it better.
            if problem.code != .limit { failure.withLock { $0 = $0 ?? problem } }
            unsafe error?.pointee.write(problem.message)
            switch problem.code {
            case .limit: return blyan_status(BLYAN_E_ARGUMENT)
            case .integrity: return blyan_status(BLYAN_E_INTEGRITY)
            case .cancelled: return blyan_status(BLYAN_E_CANCELLED)
            default: return blyan_status(BLYAN_E_IO)
            }
        }
    }
}

extension blyan_error {
    /// Sets the text, cut to what fits.
    package mutating func write(_ message: String) {
        let bytes = Array(message.utf8.prefix(512))
        unsafe withUnsafeMutableBytes(of: &text) { unsafe $0.copyBytes(from: bytes) }
        text_length = UInt32(bytes.count)
    }
}
