internal import CBlyanPlugin

extension PluginTable {
    /// The table of a reward policy.
    public static func reward<R: Reward>(_: R.Type) -> PluginTable {
        let ability = unsafe Ability(
            blyan_reward(
                struct_size: UInt32(MemoryLayout<blyan_reward>.size), reserved: 0,
                settle: { instance, settlement, payments, capacity, count, error in
                    unsafe answer(error) { () throws(PluginError) in
                        guard let settlement = unsafe settlement, let count = unsafe count else {
                            throw PluginError(BLYAN_E_ARGUMENT, "settle got a null pointer")
                        }
                        guard let policy = try unsafe Instance.at(instance).plugin as? any Reward
                        else { throw PluginError(BLYAN_E_INTERNAL, "the instance is no policy") }
                        let config = try unsafe json(settlement.pointee.config, "configuration")
                        guard case .object = config else {
                            throw PluginError(BLYAN_E_CONFIG, "the configuration is no object")
                        }
                        guard
                            case .array(let events) = try unsafe json(
                                settlement.pointee.events, "events")
                        else { throw PluginError(BLYAN_E_MALFORMED, "the events are no array") }
                        let made = try policy.settle(events, config: Settings(config))
                        try unsafe write(made, to: payments, Int(capacity), count)
                    }
                }))
        return unsafe PluginTable(R.self, kind: Int(BLYAN_KIND_REWARD), minor: 1) { id in
            unsafe id == BLYAN_REWARD_SETTLE ? ability.table : nil
        }
    }
}

private func json(_ text: blyan_string, _ what: String) throws(PluginError) -> JSONValue {
    let bytes = unsafe UnsafeRawBufferPointer(start: text.data, count: Int(clamping: text.size))
    do { return unsafe try JSONValue(canonical: Array(unsafe bytes)) } catch {
        throw PluginError(BLYAN_E_MALFORMED, "the \(what) is no canonical JSON: \(error)")
    }
}

/// Copies payments to where the host wants them.
private func write(
    _ made: [Payment], to payments: UnsafeMutablePointer<blyan_payment>?, _ capacity: Int,
    _ count: UnsafeMutablePointer<UInt32>
) throws(PluginError) {
    guard let number = UInt32(exactly: made.count) else {
        throw PluginError(BLYAN_E_LIMIT, "there are \(made.count) payments")
    }
    unsafe count.pointee = number
    for (i, payment) in made.prefix(capacity).enumerated() {
        guard let out = unsafe payments.map({ unsafe $0 + i }),
            unsafe Int(out.pointee.struct_size) >= MemoryLayout<blyan_payment>.size
        else { throw PluginError(BLYAN_E_ARGUMENT, "the room for payments is not that of ABI 1.1") }
        guard let event = UInt32(exactly: payment.event), payment.account.utf8.count <= 71 else {
            throw PluginError(BLYAN_E_INTERNAL, "payment \(i) names no event or account")
        }
        unsafe out.pointee.event = event
        unsafe out.pointee.amount = payment.amount
        unsafe out.pointee.vesting = payment.vesting
        unsafe withUnsafeMutableBytes(of: &out.pointee.account) { bytes in
            for i in bytes.indices { unsafe bytes[i] = 0 }
            unsafe bytes.copyBytes(from: payment.account.utf8)
        }
    }
    guard made.count <= capacity else {
        throw PluginError(BLYAN_E_CAPACITY, "there are \(made.count) payments")
    }
}
