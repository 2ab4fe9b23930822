package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// Asking plugins about a candidate that waits: a gate for its answer, the reward policy for what an acceptance earns.
extension Judge {
    /// Runs a call into a plugin about a candidate that waits: if the node ends meanwhile, the next start knows by which.
    ///
    /// - Throws: ``KernelError`` naming the plugin that failed: a fault, after which the candidate waits on; with code
    ///   `cancelled` on request.
    package func asking<Answer>(
        _ plugin: LoadedPlugin, about candidate: Digest,
        _ body: () throws(KernelError) -> Answer
    ) throws(KernelError) -> Answer {
        let asked = AskedPlugin(plugin)
        try candidates.asks(asked, about: candidate, now: host.clock())
        do throws(KernelError) {
            let answer = try body()
            candidates.answers(asked, about: candidate)
            setFault(nil, of: candidate)
            return answer
        } catch {
            // Whatever a plugin says that was told to stop.
            if Cancellation.current.isRequested() { candidates.leaves() }
            try Cancellation.check()
            // It gave an error, or its call was left.
            if PluginCall.fault(of: plugin) == nil {
                candidates.answers(asked, about: candidate)
            } else {
                candidates.leaves()
            }
            let fault = Self.fault(error, of: plugin, "the candidate waits")
            setFault(fault.message, of: candidate)
            throw fault
        }
    }

    /// Runs what loads a plugin in order to ask it about a candidate that waits: in its own tests it may end the node too.
    ///
    /// - Throws: What `body` throws; ``KernelError`` with code `io`, and then it must not be loaded.
    package func loading<R>(
        _ plugin: AskedPlugin, for candidate: Digest, _ body: () throws -> R
    ) throws -> R {
        try candidates.asks(plugin, about: candidate, now: host.clock())
        defer { candidates.leaves() }
        return try body()
    }

    /// The error of a plugin that failed, which is no verdict.
    ///
    /// - Parameter outcome: what came of it.
    static func fault(_ error: KernelError, of plugin: LoadedPlugin, _ outcome: String)
        -> KernelError
    {
        KernelError(
            // Nobody told it to stop.
            error.code == .cancelled ? .plugin : error.code,
            "the \(plugin.manifest.kind.noun) \(plugin.manifest.name) failed, which is no verdict; \(outcome): \(error.message)",
            hint: error.hint)
    }

    /// Runs what writes a verdict: what fails there leaves the candidate waiting, and is its fault.
    func writing<R>(_ candidate: Digest, _ body: () throws -> R) throws -> R {
        do { return try body() } catch {
            let fault = error as? KernelError
            if fault?.code == .cancelled { try Cancellation.check() }
            setFault(fault?.message ?? "\(error)", of: candidate)
            guard let fault, fault.code == .rule else { throw error }
            // A rule that is broken here says nothing about what was judged.
            throw KernelError(.integrity, fault.message, hint: fault.hint)
        }
    }

    private func setFault(_ message: String?, of candidate: Digest) {
        lock.withLock { faults[candidate] = message }
    }
}
