public import CBlyanPlugin

/// A failure that a plugin reports: a status and a sentence.
public struct PluginError: Error, Sendable, Equatable {
    /// One of the `BLYAN_E_` codes.
    public let status: blyan_status
    /// Which object, what was found, what was expected; lower case, no full stop.
    public let message: String

    /// Makes an error from one of the `BLYAN_E_` constants.
    public init(_ status: some BinaryInteger, _ message: String) {
        self.status = blyan_status(truncatingIfNeeded: status)
        self.message = message
    }
}

/// Runs `body` and turns what it throws into a status and text in the host's buffer.
///
/// Any thread. `error` may be nil; at most its 512 bytes are written, cut between characters.
func answer(
    _ error: UnsafeMutablePointer<blyan_error>?, _ body: () throws(PluginError) -> Void
) -> blyan_status {
    do throws(PluginError) {
        try body()
        return blyan_status(BLYAN_OK)
    } catch let failure {
        unsafe write(failure.message, to: error)
        // A plugin that throws success would be believed; that is a defect of the plugin.
        return failure.status == BLYAN_OK ? blyan_status(BLYAN_E_INTERNAL) : failure.status
    }
}

/// The text of an error that the host filled in for one of our calls.
func text(of error: blyan_error) -> String {
    unsafe withUnsafeBytes(of: error.text) { text in
        let length = min(Int(error.text_length), text.count)
        return unsafe String(decoding: text[..<length], as: UTF8.self)
    }
}

private func write(_ message: String, to error: UnsafeMutablePointer<blyan_error>?) {
    guard let error = unsafe error else { return }
    guard unsafe Int(error.pointee.struct_size) >= MemoryLayout<blyan_error>.size else { return }
    unsafe withUnsafeMutableBytes(of: &error.pointee.text) { buffer in
        var length = 0
        for character in message {
            let bytes = Array(character.utf8)
            guard length + bytes.count <= buffer.count else { break }
            for byte in bytes {
                unsafe buffer[length] = byte
                length += 1
            }
        }
        unsafe error.pointee.text_length = UInt32(length)
    }
}
