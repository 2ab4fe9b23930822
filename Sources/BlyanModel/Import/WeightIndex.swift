/// The index of a checkpoint in several files: which tensor lies in which.
struct WeightIndex {
    /// File names by tensor.
    let files: [String]
    private let map: [String: String]
    private let path: String

    /// Reads an index.
    ///
    /// - Parameter suffix: what each file's name must end with; a name that leads out of the folder is refused.
    init(directory: String, name: String, suffix: String) throws(ModelError) {
        path = "\(directory)/\(name)"
        guard let members = try JSONDocument(file: path)["weight_map"]?.members else {
            throw ModelError("\(path) has no weight_map")
        }
        var map: [String: String] = [:]
        for (key, value) in members {
            guard let file = value.string, !file.contains("/"), !file.contains("\0"),
                !file.hasPrefix("."), file.hasSuffix(suffix)
            else {
                throw ModelError(
                    "\(path) names the file \(value.summary), expected a \(suffix) file beside it")
            }
            map[key.text] = file
        }
        self.map = map
        files = Set(map.values).sorted()
    }

    /// Throws if the index says that a tensor lies in another file, or does not name it.
    func check(_ tensor: String, liesIn file: String) throws(ModelError) {
        guard map[tensor] == file else {
            throw ModelError(
                "tensor \(tensor) lies in \(file), \(path) says \(map[tensor] ?? "nothing")")
        }
    }

    /// Throws if the index names a tensor that is not among `names`.
    func checkComplete(_ names: [String: TensorEntry]) throws(ModelError) {
        if let missing = map.keys.filter({ names[$0] == nil }).min() {
            throw ModelError("tensor \(missing) is in \(path) but in none of its files")
        }
    }
}
