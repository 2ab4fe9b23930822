internal import BlyanPluginKit

/// Random projections of vectors and of products of vectors, with the same bits on every machine.
///
/// A count-sketch adds each coordinate, with a random sign, to one of ``width`` buckets; the inner product of two is, on
/// average, that of the vectors. The transforms (Walsh-Hadamard) of several, multiplied number by number, are the transform of
/// a sketch of the vectors' outer product (tensor sketch, Pham and Pagh, KDD 2013, with exclusive-or in the place of
/// addition). Nothing but additions, subtractions and products, in one order.
enum Projection {
    /// Numbers of a sketch: angles hold within about 1/√512.
    static let width = 512

    /// Where a coordinate goes, and with which sign (SplitMix64, Steele et al., OOPSLA 2014).
    static func place(_ coordinate: Int, salt: UInt64) -> (bucket: Int, sign: Double) {
        var z = UInt64(truncatingIfNeeded: coordinate) &+ (salt &+ 1) &* 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        z ^= z >> 31
        return (Int(z & UInt64(width - 1)), z >> 63 == 0 ? 1 : -1)
    }

    /// Count-sketches of lines of numbers, one after the other, that are filled entry by entry.
    struct Lines {
        /// `width` numbers a line.
        private(set) var values: [Double]

        init(_ count: Int) { values = [Double](repeating: 0, count: count * width) }

        mutating func add(_ value: Double, to line: Int, at place: (bucket: Int, sign: Double)) {
            values[line * width + place.bucket] += place.sign * value
        }

        /// The Walsh-Hadamard transform of each line.
        mutating func transform() {
            unsafe values.withUnsafeMutableBufferPointer { x in
                for line in stride(from: 0, to: x.count, by: width) {
                    var half = 1
                    while half < width {
                        var block = line
                        while block < line + width {
                            for i in block..<block + half {
                                let (a, b) = unsafe (x[i], x[i + half])
                                unsafe x[i] = a + b
                                unsafe x[i + half] = a - b
                            }
                            block += 2 * half
                        }
                        half *= 2
                    }
                }
            }
        }
    }

    /// The sum over all lines of the products, number by number.
    static func contract(_ factors: [Lines]) -> [Double] {
        var sum = [Double](repeating: 0, count: width)
        guard let first = factors.first else { return sum }
        for line in stride(from: 0, to: first.values.count, by: width) {
            for i in 0..<width {
                sum[i] += factors.reduce(1) { $0 * $1.values[line + i] }
            }
        }
        return sum
    }
}

extension [Double] {
    /// The Euclidean length.
    var length: Double { reduce(0) { $0 + $1 * $1 }.squareRoot() }

    /// The cosine of the angle to another one, 0 where there is none.
    func cosine(_ other: [Double]) -> Double {
        let lengths = length * other.length
        return lengths > 0 ? zip(self, other).reduce(0) { $0 + $1.0 * $1.1 } / lengths : 0
    }

    /// Each in a byte, the largest as 127: what is kept and compared.
    var bytes: [Int8] {
        let largest = reduce(0) { Swift.max($0, abs($1)) }
        // What is no number has failed the gate for structure; here it is like nothing.
        guard largest > 0, allSatisfy(\.isFinite) else { return [Int8](repeating: 0, count: count) }
        return map { Int8(($0 / largest * 127).rounded()) }
    }
}
