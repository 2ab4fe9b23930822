public import BlyanJSON
public import BlyanKernel

/// The payload of a usage block: what each version did since the block before, in integers.
public struct UsageDocument: Sendable, Equatable {
    /// What one account paid for of a version's use.
    public struct Paid: Sendable, Equatable {
        /// Who paid.
        public var payer: Account
        /// Requests that the version served.
        public var calls: Int64
        /// How long they took in all, rounded down.
        public var milliseconds: Int64
        /// When it was used last, UTC milliseconds.
        public var lastUse: Int64

        /// Makes one.
        public init(payer: Account, calls: Int64, milliseconds: Int64, lastUse: Int64) {
            (self.payer, self.calls) = (payer, calls)
            (self.milliseconds, self.lastUse) = (milliseconds, lastUse)
        }
    }

    /// The use of one version.
    public struct Entry: Sendable, Equatable {
        /// Its block on chain B.
        public var block: Digest
        /// Requests that it served, those that nobody paid for included.
        public var calls: Int64
        /// How long they took in all, rounded down.
        public var milliseconds: Int64
        /// When it was used last, UTC milliseconds.
        public var lastUse: Int64
        /// Its proven improvement in millionths; 0 for an import.
        public var quality: Int64
        /// What others paid for.
        public var paid: [Paid]

        /// Makes one.
        public init(
            block: Digest, calls: Int64, milliseconds: Int64, lastUse: Int64, quality: Int64,
            paid: [Paid]
        ) {
            (self.block, self.calls, self.milliseconds) = (block, calls, milliseconds)
            (self.lastUse, self.quality, self.paid) = (lastUse, quality, paid)
        }

        /// What a reward policy gets: the calls that somebody else than the author paid for; nil without any.
        public func event(author: Account, time: Int64) -> RewardEvent? {
            let counted = paid.filter { $0.payer != author }
            var sum = RewardEvent.Use(
                author: author, calls: 0, milliseconds: 0, quality: quality, lastUse: 0,
                time: time, payers: counted.map(\.payer))
            for line in counted {
                let (calls, a) = sum.calls.addingReportingOverflow(line.calls)
                let (taken, b) = sum.milliseconds.addingReportingOverflow(line.milliseconds)
                guard !a, !b else { return nil }
                (sum.calls, sum.milliseconds) = (calls, taken)
                sum.lastUse = max(sum.lastUse, line.lastUse)
            }
            let isWhole =
                JSONValue.integers.contains(sum.calls)
                && JSONValue.integers.contains(sum.milliseconds)
            return sum.calls > 0 && isWhole ? .usage(sum) : nil
        }
    }

    /// When it was counted, UTC milliseconds; later than in the document before.
    public var time: Int64
    /// In byte order of their blocks.
    public var entries: [Entry]

    private static let format = "blyan-usage/1"

    /// Makes a document.
    public init(time: Int64, entries: [Entry]) { (self.time, self.entries) = (time, entries) }

    /// The document.
    public var document: JSONValue {
        .object([
            "format": .string(Self.format), "time": .int(time),
            "entries": .array(
                entries.map { entry in
                    .object([
                        "block": .string(entry.block.description), "calls": .int(entry.calls),
                        "milliseconds": .int(entry.milliseconds), "last_use": .int(entry.lastUse),
                        "quality_ppm": .int(entry.quality),
                        "paid": .array(
                            entry.paid.map { line in
                                .object([
                                    "payer": .string(line.payer.description),
                                    "calls": .int(line.calls),
                                    "milliseconds": .int(line.milliseconds),
                                    "last_use": .int(line.lastUse),
                                ])
                            }),
                    ])
                }),
        ])
    }

    /// Reads a document.
    ///
    /// - Throws: ``KernelError`` with code `malformed`.
    public init(parsing bytes: [UInt8]) throws(KernelError) {
        let bad = KernelError(.malformed, "a usage block holds no \(Self.format)")
        guard let value = try? JSONValue(canonical: bytes), value["format"]?.string == Self.format,
            let time = value["time"]?.int, time >= 0, case .array(let list)? = value["entries"]
        else { throw bad }
        func count(_ item: JSONValue, _ key: String) throws(KernelError) -> Int64 {
            guard let number = item[key]?.int, number >= 0 else { throw bad }
            return number
        }
        self.time = time
        entries = []
        for item in list {
            guard let block = item["block"]?.string.flatMap({ Digest(hex: $0) }),
                case .array(let lines)? = item["paid"]
            else { throw bad }
            var paid: [Paid] = []
            for line in lines {
                guard let payer = line["payer"]?.string.flatMap({ Account($0) }) else { throw bad }
                paid.append(
                    Paid(
                        payer: payer, calls: try count(line, "calls"),
                        milliseconds: try count(line, "milliseconds"),
                        lastUse: try count(line, "last_use")))
            }
            entries.append(
                Entry(
                    block: block, calls: try count(item, "calls"),
                    milliseconds: try count(item, "milliseconds"),
                    lastUse: try count(item, "last_use"),
                    quality: try count(item, "quality_ppm"), paid: paid))
        }
        guard zip(entries, entries.dropFirst()).allSatisfy({ $0.block < $1.block }) else {
            throw bad
        }
    }
}
