/// What a full mailbox does with one message more.
///
/// What is lost counts as a dead letter of its topic.
public enum FullPolicy: Sendable {
    /// The oldest waiting message makes room: for figures and states, where the newest counts.
    case dropOldest
    /// The new message is turned away: for work, where what was accepted must be done.
    case dropNewest
}

/// One subscriber's bounded queue, read as an asynchronous sequence by one task.
///
/// It ends when it is closed or the router shuts down, after what waits was read, or at once with the reading task.
public final class Mailbox<Message: Sendable>: AsyncSequence, Sendable {
    private let stream: AsyncStream<Message>
    private let input: AsyncStream<Message>.Continuation
    private let onClose: @Sendable () -> Void

    init(capacity: Int, policy: FullPolicy, onClose: @escaping @Sendable () -> Void) {
        let limit = Swift.max(1, capacity)
        (stream, input) = AsyncStream.makeStream(
            bufferingPolicy: policy == .dropOldest
                ? .bufferingNewest(limit) : .bufferingOldest(limit))
        self.onClose = onClose
    }

    /// Leaves the topic; what waits can still be read.
    public func close() {
        onClose()
        end()
    }

    /// Ends the sequence after what waits.
    func end() { input.finish() }

    /// Puts a message in; answers the message that was lost by it, this one or an older.
    func post(_ message: Message) -> Message? {
        switch input.yield(message) {
        case .enqueued: nil
        case .dropped(let lost): lost
        default: message
        }
    }

    /// Precondition: one task reads at a time.
    public func makeAsyncIterator() -> AsyncStream<Message>.Iterator { stream.makeAsyncIterator() }
}
