internal import BlyanJSON
public import BlyanKernel

/// How far an author of candidates is trusted: what follows from the verdicts on chain A, and from nothing else.
///
/// Who is new may upload 20 candidates a day (UTC); 200 after three accepted in a row; 1,000 after 50 accepted at that
/// level. An accepted one gives its upload back. Five rejected in a row lose one level, and begin there anew. That
/// somebody was faster is an upload, and no rejection; that a version was judged again is neither.
public struct Trust: Sendable, Equatable {
    /// What an author may do.
    public enum Level: String, Sendable, CaseIterable, Comparable {
        /// Nobody knows the author yet.
        case newbie
        /// Three in a row were accepted.
        case trusted
        /// After a long record.
        case expert

        /// Uploads a day.
        public var quota: Int64 {
            switch self {
            case .newbie: 20
            case .trusted: 200
            case .expert: 1000
            }
        }

        private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
        /// By what one may do.
        public static func < (a: Level, b: Level) -> Bool { a.rank < b.rank }
    }

    /// Accepted in a row that make a newbie trusted.
    public static let promotion: Int64 = 3
    /// Accepted as trusted that make an expert.
    public static let record: Int64 = 50
    /// Rejected in a row that lose a level.
    public static let demotion: Int64 = 5
    /// Milliseconds of a day.
    public static let day: Int64 = 86_400_000

    /// What the author may do.
    public private(set) var level = Level.newbie
    /// Accepted since the last rejection.
    public private(set) var acceptedInRow: Int64 = 0
    /// Rejected since the last acceptance or demotion.
    public private(set) var rejectedInRow: Int64 = 0
    /// Accepted since the level was reached.
    public private(set) var acceptedAtLevel: Int64 = 0
    /// Judged in all, accepted in all.
    public private(set) var judged: Int64 = 0, accepted: Int64 = 0
    // The day of the newest verdict since 1970, and what is used up of it.
    private var today: Int64 = 0
    private var usedToday: Int64 = 0

    /// Nobody knows the author.
    public init() {}

    /// What became of a candidate.
    public enum Outcome: Sendable, Equatable {
        /// It became a version.
        case accepted
        /// A gate rejected it.
        case rejected
        /// Another one was accepted in its place.
        case overtaken
    }

    /// Goes on by the next verdict on the author's candidates.
    public mutating func add(_ outcome: Outcome, time: Int64) {
        let day = max(today, Self.day(of: time))
        if day > today { (today, usedToday) = (day, 0) }
        judged += 1
        switch outcome {
        case .accepted:
            accepted += 1
            acceptedInRow += 1
            acceptedAtLevel += 1
            rejectedInRow = 0
            if level == .newbie, acceptedInRow >= Self.promotion {
                (level, acceptedAtLevel) = (.trusted, 0)
            } else if level == .trusted, acceptedAtLevel >= Self.record {
                (level, acceptedAtLevel) = (.expert, 0)
            }
        case .rejected:
            usedToday += 1
            acceptedInRow = 0
            rejectedInRow += 1
            if rejectedInRow >= Self.demotion {
                level = level == .expert ? .trusted : .newbie
                (acceptedAtLevel, rejectedInRow) = (0, 0)
            }
        case .overtaken: usedToday += 1
        }
    }

    private static func day(of time: Int64) -> Int64 { max(0, time) / day }

    /// What an author may still do on a day.
    public struct Standing: Sendable, Equatable {
        /// What the author may do.
        public let level: Level
        /// Uploads a day.
        public let quota: Int64
        /// Uploads of today that are used up, those that wait for their verdict included.
        public let used: Int64
        /// Uploads that are left today.
        public var left: Int64 { max(0, quota - used) }
        /// When the whole quota is there again, UTC milliseconds.
        public let refills: Int64
    }

    /// Where the author stands.
    ///
    /// - Parameters:
    ///   - now: UTC milliseconds.
    ///   - waiting: the author's candidates that wait for their verdict.
    public func standing(now: Int64, waiting: Int64 = 0) -> Standing {
        let day = Self.day(of: now)
        let used = day <= today ? usedToday : 0
        return Standing(
            level: level, quota: level.quota, used: used + max(0, waiting),
            refills: (max(day, today) + 1) * Self.day)
    }

    /// That one more upload is within the quota.
    ///
    /// - Throws: ``KernelError`` with code `limit` saying when it refills.
    public func admit(author: String, now: Int64, waiting: Int64 = 0) throws(KernelError) {
        let standing = standing(now: now, waiting: waiting)
        guard standing.left > 0 else {
            throw KernelError(
                .limit,
                "quota exceeded: author \(author) is \(standing.level.rawValue) and has used \(standing.used) of \(standing.quota) uploads today; it refills at \(UTC.text(standing.refills))",
                hint: waiting > 0
                    ? "\(waiting) of them wait for their verdict: one that is accepted gives its upload back"
                    : "wait until then; an accepted candidate gives its upload back")
        }
    }
}

/// The trust in all authors, from the headers of verdict blocks in chain order.
public struct TrustBook: Sendable {
    private var authors: [String: Trust] = [:]
    /// The index on chain A up to which verdicts are counted.
    public private(set) var next: Int64 = 0

    /// Nobody is known.
    public init() {}

    /// The trust in an author.
    public func trust(_ author: String) -> Trust { authors[author] ?? Trust() }

    /// Goes on by the next block of chain A; what is no verdict changes nothing.
    public mutating func add(_ block: Block) {
        let header = block.header
        next = max(next, header.index + 1)
        let facts = header.metadata
        // A review of a version that stands is no upload of its author's.
        guard header.blockType == "verdict", facts["review"] != .bool(true),
            let author = facts["author"]?.string
        else { return }
        let isOvertaken = facts["reason"]?.string?.hasPrefix("intake/") == true
        switch facts["outcome"]?.string {
        case "accept": authors[author, default: Trust()].add(.accepted, time: header.timestamp)
        case "reject":
            authors[author, default: Trust()].add(
                isOvertaken ? .overtaken : .rejected, time: header.timestamp)
        default: return
        }
    }
}

/// Times as people read them.
public enum UTC {
    /// A time in milliseconds as ISO 8601, to the second: "2026-01-31T00:00:00Z".
    public static func text(_ milliseconds: Int64) -> String {
        let seconds = milliseconds >= 0 ? milliseconds / 1000 : -((999 - milliseconds) / 1000)
        let days = seconds >= 0 ? seconds / 86400 : -((86399 - seconds) / 86400)
        let rest = seconds - days * 86400
        // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
        let z = days + 719_468
        let era = (z >= 0 ? z : z - 146_096) / 146_097
        let dayOfEra = z - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shifted + 2) / 5 + 1
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return
            "\(year)-\(two(month))-\(two(day))T\(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60))Z"
    }
}
