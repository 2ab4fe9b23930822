/// What a stream says of its gates.
struct StreamFigures {
    private(set) var all: [String: Double] = [:]
    private let delta: Int64

    /// - Parameter delta: the gain that the last gate asks for, in billionths.
    init(_ records: [StreamRecord], delta: Int64) {
        self.delta = delta
        for (kind, records) in Dictionary(grouping: records, by: \.kind) { add(kind, records) }
        // By what it is worth, whoever made it, and whatever it is called.
        func gain(_ record: StreamRecord) -> Int64 { record.truth?.improvement ?? 0 }
        func harms(_ record: StreamRecord) -> Bool {
            (record.truth?.worstSlice ?? 0) < (record.last?.floor ?? 0)
        }
        let attacks = records.filter { $0.kind != "honest" }
        add("attacks", attacks)
        add("attacks_without_gain", attacks.filter { gain($0) <= 0 })
        add("without_gain", records.filter { gain($0) <= 0 })
        add("gain_up_to_delta", records.filter { gain($0) > 0 && gain($0) <= delta })
        let real = records.filter { gain($0) >= 2 * delta }
        add("gain_of_two_delta", real.filter { !harms($0) })
        add("gain_that_harms_a_slice", real.filter(harms))
        // What cheap gates cost honest work: that which is worth evaluating.
        let honest = records.filter { $0.kind == "honest" }
        add("honest_gain_of_two_delta", honest.filter { gain($0) >= 2 * delta && !harms($0) })
        add("honest_that_the_last_gate_accepts", honest.filter(\.isAcceptedByTheLast))
    }

    private mutating func add(_ name: String, _ records: [StreamRecord]) {
        all["\(name)_count"] = Double(records.count)
        guard !records.isEmpty else { return }
        func share(of records: [StreamRecord], _ holds: (StreamRecord) -> Bool) -> Double {
            records.isEmpty ? 0 : Double(records.count(where: holds)) / Double(records.count)
        }
        all["\(name)_stopped_cheaply"] = share(of: records, \.isStoppedCheaply)
        all["\(name)_stopped_without_immune"] = share(of: records, \.isStoppedWithoutImmune)
        all["\(name)_accepted_by_the_last_gate"] = share(of: records, \.isAcceptedByTheLast)
        all["\(name)_accepted"] = share(of: records) { $0.refusedBy == nil }
        for gate in ["structure", "similarity", "immune", "quick-perplexity"] {
            all["\(name)_by_\(gate)"] = share(of: records) { $0.refusedBy == gate }
        }
        let asked = records.filter { $0.isLate && $0.gates["immune"] != nil }
        all["\(name)_late_refused_by_immune"] = share(of: asked) { $0.refusedBy == "immune" }
        all["\(name)_cheap_cpu_seconds_median"] = median(records.map(\.cheapSeconds))
        all["\(name)_cheap_cpu_seconds_largest"] = records.map(\.cheapSeconds).max()
    }
}
