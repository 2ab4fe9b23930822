internal import Foundation

/// Opens what can be imported: a Hugging Face directory, or a GGUF file.
///
/// - Parameter plugins: read `pytorch_model.bin` of directories without safetensors; nil = such weights are refused.
/// - Throws: ``ModelError`` naming the file and what is wrong with it; ``KernelError`` naming the plugin that would
///   read it, and the manifest line to add.
public func openCheckpoint(at path: String, plugins: PluginSet? = nil) throws -> any Checkpoint {
    var isDirectory: ObjCBool = false
    let manager = FileManager.default
    guard unsafe manager.fileExists(atPath: path, isDirectory: &isDirectory) else {
        throw ModelError("there is no file or folder \(path)")
    }
    guard isDirectory.boolValue else { return try GGUFCheckpoint(path: path) }
    func has(_ name: String) -> Bool { manager.fileExists(atPath: "\(path)/\(name)") }
    guard !has("model.safetensors"), !has("model.safetensors.index.json") else {
        return try HuggingFaceCheckpoint(directory: path)
    }
    let name = "pytorch_model.bin"
    let index =
        has("\(name).index.json")
        ? try WeightIndex(directory: path, name: "\(name).index.json", suffix: ".bin") : nil
    guard index != nil || has(name) else { return try HuggingFaceCheckpoint(directory: path) }
    guard let plugins else {
        throw ModelError(
            "\(path) holds its weights as pickles (\(name))",
            hint: "convert the weights to safetensors")
    }
    let tensors = try ForeignTensors(
        directory: path, files: index?.files ?? [name], index: index,
        format: plugins.format(forFileExtension: "bin"))
    return try HuggingFaceCheckpoint(directory: path, tensors: tensors)
}
