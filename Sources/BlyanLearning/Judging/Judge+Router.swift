internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// The router by which models compute the losses that gates ask for.
extension Judge {
    /// The router that a policy names, whatever this node serves with; nil for the node's own, of a policy that names none.
    ///
    /// - Throws: ``KernelError`` naming the router and what to install.
    func router(_ policy: JudgingPolicy) throws(KernelError) -> RouterPlugin? {
        guard let wanted = policy.router else { return nil }
        let plugins = host.plugins()
        do throws(KernelError) {
            return try plugins.router(
                named: wanted.name, version: wanted.version, config: wanted.config)
        } catch {
            try Cancellation.check()
            throw KernelError(
                error.code,
                "the policy judges by the router \(wanted.name) \(wanted.version), which this node cannot run: \(error.message)",
                hint: error.hint
                    ?? "install version \(wanted.version) of \(wanted.name): its manifest in \(plugins.node.pluginFolder), its library beside it; then `blyan plugin trust \(wanted.name)`"
            )
        }
    }

    /// What is known of losses by a router, nil = the node's own; by another one they are others.
    func losses(by router: RouterPlugin?) -> LossCache {
        let plugin = router?.plugin ?? (try? host.plugins().router().plugin)
        return lock.withLock {
            if losses.router !== plugin { losses = (plugin, LossCache()) }
            return losses.known
        }
    }
}
