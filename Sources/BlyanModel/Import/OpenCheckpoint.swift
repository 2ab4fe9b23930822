internal import Foundation

/// Opens what can be imported: a Hugging Face directory, or a GGUF file.
///
/// - Throws: ``ModelError`` naming the file and what is wrong with it.
public func openCheckpoint(at path: String) throws -> any Checkpoint {
    try openCheckpoint(at: path, pickles: nil)
}

/// Reads the pickles of a directory as one set of tensors; given the files' paths in order.
package typealias PickleReader = (_ paths: [String]) throws -> any NamedTensors

/// As ``openCheckpoint(at:)``; directories without safetensors but with `pytorch_model.bin` go through `pickles`.
///
/// - Throws: ``ModelError`` naming the file and what is wrong with it, or what `pickles` throws.
package func openCheckpoint(at path: String, pickles: PickleReader?) throws -> any Checkpoint {
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
    var files: [String] = []
    if has("pytorch_model.bin.index.json") {
        let index = try WeightIndex(
            directory: path, name: "pytorch_model.bin.index.json", suffix: ".bin")
        files = index.files
    } else if has("pytorch_model.bin") {
        files = ["pytorch_model.bin"]
    }
    guard let first = files.first else { return try HuggingFaceCheckpoint(directory: path) }
    guard let pickles else {
        throw ModelError(
            "\(path) holds its weights as pickles (\(first))",
            hint: "enable a format plugin that reads them, or convert the weights to safetensors")
    }
    return try HuggingFaceCheckpoint(
        directory: path, tensors: pickles(files.map { "\(path)/\($0)" }))
}
