import BlyanKernel

/// Runs work again if a step in it was discarded: other suites of this process let mapped files fault on purpose,
/// and a fault anywhere discards the steps that run meanwhile.
func undisturbed<T>(_ body: () throws -> T) throws -> T {
    // Those suites take seconds: until they have ended a long step may be discarded each time.
    let end = ContinuousClock.now + .seconds(120)
    while ContinuousClock.now < end {
        do { return try body() } catch let error as KernelError
            where error.message.contains("result was discarded")
        {}
    }
    return try body()
}
