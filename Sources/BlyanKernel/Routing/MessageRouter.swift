internal import Synchronization

/// Carries typed messages between services that do not know one another.
///
/// Any thread.
///
/// Publishing never waits and never fails: each subscriber has a bounded mailbox with a stated policy, and what is
/// lost is counted as a dead letter of its topic. A message on a topic without subscribers is no loss. Messages
/// of one publisher reach one mailbox in the order in which they were published.
public final class MessageRouter: Sendable {
    private struct Key: Hashable, Sendable {
        let name: String
        let type: ObjectIdentifier
    }

    private struct Subscriber: Sendable {
        // A Mailbox of the key's message type.
        let mailbox: any AnyObject & Sendable
        let end: @Sendable () -> Void
        let handler: Task<Void, Never>?
    }

    private struct State {
        var subscribers: [Key: [Int: Subscriber]] = [:]
        var dead: [String: Int] = [:]
        var nextID = 0
        var isShut = false
    }

    private let state = Mutex(State())

    /// A router without subscribers.
    public init() {}

    /// Messages lost so far, by topic.
    public var deadLetters: [String: Int] { state.withLock { $0.dead } }

    /// Puts a message into every mailbox of a topic.
    public func publish<Message>(_ message: Message, to topic: Topic<Message>) {
        deliver(message, topic)
    }

    /// A mailbox for a topic's messages from now on; ends at once after shutdown.
    ///
    /// - Parameters:
    ///   - capacity: messages that may wait, at least 1.
    ///   - policy: what a full mailbox does.
    public func subscribe<Message>(
        to topic: Topic<Message>, capacity: Int, whenFull policy: FullPolicy
    ) -> Mailbox<Message> {
        add(topic, capacity, policy, handler: nil)
    }

    /// Calls `handler` for each message of a topic, one after the other, until the mailbox is closed.
    @discardableResult
    public func subscribe<Message>(
        to topic: Topic<Message>, capacity: Int, whenFull policy: FullPolicy,
        handler: @escaping @Sendable (Message) async -> Void
    ) -> Mailbox<Message> {
        add(topic, capacity, policy, handler: handler)
    }

    /// Asks the subscribers of a topic and waits for the first reply, at most for `deadline`.
    ///
    /// - Throws: ``KernelError/Code/notFound`` if nobody is subscribed, ``KernelError/Code/limit`` if every mailbox
    ///   is full or has dropped the question for a newer one, ``KernelError/Code/cancelled`` at the deadline or with the task, and what the reply says.
    public func ask<Content, Answer>(
        _ content: Content, on topic: Topic<Question<Content, Answer>>, within deadline: Duration
    ) async throws(KernelError) -> Answer {
        let (replies, slot) = AsyncStream<Result<Answer, KernelError>>.makeStream(
            bufferingPolicy: .bufferingOldest(1))
        let question = Question(content: content, topic: topic.name, slot: slot) { [weak self] in
            self?.bury(1, topic.name)
        }
        guard deliver(question, topic) > 0 else {
            throw KernelError(.notFound, "nobody answers \(topic.name)")
        }
        question.held(-1)
        let timer = Task {
            guard (try? await Task.sleep(for: deadline)) != nil else { return }
            slot.yield(
                .failure(KernelError(.cancelled, "\(topic.name) gave no reply within \(deadline)")))
            slot.finish()
        }
        defer { timer.cancel() }
        for await reply in replies { return try reply.get() }
        throw KernelError(.cancelled, "\(topic.name) was not waited for")
    }

    /// Ends all mailboxes and waits until handlers have done what was accepted.
    public func shutDown() async {
        let subscribers = state.withLock { state in
            defer {
                state.subscribers = [:]
                state.isShut = true
            }
            return state.subscribers.values.flatMap(\.values)
        }
        for subscriber in subscribers { subscriber.end() }
        for subscriber in subscribers { await subscriber.handler?.value }
    }

    /// Posts to all mailboxes and answers how many there are; a question without any is lost too.
    @discardableResult
    private func deliver<Message>(_ message: Message, _ topic: Topic<Message>) -> Int {
        let key = Key(name: topic.name, type: ObjectIdentifier(Message.self))
        let (subscribers, isShut) = state.withLock { ($0.subscribers[key] ?? [:], $0.isShut) }
        let awaited = message as? any Awaited
        var lost = isShut || awaited != nil && subscribers.isEmpty ? 1 : 0
        for subscriber in subscribers.values {
            guard let mailbox = subscriber.mailbox as? Mailbox<Message> else { continue }
            awaited?.held(1)
            guard let gone = mailbox.post(message) else { continue }
            lost += 1
            (gone as? any Awaited)?.held(-1)
        }
        if lost > 0 { bury(lost, topic.name) }
        return subscribers.count
    }

    private func add<Message>(
        _ topic: Topic<Message>, _ capacity: Int, _ policy: FullPolicy,
        handler: (@Sendable (Message) async -> Void)?
    ) -> Mailbox<Message> {
        let key = Key(name: topic.name, type: ObjectIdentifier(Message.self))
        return state.withLock { state in
            let id = state.nextID
            state.nextID += 1
            let mailbox = Mailbox<Message>(capacity: capacity, policy: policy) { [weak self] in
                self?.state.withLock { _ = $0.subscribers[key]?.removeValue(forKey: id) }
            }
            guard !state.isShut else {
                mailbox.end()
                return mailbox
            }
            let task = handler.map { handler in
                Task { for await message in mailbox { await handler(message) } }
            }
            state.subscribers[key, default: [:]][id] = Subscriber(
                mailbox: mailbox, end: { mailbox.end() }, handler: task)
            return mailbox
        }
    }

    private func bury(_ count: Int, _ name: String) {
        state.withLock { $0.dead[name, default: 0] += count }
    }
}
