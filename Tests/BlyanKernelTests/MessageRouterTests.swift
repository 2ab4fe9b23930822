import BlyanKernel
import Synchronization
import Testing

@Suite struct MessageRouterTests {
    static let numbers = Topic<Int>("test.numbers")
    static let double = Topic<Question<Int, Int>>("test.double")
    /// Longer than any machine is busy with the tests beside: only an answer that never comes takes as long.
    static let long = Duration.seconds(3_600)

    @Test func messagesArriveInOrderAtEverySubscriber() async {
        let router = MessageRouter()
        let boxes = (0..<3).map { _ in
            router.subscribe(to: Self.numbers, capacity: 100, whenFull: .dropNewest)
        }
        for i in 0..<100 { router.publish(i, to: Self.numbers) }
        await router.shutDown()
        for box in boxes { #expect(await Self.all(box) == Array(0..<100)) }
        #expect(router.deadLetters.isEmpty)
    }

    @Test(arguments: [(FullPolicy.dropOldest, [5, 6, 7]), (.dropNewest, [0, 1, 2])])
    func aFullMailboxKeepsWhatItsPolicySays(policy: FullPolicy, kept: [Int]) async {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.numbers, capacity: 3, whenFull: policy)
        for i in 0..<8 { router.publish(i, to: Self.numbers) }
        #expect(router.deadLetters == ["test.numbers": 5])
        box.close()
        #expect(await Self.all(box) == kept)
    }

    @Test func topicsOfOneNameAndTwoTypesDoNotMix() async {
        let router = MessageRouter()
        let texts = router.subscribe(
            to: Topic<String>("test.numbers"), capacity: 4, whenFull: .dropNewest)
        router.publish(1, to: Self.numbers)
        router.publish("one", to: Topic<String>("test.numbers"))
        await router.shutDown()
        #expect(await Self.all(texts) == ["one"])
    }

    @Test func nothingIsLostOrDoubledUnderManyPublishers() async {
        let router = MessageRouter()
        let seen = Mutex<[Int]>([])
        router.subscribe(to: Self.numbers, capacity: 8_000, whenFull: .dropNewest) { number in
            seen.withLock { $0.append(number) }
        }
        await withTaskGroup(of: Void.self) { group in
            for publisher in 0..<8 {
                group.addTask {
                    for i in 0..<1_000 { router.publish(publisher * 1_000 + i, to: Self.numbers) }
                }
            }
        }
        await router.shutDown()
        let numbers = seen.withLock { $0 }
        #expect(numbers.sorted() == Array(0..<8_000))
        for publisher in 0..<8 {
            let own = numbers.filter { $0 / 1_000 == publisher }
            #expect(own == own.sorted())
        }
    }

