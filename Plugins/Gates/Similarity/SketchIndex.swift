/// Sketches that are searched for the nearest, in the order in which they came.
///
/// Every one is compared: at 512 bytes each, 100,000 take some milliseconds, and no approximation decides a verdict.
struct SketchIndex {
    private var bytes: [Int8] = []
    private var squares: [Int32] = []
    /// What each sketch is of; ascending.
    private(set) var numbers: [Int] = []

    /// Adds one; its number is above all before.
    mutating func append(_ sketch: [Int8], number: Int) {
        bytes += sketch
        squares.append(sketch.reduce(0) { $0 + Int32($1) * Int32($1) })
        numbers.append(number)
    }

    /// What is most like a sketch among those with a number below `limit`, and how much, in millionths of a cosine.
    ///
    /// - Parameter isCompared: leaves some out.
    func nearest(
        to sketch: [Int8], below limit: Int, where isCompared: (Int) -> Bool = { _ in true }
    ) -> (number: Int, similarity: Int64)? {
        let square = sketch.reduce(Int32(0)) { $0 + Int32($1) * Int32($1) }
        var best: (number: Int, similarity: Int64)?
        for (i, number) in numbers.enumerated() {
            guard number < limit else { break }
            let found = Self.similarity(dot(sketch, i), square, squares[i])
            if found > best?.similarity ?? Int64.min, isCompared(number) { best = (number, found) }
        }
        return best
    }

    /// How much the sketch with a number is like another one, in millionths of a cosine; nil if there is none.
    func similarity(of number: Int, to sketch: [Int8]) -> Int64? {
        guard let i = numbers.firstIndex(of: number) else { return nil }
        let square = sketch.reduce(Int32(0)) { $0 + Int32($1) * Int32($1) }
        return Self.similarity(dot(sketch, i), square, squares[i])
    }

    /// Two sketches' likeness in millionths of a cosine.
    static func similarity(_ a: [Int8], _ b: [Int8]) -> Int64 {
        var index = SketchIndex()
        index.append(b, number: 0)
        return index.nearest(to: a, below: 1)?.similarity ?? 0
    }

    private static func similarity(_ dot: Int32, _ a: Int32, _ b: Int32) -> Int64 {
        guard a > 0, b > 0 else { return 0 }
        return Int64(Double(dot) * 1e6 / (Double(a) * Double(b)).squareRoot())
    }

    /// 512 products of at most 127²: far from what 32 bits hold.
    private func dot(_ sketch: [Int8], _ i: Int) -> Int32 {
        let width = Projection.width
        return unsafe sketch.withUnsafeBufferPointer { a in
            unsafe bytes.withUnsafeBufferPointer { all in
                let b = unsafe UnsafeBufferPointer(rebasing: all[i * width..<(i + 1) * width])
                var sum: Int32 = 0
                for k in 0..<width { unsafe sum &+= Int32(a[k]) &* Int32(b[k]) }
                return sum
            }
        }
    }
}
