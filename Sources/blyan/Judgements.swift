internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanServer

/// Verdicts as people and programs read them.
extension Console {
    /// A judgement as one JSON object: verdict, reason, evidence by gate, blocks.
    func json(_ made: Judge.Judgement) -> JSONValue {
        .object([
            "candidate": .string(made.candidate.hash.description),
            "expert": .string(made.candidate.header.expertName),
            "verdict": .string(made.outcome.rawValue), "reason": .string(made.reason),
            "message": .string(made.overtaken?.message ?? ""),
            "hint": .string(made.overtaken?.hint ?? ""),
            "gates": .array(made.gates.map(json)),
            "verdict_block": .string(made.verdict?.hash.description ?? ""),
            "version_block": .string(made.version?.hash.description ?? ""),
        ])
    }

    func json(_ gate: VerdictDocument.Gate) -> JSONValue {
        .object([
            "name": .string(gate.name), "part": .string(gate.part),
            "version": .string(gate.version),
            "outcome": .string(gate.outcome), "reason": .string(gate.reason),
            "evidence": gate.evidence,
        ])
    }

    /// Says so if another judgement is under way, since this one comes after it.
    func noteIfBusy(_ judge: Judge) {
        if judge.isBusy { note("blyan: another judgement is under way; this one waits for it") }
    }

    /// Evidence by name: integers and short texts, also those of a member that one of the texts names, at most twelve.
    private static func figures(_ evidence: JSONValue) -> [String] {
        guard case .object(var members) = evidence else { return [] }
        for name in members.values.compactMap(\.string) {
            for member in members.values {
                guard case .object(let named)? = member[name] else { continue }
                members.merge(named) { own, _ in own }
            }
        }
        let figures = members.sorted { $0.key < $1.key }.compactMap { name, value -> String? in
            let short = value.string.map { Digest(hex: $0) == nil ? $0 : String($0.prefix(12)) }
            guard let text = value.int.map({ "\($0)" }) ?? short else { return nil }
            let line = "\(name) \(text)"
            // A stranger's gate wrote it, and it goes to a terminal; what is longer is no person's reading.
            return line.utf8.count <= 96 && line.allSatisfy(isPrintable) ? line : nil
        }
        return Array(figures.prefix(12))
    }

    private static func isPrintable(_ character: Character) -> Bool {
        character.asciiValue.map { (0x20..<0x7F).contains($0) } ?? false
    }

    /// One JSON value of the chain's kind on a line of its own.
    func printJSON(_ value: JSONValue) throws {
        try print(String(decoding: value.canonical(), as: UTF8.self))
    }

    /// A judgement for a person, with the figures that gates publish.
    func print(_ made: Judge.Judgement) throws {
        switch made.outcome {
        case .accept: try print("verdict   accepted")
        case .reject:
            try print("verdict   rejected: \(made.reason)")
            if let (message, hint) = made.overtaken {
                // Another validator may have written it.
                try print("          \(message.filter(Self.isPrintable))")
                try print("          \(hint)")
            }
        case .defer:
            try print("verdict   deferred: \(made.reason); the candidate waits")
            try printNextStep(made.reason)
        }
        for gate in made.gates { try print(gate) }
        try print("candidate \(made.candidate.hash)")
        if let verdict = made.verdict { try print("receipt   \(verdict.hash)") }
        if let version = made.version { try print("version   \(version.hash)") }
    }

    /// What brings a verdict that was deferred to its end.
    func printNextStep(_ reason: String) throws {
        if reason.hasSuffix("-text") {
            try print(
                "          `blyan pool add FILE` commits held-out text; `blyan pool retire SHARD` puts one that is too small aside"
            )
        } else if reason.hasPrefix("signatures/") {
            try print(
                "          other validators sign with `blyan candidate cosign` in a copy of this home; `blyan candidate endorse FILE` adds that here"
            )
        }
    }

    /// A gate's line, and lines of what its evidence holds of improvements; where it holds none and the gate does not accept,
    /// of all that it measured.
    ///
    /// - Parameter isReview: it was asked about a version that stands.
    func print(_ gate: VerdictDocument.Gate, isReview: Bool = false) throws {
        let part = gate.part.isEmpty ? "" : ", \(gate.part)"
        let reason = gate.reason.isEmpty ? "" : " \(gate.reason)"
        try print("gate      \(gate.name)\(part): \(gate.outcome)\(reason)")
        func percent(_ value: JSONValue?) -> String? {
            value?.int.map { ($0 >= 0 ? "+" : "") + (Double($0) / 1e7).formatted(2) + " %" }
        }
        let evidence = gate.evidence
        if let mean = percent(evidence["improvement_ppb"]),
            let low = percent(evidence["lower_ppb"]),
            let high = percent(evidence["upper_ppb"]), let delta = percent(evidence["delta_ppb"])
        {
            try print(
                "          improvement \(mean), within \(low) and \(high); \(isReview ? "worse if all of that is below 0" : "more than \(delta) is asked for")"
            )
            try print("          on \(evidence["token_count"]?.int ?? 0) tokens of held-out text")
        } else if gate.outcome != Judge.Judgement.Outcome.accept.rawValue {
            let figures = Self.figures(evidence)
            for start in stride(from: 0, to: figures.count, by: 6) {
                try print("          " + figures[start...].prefix(6).joined(separator: "; "))
            }
        }
        guard case .object(let slices)? = evidence["slices"] else { return }
        for name in slices.keys.sorted() {
            guard let slice = slices[name], let mean = percent(slice["improvement_ppb"]),
                let low = percent(slice["lower_ppb"])
            else { continue }
            try print(
                "          \(name): \(mean), at least \(low), \(slice["documents"]?.int ?? 0) documents"
            )
        }
    }
}