    @Test func lossesAndDeliveriesAddUpUnderPressure() async {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.numbers, capacity: 4, whenFull: .dropOldest)
        let reader = Task { await Self.all(box).count }
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask { for i in 0..<2_500 { router.publish(i, to: Self.numbers) } }
            }
        }
        await router.shutDown()
        let delivered = await reader.value
        #expect(delivered + (router.deadLetters["test.numbers"] ?? 0) == 10_000)
    }

    @Test func aClosedMailboxGetsNothingMore() async {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.numbers, capacity: 4, whenFull: .dropNewest)
        router.publish(1, to: Self.numbers)
        box.close()
        router.publish(2, to: Self.numbers)
        #expect(await Self.all(box) == [1])
        #expect(router.deadLetters.isEmpty)
    }

    @Test func whatIsPublishedAfterShutDownIsADeadLetter() async {
        let router = MessageRouter()
        await router.shutDown()
        router.publish(1, to: Self.numbers)
        #expect(router.deadLetters == ["test.numbers": 1])
        let late = router.subscribe(to: Self.numbers, capacity: 1, whenFull: .dropNewest)
        #expect(await Self.all(late).isEmpty)
    }

    @Test func aCancelledReaderStops() async {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.numbers, capacity: 1, whenFull: .dropNewest)
        let reader = Task { await Self.all(box) }
        reader.cancel()
        #expect(await reader.value.isEmpty)
    }

    @Test func aQuestionGetsItsReply() async throws {
        let router = MessageRouter()
        router.subscribe(to: Self.double, capacity: 100, whenFull: .dropNewest) {
            $0.reply(.success($0.content * 2))
        }
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for i in 0..<50 {
                group.addTask {
                    try await router.ask(i, on: Self.double, within: Self.long) == i * 2
                }
            }
            for try await right in group { #expect(right) }
        }
        #expect(router.deadLetters.isEmpty)
    }

    @Test func theAnswerersErrorReachesTheAsker() async throws {
        let router = MessageRouter()
        router.subscribe(to: Self.double, capacity: 1, whenFull: .dropNewest) {
            $0.reply(.failure(KernelError(.rule, "no doubling today")))
        }
        let error = await #expect(throws: KernelError.self) {
            try await router.ask(1, on: Self.double, within: Self.long)
        }
        #expect(error?.code == .rule)
    }

    @Test func aQuestionThatNobodyAnswersFailsAtOnce() async {
        let router = MessageRouter()
        let error = await #expect(throws: KernelError.self) {
            try await router.ask(1, on: Self.double, within: Self.long)
        }
        #expect(error?.code == .notFound)
        #expect(router.deadLetters == ["test.double": 1])
    }

    @Test func aReplyAfterTheDeadlineIsADeadLetter() async throws {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.double, capacity: 1, whenFull: .dropNewest)
        let error = await #expect(throws: KernelError.self) {
            try await router.ask(1, on: Self.double, within: .milliseconds(1))
        }
        #expect(error?.code == .cancelled)
        await router.shutDown()
        for question in await Self.all(box) { question.reply(.success(2)) }
        #expect(router.deadLetters == ["test.double": 1])
    }

    @Test func aQuestionTooManyIsRefused() async throws {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.double, capacity: 1, whenFull: .dropNewest)
        // Its asker gives up, but the first question still waits in the mailbox.
        await #expect(throws: KernelError.self) {
            try await router.ask(4, on: Self.double, within: .milliseconds(1))
        }
        let error = await #expect(throws: KernelError.self) {
            try await router.ask(5, on: Self.double, within: Self.long)
        }
        #expect(error?.code == .limit)
        #expect(error?.message.contains("test.double has no room") == true)
        box.close()
    }

    /// The newer of two questions stands, the older fails at once instead of at its deadline.
    @Test func aDroppedQuestionFailsAndTheNewerIsAnswered() async {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.double, capacity: 1, whenFull: .dropOldest)
        let results = await withTaskGroup(of: Result<Int, any Error>.self) { group in
            for i in 1...3 {
                group.addTask {
                    do {
                        return .success(
                            try await router.ask(i, on: Self.double, within: Self.long))
                    } catch { return .failure(error) }
                }
            }
            var results: [Result<Int, any Error>] = []
            // Two are dropped, in whatever order they came; only then is the last one answered.
            while results.count < 2, let next = await group.next() { results.append(next) }
            #expect(router.deadLetters == ["test.double": 2])
            var questions = box.makeAsyncIterator()
            await questions.next()?.reply(.success(7))
            for await last in group { results.append(last) }
            return results
        }
        for result in results[..<2] {
            let error = #expect(throws: KernelError.self) { try result.get() }
            #expect(error?.code == .limit)
        }
        #expect((try? results[2].get()) == 7)
        #expect(router.deadLetters == ["test.double": 2])
        box.close()
    }

    /// As long as another mailbox holds it, a dropped question may still be answered.
    @Test func aQuestionIsLostWithItsLastHolder() async throws {
        let router = MessageRouter()
        let small = router.subscribe(to: Self.double, capacity: 1, whenFull: .dropOldest)
        let large = router.subscribe(to: Self.double, capacity: 9, whenFull: .dropNewest)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for i in 1...3 {
                group.addTask {
                    try await router.ask(i, on: Self.double, within: Self.long) == i * 2
                }
            }
            while router.deadLetters != ["test.double": 2] { await Task.yield() }
            var questions = large.makeAsyncIterator()
            for _ in 1...3 {
                guard let question = await questions.next() else { continue }
                question.reply(.success(question.content * 2))
            }
            for try await right in group { #expect(right) }
        }
        small.close()
        large.close()
    }

    @Test func aQuestionAfterShutDownIsOneDeadLetter() async {
        let router = MessageRouter()
        await router.shutDown()
        let error = await #expect(throws: KernelError.self) {
            try await router.ask(1, on: Self.double, within: Self.long)
        }
        #expect(error?.code == .notFound)
        #expect(router.deadLetters == ["test.double": 1])
    }

    @Test func aCancelledAskerStopsWaiting() async throws {
        let router = MessageRouter()
        let box = router.subscribe(to: Self.double, capacity: 1, whenFull: .dropNewest)
        let asker = Task { try await router.ask(4, on: Self.double, within: Self.long) }
        asker.cancel()
        let error = await #expect(throws: KernelError.self) { try await asker.value }
        #expect(error?.code == .cancelled)
        box.close()
    }

    static func all<Message>(_ box: Mailbox<Message>) async -> [Message] {
        var messages: [Message] = []
        for await message in box { messages.append(message) }
        return messages
    }
}
