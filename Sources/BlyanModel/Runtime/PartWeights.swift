internal import BlyanKernel
internal import CBlyanMath
package import CBlyanPlugin

// Safe: `compute` gets pointers that are valid for its call, and nothing else is unsafe here.
/// One part of a model, ready to be multiplied with: matrices where they lie, vectors as f32.
@safe package struct PartWeights: Sendable {
    /// `layer4.expert7`, `embedding`, ...
    package let name: String
    /// Bytes of the payload behind it, mapped.
    package let mappedBytes: Int
    /// Bytes of memory that decoding took; 0 where everything is viewed.
    package let ownedBytes: Int
    let matrices: [String: WeightMatrix]
    let vectors: [String: [Float]]
    /// For formats that compute an expert themselves.
    let compute: ExpertCompute?
    /// Throws if the disk could not serve a page behind it.
    let checkFault: @Sendable () throws -> Void

    /// Does one stage of an expert for a row range, as `blyan_format_compute` describes.
    typealias ExpertCompute = @Sendable (_ work: blyan_compute) throws -> Void

    package init(
        name: String, mappedBytes: Int, ownedBytes: Int, matrices: [String: WeightMatrix],
        vectors: [String: [Float]],
        compute: (@Sendable (_ work: blyan_compute) throws -> Void)? = nil,
        checkFault: @escaping @Sendable () throws -> Void = {}
    ) {
        self.name = name
        self.mappedBytes = mappedBytes
        self.ownedBytes = ownedBytes
        self.matrices = matrices
        self.vectors = vectors
        unsafe self.compute = compute
        self.checkFault = checkFault
    }

    /// A matrix that the part's layout requires, so that only a defect can miss it.
    func matrix(_ tensor: String) throws(ModelError) -> WeightMatrix {
        guard let matrix = matrices[tensor] else {
            throw ModelError("\(name) has no matrix named \(tensor)")
        }
        return matrix
    }

    /// A vector that the part's layout requires.
    func vector(_ tensor: String) throws(ModelError) -> [Float] {
        guard let vector = vectors[tensor] else {
            throw ModelError("\(name) has no vector named \(tensor)")
        }
        return vector
    }
}

/// Where parts come from: a model's current blocks, through the cache.
package protocol PartSource: Sendable {
    /// The part, loaded if need be.
    ///
    /// - Throws: an error that names the part and what is wrong with its block, payload or plugin.
    func part(_ name: String) throws -> PartWeights
    /// Lets go of all parts, since one of them turned out to be damaged: when its file is mended, it is to be mapped again.
    ///
    /// - Throws: What names the payload of which the disk could not serve a page, if there is one.
    func forget() throws
}

extension PartSource {
    /// For sources that map nothing.
    package func forget() {}
}

/// A router's view of one request.
package protocol RequestRouter: AnyObject, Sendable {
    /// Picks experts for `rows` tokens at positions `position...`; see `blyan_router.route`.
    ///
    /// - Parameters:
    ///   - logits: rows × experts.
    ///   - ids: rows × slots, written.
    ///   - weights: rows × slots, written.
    func route(
        layer: Int, rows: Int, slots: Int, position: Int, logits: UnsafePointer<Float>,
        ids: UnsafeMutablePointer<UInt32>, weights: UnsafeMutablePointer<Float>) throws
}
