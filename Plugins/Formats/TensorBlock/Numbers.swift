/// Numbers between their stored form and f32; loops that compilers turn into vector code.
///
/// Only integer operations and single IEEE 754 additions, multiplications and divisions: the same bits on every
/// CPU. Pointers may have any alignment.
enum Numbers {
    /// `count` stored numbers as f32, exactly.
    static func widen(
        _ element: Element, _ stored: UnsafeRawPointer, _ count: Int,
        into out: UnsafeMutablePointer<Float>
    ) {
        switch element {
        case .f32:
            unsafe UnsafeMutableRawPointer(out).copyMemory(from: stored, byteCount: count * 4)
        case .bf16:
            for i in 0..<count {
                let bits = unsafe stored.loadUnaligned(fromByteOffset: i &* 2, as: UInt16.self)
                unsafe out[i] = Float(bitPattern: UInt32(bits) << 16)
            }
        case .f16:
            for i in 0..<count {
                unsafe out[i] = half(
                    stored.loadUnaligned(fromByteOffset: i &* 2, as: UInt16.self))
            }
        case .int8:
            for i in 0..<count {
                unsafe out[i] = Float(stored.loadUnaligned(fromByteOffset: i, as: Int8.self))
            }
        case .f8:
            unsafe e4m3Values.withUnsafeBufferPointer { table in
                for i in 0..<count {
                    let code = unsafe stored.loadUnaligned(fromByteOffset: i, as: UInt8.self)
                    unsafe out[i] = table[Int(code)]
                }
            }
        }
    }

    /// An IEEE 754 binary16 as f32, without the conversion instruction that not every CPU has.
    @inline(__always)
    static func half(_ bits: UInt16) -> Float {
        let shifted = UInt32(bits & 0x7FFF) << 13
        let exponent = shifted & 0x0F80_0000
        // Exponent 31 (infinity, not a number) goes to 255, all others move by the difference of the biases.
        let rebias: UInt32 = exponent == 0x0F80_0000 ? 224 << 23 : 112 << 23
        // Below the smallest normal: give it that exponent, then take its leading one away again.
        let subnormal = Float(bitPattern: shifted &+ 113 << 23) - Float(bitPattern: 113 << 23)
        let magnitude = exponent == 0 ? subnormal.bitPattern : shifted &+ rebias
        return Float(bitPattern: magnitude | UInt32(bits & 0x8000) << 16)
    }

    /// OCP FP8 E4M3: bias 7, no infinities, NaN = 0x7F and 0xFF.
    static func e4m3(_ code: UInt8) -> Float {
        let exponent = Int(code >> 3 & 15)
        let mantissa = Float(code & 7)
        let magnitude: Float =
            if code & 0x7F == 0x7F {
                .nan
            } else if exponent == 0 {
                mantissa / 512
            } else {
                Float(sign: .plus, exponent: exponent - 7, significand: 1 + mantissa / 8)
            }
        return code & 0x80 == 0 ? magnitude : -magnitude
    }

    private static let e4m3Values = (0...255).map { e4m3(UInt8($0)) }

    /// The largest magnitude among f16, bf16 or f32 numbers; infinite or not a number if one of them is.
    ///
    /// Magnitudes order as their bits do, which is what is compared.
    static func largest(_ element: Element, _ stored: UnsafeRawPointer, _ count: Int) -> Float {
        var bits: UInt32 = 0
        if element == .f32 {
            for i in 0..<count {
                let value = unsafe stored.loadUnaligned(fromByteOffset: i &* 4, as: UInt32.self)
                bits = max(bits, value & 0x7FFF_FFFF)
            }
            return Float(bitPattern: bits)
        }
        var short: UInt16 = 0
        for i in 0..<count {
            let value = unsafe stored.loadUnaligned(fromByteOffset: i &* 2, as: UInt16.self)
            short = max(short, value & 0x7FFF)
        }
        return element == .f16 ? half(short) : Float(bitPattern: UInt32(short) << 16)
    }

    /// The scale of a row whose largest magnitude is `largest`.
    ///
    /// A scale below the smallest normal f32 is 0, and the row zeros: what is lost is under 127 × 2^-126.
    static func scale(forLargest largest: Float) -> Float {
        let scale = largest / 127
        return scale < .leastNormalMagnitude ? 0 : scale
    }

    /// `count` numbers as int8: divided by the row's scale, rounded half to even.
    static func quantise(
        _ element: Element, _ stored: UnsafeRawPointer, _ count: Int, scale: Float,
        into out: UnsafeMutablePointer<Int8>
    ) {
        guard scale > 0 else {
            unsafe out.update(repeating: 0, count: count)
            return
        }
        // 1.5 * 2^23: added to a number of magnitude up to 2^22 it leaves the nearest integer in the low bits.
        let round = Float(bitPattern: 0x4B40_0000)
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: strip) { values in
            guard let values = values.baseAddress else { return }
            var start = 0
            while start < count {
                let length = min(strip, count - start)
                unsafe widen(element, stored + start * element.width, length, into: values)
                let target = unsafe out + start
                for i in 0..<length {
                    let bits = unsafe (values[i] / scale + round).bitPattern
                    unsafe target[i] = Int8(truncatingIfNeeded: bits)
                }
                start += length
            }
        }
    }

    private static let strip = 2048
}
