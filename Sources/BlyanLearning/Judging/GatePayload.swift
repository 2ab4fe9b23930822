internal import BlyanKernel
internal import BlyanModel

/// A payload as a gate reads it, for as long as its call counts.
final class GatePayload: PayloadBytes {
    private let bytes: MappedPayload
    private let call: PluginCall

    init(_ bytes: MappedPayload, for call: PluginCall) {
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
