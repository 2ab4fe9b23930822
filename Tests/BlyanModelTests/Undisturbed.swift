import BlyanKernel

/// Runs work again if a step in it was discarded: other suites of this process let mapped files fault on purpose,
/// and a fault anywhere discards the steps that run meanwhile.
func undisturbed<T>(_ body: () throws -> T) throws -> T {
    for _ in 0..<100 {
        do { return try body() } catch let error as KernelError
            where error.message.contains("result was discarded")
        {}
    }
    return try body()
}
