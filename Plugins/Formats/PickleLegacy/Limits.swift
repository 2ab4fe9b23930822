internal import BlyanPluginKit
internal import CBlyanPlugin

/// What a payload may cost at most; see FORMAT.md.
enum Limits {
    /// Instructions of one payload, nested pickles included.
    static let opcodes = 1 << 22
    /// Memo slots.
    static let memo = 1 << 20
    /// Values on the stack.
    static let stack = 1 << 18
    /// Marks on the stack, and containers inside containers.
    static let nesting = 64
    /// Values in all containers together; a container counts as 3, an object as ``itemsAnObject``.
    static let items = 1 << 23
    /// What text, bytes and each object made count as, so that memory stays under some 300 MB.
    static let itemsAnObject = 8
    /// Containers and leaves visited when names are given: shared containers count each time.
    static let visits = 1 << 20
    /// Tensors of one payload.
    static let tensors = 65_536
    /// Bytes of text that is used as a name, a key or a code.
    static let text: UInt64 = 1024
    /// Dimensions of a tensor.
    static let dimensions = 8
    /// Elements of a tensor.
    static let elements: UInt64 = 1 << 36
    /// Elements of a tensor that has more of them than its storage (an expanded view).
    static let expanded: UInt64 = 1 << 28
    /// Entries of a zip archive.
    static let entries = tensors + 64
    /// Bytes of a zip archive's central directory.
    static let directory: UInt64 = 16 << 20
    /// Bytes of a zip archive's data.pkl.
    static let pickle: UInt64 = 256 << 20
    /// Bytes of latin-1 text that may be scanned, per byte of payload: each is scanned when it is decoded and when
    /// it is skipped, and more than that is a payload that has the same bytes read again and again.
    static let scansPerByte: UInt64 = 4
}

/// The bytes do not follow the format.
func malformed(_ what: String) -> PluginError { PluginError(BLYAN_E_MALFORMED, what) }

/// Well-formed, but nothing that this plugin reads.
func unsupported(_ what: String) -> PluginError { PluginError(BLYAN_E_UNSUPPORTED, what) }

/// A stated limit is exceeded.
func exceeded(_ what: String) -> PluginError { PluginError(BLYAN_E_LIMIT, what) }

extension UInt64 {
    /// Sum or product, or nil where it does not fit.
    func plus(_ other: UInt64) -> UInt64? {
        let (value, overflow) = addingReportingOverflow(other)
        return overflow ? nil : value
    }

    func times(_ other: UInt64) -> UInt64? {
        let (value, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? nil : value
    }
}
