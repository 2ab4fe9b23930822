package import BlyanModel

/// Matrix products by a library, and work by rows, shared out over a pool.
///
/// Work is cut into pieces whose size does not depend on the number of threads: neither do results.
package struct Multiplier: Sendable {
    package let pool: WorkerPool
    private let library: GemmLibrary

    /// Rows of one piece of a product: large enough that the library's preparation of b does not count.
    ///
    /// Gradients of
    /// weights have few rows and long sums.
    private static func block(_ form: Form) -> Int { form == .firstTransposed ? 64 : 256 }

    package init(pool: WorkerPool, library: GemmLibrary) {
        self.pool = pool
        self.library = library
    }

    /// How the operands of a product lie.
    enum Form { case plain, secondTransposed, firstTransposed }

    /// c = alpha · a · b + beta · c; ``Form/secondTransposed`` takes b, ``Form/firstTransposed`` a, by its columns.
    struct Product {
        let c: Matrix
        let a: Matrix
        let b: Matrix
        let form: Form
        let beta: Float

        init(_ c: Matrix, _ a: Matrix, _ b: Matrix, _ form: Form = .plain, adds: Bool = false) {
            let (m, k) = form == .firstTransposed ? (a.columns, a.rows) : (a.rows, a.columns)
            let (n, depth) = form == .secondTransposed ? (b.rows, b.columns) : (b.columns, b.rows)
            precondition(c.rows == m && c.columns == n && k == depth, "shapes do not fit")
            self.c = c
            self.a = a
            self.b = b
            self.form = form
            beta = adds ? 1 : 0
        }
    }

    /// All products, which do not depend on one another and write nothing in common.
    func run(_ products: [Product]) {
        let pieces = products.flatMap { product -> [(Product, Range<Int>)] in
            let block = Self.block(product.form)
            return stride(from: 0, to: product.c.rows, by: block).map { begin in
                (product, begin..<min(product.c.rows, begin + block))
            }
        }
        pool.run(pieces.count) { compute(pieces[$0].0, rows: pieces[$0].1) }
    }

    /// One product in the calling thread, whose result is scaled by `alpha`.
    func compute(_ product: Product, rows: Range<Int>? = nil, alpha: Float = 1) {
        let rows = rows ?? 0..<product.c.rows
        let isFirst = product.form == .firstTransposed
        let a = isFirst ? product.a.columns(rows) : product.a.rows(rows)
        let c = product.c.rows(rows)
        guard c.rows > 0, c.columns > 0 else { return }
        let depth = isFirst ? a.rows : a.columns
        guard depth > 0 else {
            if product.beta == 0 { c.clear() }
            return
        }
        unsafe library.product(
            GemmProduct(
                m: c.rows, n: c.columns, k: depth, a: a.base, strideA: a.stride,
                transposesA: isFirst, b: product.b.base, strideB: product.b.stride,
                transposesB: product.form == .secondTransposed, c: c.base, strideC: c.stride,
                alpha: alpha, beta: product.beta))
    }

    /// Calls `body` with ranges that cover `0..<rows`, on several threads.
    func byRows(_ rows: Int, _ body: (Range<Int>) -> Void) {
        let block = 32
        pool.run((rows + block - 1) / block) { piece in
            body(piece * block..<min(rows, (piece + 1) * block))
        }
    }
}
