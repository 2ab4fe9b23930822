/// Order among things that depend on one another, and the cycle that forbids one.
///
/// Hash links make cycles impossible; this guards batches and damaged stores, where a claimed id is not yet proven.
public enum DependencyGraph {
    private enum Mark { case new, open, done }

    /// What a graph came to.
    public enum Order<ID: Hashable & Sendable>: Sendable, Equatable {
        /// Every id after all it depends on; among those free to come, in order of the input.
        case sorted([ID])
        /// A cycle: each id depends on the next, the last on the first.
        case cycle([ID])
    }

    /// Sorts ids so that dependencies come first; dependencies that are not in the list are taken as met.
    ///
    /// - Complexity: linear in ids and dependencies; no recursion.
    public static func order<ID>(_ nodes: [(id: ID, dependencies: [ID])]) -> Order<ID> {
        var position: [ID: Int] = [:]
        for (i, node) in nodes.enumerated() { position[node.id] = i }
        let edges = nodes.map { node in node.dependencies.compactMap { position[$0] } }
        var marks = [Mark](repeating: .new, count: nodes.count)
        var sorted: [ID] = []
        sorted.reserveCapacity(nodes.count)
        for root in nodes.indices where marks[root] == .new {
            var path: [(node: Int, next: Int)] = [(root, 0)]
            marks[root] = .open
            while let (node, next) = path.last {
                guard next < edges[node].count else {
                    marks[node] = .done
                    sorted.append(nodes[node].id)
                    path.removeLast()
                    continue
                }
                path[path.count - 1].next += 1
                let target = edges[node][next]
                switch marks[target] {
                case .done: break
                case .open:
                    let start = path.firstIndex { $0.node == target } ?? 0
                    return .cycle(path[start...].map { nodes[$0.node].id })
                case .new:
                    marks[target] = .open
                    path.append((target, 0))
                }
            }
        }
        return .sorted(sorted)
    }
}
