internal import Synchronization

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
    let topic: String
    let slot: AsyncStream<Result<Answer, KernelError>>.Continuation
    let lost: @Sendable () -> Void
    /// Those who may still bring a reply: mailboxes that hold the question, and the asker while it is posted.
    let holders = Holders()

    /// Replies; a reply that nobody waits for any more is a dead letter of the topic.
    public func reply(_ answer: Result<Answer, KernelError>) {
        if case .enqueued = slot.yield(answer) { slot.finish() } else { lost() }
    }
}

final class Holders: Sendable {
    let count = Atomic(1)
}

/// A message whose sender waits for whoever holds it.
protocol Awaited {
    /// It is held in so many more places; in none any more, its sender waits no longer.
    func held(_ change: Int)
}

extension Question: Awaited {
    func held(_ change: Int) {
        let left = holders.count.add(change, ordering: .acquiringAndReleasing).newValue
        guard left == 0 else { return }
        slot.yield(
            .failure(
                KernelError(.limit, "whoever answers \(topic) has no room for one question more")))
        slot.finish()
    }
}
