internal import BlyanModel

extension GemmLibrary {
    /// Those that are installed.
    static func installed() -> [GemmLibrary] { [openBLAS(), oneDNN()].compactMap { $0 } }

    /// Debian's libdnnl2 or libdnnl3; the functions used are the same in both.
    fileprivate static func oneDNN() -> GemmLibrary? {
        typealias SetThreads = @Sendable @convention(c) (CInt) -> Void
        typealias Version = @Sendable @convention(c) () -> UnsafePointer<CInt>?
        typealias Product =
            @Sendable @convention(c) (
                CChar, CChar, Int, Int, Int, Float, UnsafePointer<Float>, Int,
                UnsafePointer<Float>, Int, Float, UnsafeMutablePointer<Float>, Int
            ) -> CInt
        typealias BytesProduct =
            @Sendable @convention(c) (
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
        setThreads(1)
        return unsafe GemmLibrary(
            name: "onednn",
            version: unsafe version().map { unsafe "\($0[0]).\($0[1]).\($0[2])" } ?? "",
            product: { p in
                let status = unsafe sgemm(
                    p.transposesA ? t : n, p.transposesB ? t : n, p.m, p.n, p.k, p.alpha, p.a,
                    p.strideA, p.b, p.strideB, p.beta, p.c, p.strideC)
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
