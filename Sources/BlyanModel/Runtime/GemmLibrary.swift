internal import CBlyanMath
internal import Glibc

/// The operands of y[token][row] = x[token] · w[row], row-major; rows of y lie `stride` apart.
@unsafe package struct GemmOperands<Input, Output> {
    package let x: UnsafePointer<Input>
    package let w: UnsafePointer<Input>
    package let y: UnsafeMutablePointer<Output>
    package let tokens: Int
    package let rows: Int
    package let columns: Int
    package let stride: Int

    package init(
        x: UnsafePointer<Input>, w: UnsafePointer<Input>, y: UnsafeMutablePointer<Output>,
        tokens: Int, rows: Int, columns: Int, stride: Int
    ) {
        unsafe self.x = x
        unsafe self.w = w
        unsafe self.y = y
        unsafe self.tokens = tokens
        unsafe self.rows = rows
        unsafe self.columns = columns
        unsafe self.stride = stride
    }
}

/// C = alpha · op(A) · op(B) + beta · C, row-major, as `cblas_sgemm` has it: op(A) is m × k, op(B) is k × n.
@unsafe package struct GemmProduct {
    package var m: Int
    package var n: Int
    package var k: Int
    package var a: UnsafePointer<Float>
    /// Floats from a row of A, as it lies, to the next.
    package var strideA: Int
    /// Whether A lies as k × m.
    package var transposesA = false
    package var b: UnsafePointer<Float>
    package var strideB: Int
    /// Whether B lies as n × k.
    package var transposesB = false
    package var c: UnsafeMutablePointer<Float>
    package var strideC: Int
    package var alpha: Float = 1
    package var beta: Float = 0

    package init(
        m: Int, n: Int, k: Int, a: UnsafePointer<Float>, strideA: Int, transposesA: Bool = false,
        b: UnsafePointer<Float>, strideB: Int, transposesB: Bool = false,
        c: UnsafeMutablePointer<Float>, strideC: Int, alpha: Float = 1, beta: Float = 0
    ) {
        unsafe self.m = m
        unsafe self.n = n
        unsafe self.k = k
        unsafe self.a = a
        unsafe self.strideA = strideA
        unsafe self.transposesA = transposesA
        unsafe self.b = b
        unsafe self.strideB = strideB
        unsafe self.transposesB = transposesB
        unsafe self.c = c
        unsafe self.strideC = strideC
        unsafe self.alpha = alpha
        unsafe self.beta = beta
    }
}

// Safe: operands are what those who call vouch for; they are marked unsafe.
/// Somebody else's matrix product, loaded while the program runs: nothing of ours links to it.
///
/// Its sums have an order of its own, which depends on the number of tokens: results are ours within rounding,
/// never bit for bit. A call runs in the calling thread alone: work is shared out by our own pools, whose threads
/// have the priority of what they do. Any thread.
@safe public struct GemmLibrary: Sendable {
    package let name: String
    /// Its release, and the kernels that it has picked where it tells.
    package let version: String
    package let product: @Sendable (GemmProduct) -> Void
    /// Signed bytes with exact sums, if the library has it.
    package let multiplyBytes: (@Sendable (GemmOperands<Int8, Int32>) -> Void)?

    package init(
        name: String, version: String,
        product: @escaping @Sendable (GemmProduct) -> Void,
        multiplyBytes: (@Sendable (GemmOperands<Int8, Int32>) -> Void)? = nil
    ) {
        self.name = name
        self.version = version
        unsafe self.product = product
        unsafe self.multiplyBytes = multiplyBytes
    }

    /// y[token][row] = x[token] · w[row].
    package func multiply(_ p: GemmOperands<Float, Float>) {
        unsafe product(
            GemmProduct(
                m: p.tokens, n: p.rows, k: p.columns, a: p.x, strideA: p.columns, b: p.w,
                strideB: p.columns, transposesB: true, c: p.y, strideC: p.stride))
    }

    /// The name by which the loader finds OpenBLAS.
    package static let openBLASFile = "libopenblas.so.0"

    /// Debian's libopenblas0-pthread, or nil if it is not installed.
    package static func openBLAS(_ file: String = openBLASFile) -> GemmLibrary? {
        typealias SetThreads = @Sendable @convention(c) (CInt) -> Void
        typealias Text = @Sendable @convention(c) () -> UnsafePointer<CChar>?
        typealias Product =
            @Sendable @convention(c) (
                CInt, CInt, CInt, CInt, CInt, CInt, Float, UnsafePointer<Float>, CInt,
                UnsafePointer<Float>, CInt, Float, UnsafeMutablePointer<Float>, CInt
            ) -> Void
        // A processor younger than the library gets its oldest kernels, which would be no match: it is told
        // to use those for what our own kernels use, unless the caller has chosen.
        let kernels: [Int32: String] = [
            Int32(BLYAN_ISA_AVX2): "Haswell", Int32(BLYAN_ISA_AVX512): "SkylakeX",
            Int32(BLYAN_ISA_NEON): "ARMV8",
        ]
        if let kernel = kernels[blyan_math_isa()] { unsafe setenv("OPENBLAS_CORETYPE", kernel, 0) }
        guard let library = SharedLibrary([file]),
            let setThreads = unsafe library.symbol("openblas_set_num_threads", SetThreads.self),
            let config = unsafe library.symbol("openblas_get_config", Text.self),
            let sgemm = unsafe library.symbol("cblas_sgemm", Product.self)
        else { return nil }
        setThreads(1)
        return unsafe GemmLibrary(
            name: "openblas", version: unsafe config().map { unsafe String(cString: $0) } ?? "",
            product: { p in
                // 101, 111 and 112: row-major, as it is, transposed.
                unsafe sgemm(
                    101, p.transposesA ? 112 : 111, p.transposesB ? 112 : 111, CInt(p.m), CInt(p.n),
                    CInt(p.k), p.alpha, p.a, CInt(p.strideA), p.b, CInt(p.strideB), p.beta, p.c,
                    CInt(p.strideC))
            })
    }
}

// Safe: the handle is only passed to dlsym, and stays open for as long as the process lives.
/// A library that the system's loader finds by name.
@safe package struct SharedLibrary {
    private let handle: UnsafeMutableRawPointer

    /// The first of the names that can be loaded.
    package init?(_ names: [String]) {
        let handles = unsafe names.lazy.compactMap { unsafe dlopen($0, RTLD_NOW | RTLD_LOCAL) }
        guard let handle = unsafe handles.first else { return nil }
        unsafe self.handle = handle
    }

    /// A function of the library or of what it links to; `type` must be its C type.
    @unsafe package func symbol<Function>(_ name: String, _ type: Function.Type) -> Function? {
        unsafe dlsym(handle, name).map { unsafe unsafeBitCast($0, to: type) }
    }
}
