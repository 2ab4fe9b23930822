internal import CBlyanMath
internal import Glibc

/// The operands of y[token][row] = x[token] · w[row], row-major; rows of y lie `stride` apart.
@unsafe struct GemmOperands<Input, Output> {
    let x: UnsafePointer<Input>
    let w: UnsafePointer<Input>
    let y: UnsafeMutablePointer<Output>
    let tokens: Int
    let rows: Int
    let columns: Int
    let stride: Int
}

// Safe: operands are what those who call vouch for; they are marked unsafe.
/// Somebody else's matrix product, loaded while the bench runs: nothing of ours links to it.
@safe struct GemmLibrary {
    let name: String
    /// Its release, and the kernels that it has picked where it tells.
    let version: String
    let setThreads: (Int) -> Void
    let multiply: (GemmOperands<Float, Float>) -> Void
    /// Signed bytes with exact sums, if the library has it.
    let multiplyBytes: ((GemmOperands<Int8, Int32>) -> Void)?

    /// Those that are installed.
    static func installed() -> [GemmLibrary] { [openBLAS(), oneDNN()].compactMap { $0 } }

    /// Debian's libopenblas0-pthread.
    private static func openBLAS() -> GemmLibrary? {
        typealias SetThreads = @convention(c) (CInt) -> Void
        typealias Text = @convention(c) () -> UnsafePointer<CChar>?
        typealias Product =
            @convention(c) (
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
        guard let file = SharedLibrary(["libopenblas.so.0"]),
            let setThreads = unsafe file.symbol("openblas_set_num_threads", SetThreads.self),
            let config = unsafe file.symbol("openblas_get_config", Text.self),
            let sgemm = unsafe file.symbol("cblas_sgemm", Product.self)
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

    /// Debian's libdnnl2 or libdnnl3; the functions used are the same in both.
    private static func oneDNN() -> GemmLibrary? {
        typealias SetThreads = @convention(c) (CInt) -> Void
        typealias Version = @convention(c) () -> UnsafePointer<CInt>?
        typealias Product =
            @convention(c) (
                CChar, CChar, Int, Int, Int, Float, UnsafePointer<Float>, Int,
                UnsafePointer<Float>, Int, Float, UnsafeMutablePointer<Float>, Int
            ) -> CInt
        typealias BytesProduct =
            @convention(c) (
                CChar, CChar, CChar, Int, Int, Int, Float, UnsafePointer<Int8>, Int, Int8,
                UnsafePointer<Int8>, Int, Int8, Float, UnsafeMutablePointer<Int32>, Int,
                UnsafePointer<Int32>
            ) -> CInt
        // Its threads are OpenMP's, which it links to.
        guard let file = SharedLibrary(["libdnnl.so.3", "libdnnl.so.2"]),
            let setThreads = unsafe file.symbol("omp_set_num_threads", SetThreads.self),
            let version = unsafe file.symbol("dnnl_version", Version.self),
            let sgemm = unsafe file.symbol("dnnl_sgemm", Product.self),
            let bytes = unsafe file.symbol("dnnl_gemm_s8s8s32", BytesProduct.self)
        else { return nil }
        let (n, t, f) = (
            CChar(UInt8(ascii: "N")), CChar(UInt8(ascii: "T")), CChar(UInt8(ascii: "F"))
        )
        return unsafe GemmLibrary(
            name: "onednn",
            version: unsafe version().map { unsafe "\($0[0]).\($0[1]).\($0[2])" } ?? "",
            setThreads: { setThreads(CInt($0)) },
            multiply: { p in
                let status = unsafe sgemm(
                    n, t, p.tokens, p.rows, p.columns, 1, p.x, p.columns, p.w, p.columns, 0,
                    p.y, p.stride)
                precondition(status == 0, "dnnl_sgemm takes every shape")
            },
            multiplyBytes: { p in
                var offset: Int32 = 0
                let status = unsafe bytes(
                    n, t, f, p.tokens, p.rows, p.columns, 1, p.x, p.columns, 0, p.w, p.columns, 0,
                    0, p.y, p.stride, &offset)
                precondition(status == 0, "dnnl_gemm_s8s8s32 takes every shape")
            })
    }
}

// Safe: the handle is only passed to dlsym, and stays open for as long as the process lives.
/// A library that the system's loader finds by name.
@safe private struct SharedLibrary {
    private let handle: UnsafeMutableRawPointer

    /// The first of the names that can be loaded.
    init?(_ names: [String]) {
        let handles = unsafe names.lazy.compactMap { unsafe dlopen($0, RTLD_NOW | RTLD_LOCAL) }
        guard let handle = unsafe handles.first else { return nil }
        unsafe self.handle = handle
    }

    /// A function of the library or of what it links to; `type` must be its C type.
    @unsafe func symbol<Function>(_ name: String, _ type: Function.Type) -> Function? {
        unsafe dlsym(handle, name).map { unsafe unsafeBitCast($0, to: type) }
    }
}
