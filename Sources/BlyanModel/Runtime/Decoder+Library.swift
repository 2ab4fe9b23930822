internal import CBlyanMath

extension Decoder {
    /// Tokens from which on a product is the library's.
    ///
    /// `blyan-bench gemm` has our own kernels ahead at 32 tokens, where converting the weights costs more than it
    /// gains, and both about even at 96: OpenBLAS is ahead with f32, bf16 and int8, and level with f16.
    package static let libraryTokens = 96

    /// Whether the library multiplies so many tokens.
    func isLong(_ tokens: Int) -> Bool { library != nil && tokens >= Self.libraryTokens }

    /// As ``prepare(_:_:_:_:into:)``; nil where the library multiplies the activations as they are.
    func prepareUnlessLong(
        _ dtype: UInt32, _ x: UnsafePointer<Float>, _ tokens: Int, _ columns: Int,
        into buffer: AlignedBuffer<UInt8>
    ) -> UnsafeRawPointer? {
        isLong(tokens) ? nil : unsafe prepare(dtype, x, tokens, columns, into: buffer)
    }

    /// One product by the library.
    func multiplyByLibrary(_ product: Product) {
        guard let library else { preconditionFailure("products are long where there is a library") }
        unsafe library.multiply(
            product.matrix, x: product.x, tokens: product.tokens, y: product.output,
            stride: product.stride, pool, converted: scratch.converted)
    }
}
