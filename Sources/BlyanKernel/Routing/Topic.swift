/// A named stream of messages of one type.
///
/// Two topics are one if name and type are equal.
///
///     extension Topic<BlockStored> {
///         static var blockStored: Self { Topic("block.stored") }
///     }
public struct Topic<Message: Sendable>: Sendable {
    /// As dead-letter counts print it, such as `block.stored`.
    public let name: String

    /// Makes a topic.
    public init(_ name: String) { self.name = name }
}

/// A message that wants a reply: the first one counts, and only while the asker waits.
public struct Question<Content: Sendable, Answer: Sendable>: Sendable {
    /// What is asked.
    public let content: Content
    let slot: AsyncStream<Result<Answer, KernelError>>.Continuation
    let lost: @Sendable () -> Void

    /// Replies; a reply that nobody waits for any more is a dead letter of the topic.
    public func reply(_ answer: Result<Answer, KernelError>) {
        if case .enqueued = slot.yield(answer) { slot.finish() } else { lost() }
    }
}
