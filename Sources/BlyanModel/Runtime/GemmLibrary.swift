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

// Safe: operands are what those who call vouch for; they are marked unsafe.
/// Somebody else's matrix product, loaded while the program runs: nothing of ours links to it.
///
/// Its sums have an order of its own, which depends on the number of tokens: results are ours within rounding,
/// never bit for bit.
@safe public struct GemmLibrary: Sendable {
    package let name: String
    /// Its release, and the kernels that it has picked where it tells.
    package let version: String
    /// How many threads all products of this process have.
    package let setThreads: @Sendable (Int) -> Void
    package let multiply: @Sendable (GemmOperands<Float, Float>) -> Void
    /// Signed bytes with exact sums, if the library has it.
    package let multiplyBytes: (@Sendable (GemmOperands<Int8, Int32>) -> Void)?

    package init(
        name: String, version: String, setThreads: @escaping @Sendable (Int) -> Void,
        multiply: @escaping @Sendable (GemmOperands<Float, Float>) -> Void,
        multiplyBytes: (@Sendable (GemmOperands<Int8, Int32>) -> Void)? = nil
    ) {
        self.name = name
        self.version = version
        self.setThreads = setThreads
        unsafe self.multiply = multiply
        unsafe self.multiplyBytes = multiplyBytes
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
        return unsafe GemmLibrary(
            name: "openblas", version: unsafe config().map { unsafe String(cString: $0) } ?? "",
            setThreads: { setThreads(CInt($0)) },
            multiply: { p in
                // 101, 111 and 112: row-major, as it is, transposed.
                unsafe sgemm(
                    101, 111, 112, CInt(p.tokens), CInt(p.rows), CInt(p.columns), 1,
                    p.x, CInt(p.columns), p.w, CInt(p.columns), 0, p.y, CInt(p.stride))
            },
            multiplyBytes: nil)
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
