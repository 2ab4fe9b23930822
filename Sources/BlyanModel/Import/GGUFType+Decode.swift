extension GGUFType {
    /// The values of consecutive blocks, in the order of operations of ggml's dequantisers.
    ///
    /// `out` takes ``blockElements`` floats a block; a type that is not quantised writes nothing.
    package func decode(
        _ stored: UnsafeRawPointer, blocks: Int, into out: UnsafeMutablePointer<Float>
    ) {
        var block = unsafe stored.assumingMemoryBound(to: UInt8.self)
        var out = unsafe out
        let (width, step) = (blockElements, blockBytes)
        for _ in 0..<blocks {
            switch self {
            case .q4_0:
                unsafe Self.decode4(block, 2, into: out, offset: -8, minimum: nil)
            case .q4_1:
                let minimum = unsafe Self.half(block, 2)
                unsafe Self.decode4(block, 4, into: out, offset: 0, minimum: minimum)
            case .q5_0:
                unsafe Self.decode5(block, 2, into: out, offset: -16, minimum: nil)
            case .q5_1:
                let minimum = unsafe Self.half(block, 2)
                unsafe Self.decode5(block, 4, into: out, offset: 0, minimum: minimum)
            case .q8_0:
                let scale = unsafe Self.half(block, 0)
                for i in 0..<32 {
                    unsafe out[i] = scale * Float(Int8(bitPattern: block[2 + i]))
                }
            case .q4_K: unsafe Self.decodeK(block, high: nil, low: block + 16, into: out)
            case .q5_K: unsafe Self.decodeK(block, high: block + 16, low: block + 48, into: out)
            case .q6_K: unsafe Self.decode6K(block, into: out)
            case .f32, .f16, .bf16: return
            }
            unsafe block += step
            unsafe out += width
        }
    }

    private static func decode4(
        _ block: UnsafePointer<UInt8>, _ head: Int, into out: UnsafeMutablePointer<Float>,
        offset: Int32, minimum: Float?
    ) {
        let scale = unsafe half(block, 0)
        for i in 0..<16 {
            let byte = unsafe Int32(block[head + i])
            unsafe out[i] = scale * Float((byte & 15) &+ offset)
            unsafe out[i + 16] = scale * Float((byte &>> 4) &+ offset)
        }
        // Not added where there is none: -0 + 0 would lose its sign.
        guard let minimum else { return }
        for i in 0..<32 { unsafe out[i] += minimum }
    }

    private static func decode5(
        _ block: UnsafePointer<UInt8>, _ head: Int, into out: UnsafeMutablePointer<Float>,
        offset: Int32, minimum: Float?
    ) {
        let scale = unsafe half(block, 0)
        let high = unsafe Int32(
            bitPattern: UInt32(
                littleEndian: UnsafeRawPointer(block).loadUnaligned(
                    fromByteOffset: head, as: UInt32.self)))
        for i in 0..<16 {
            let byte = unsafe Int32(block[head + 4 + i])
            let low = (byte & 15) | ((high &>> Int32(i)) & 1) &<< 4
            let top = (byte &>> 4) | ((high &>> Int32(i + 16)) & 1) &<< 4
            unsafe out[i] = scale * Float(low &+ offset)
            unsafe out[i + 16] = scale * Float(top &+ offset)
        }
        guard let minimum else { return }
        for i in 0..<32 { unsafe out[i] += minimum }
    }

    /// Q4_K and Q5_K: eight runs of 32 under 6-bit scales and minima, which are packed in twelve bytes.
    private static func decodeK(
        _ block: UnsafePointer<UInt8>, high: UnsafePointer<UInt8>?, low: UnsafePointer<UInt8>,
        into out: UnsafeMutablePointer<Float>
    ) {
        let (scale, minimum) = unsafe (half(block, 0), half(block, 2))
        let packed = unsafe block + 4
        for run in 0..<8 {
            let (s, m): (UInt8, UInt8)
            if run < 4 {
                (s, m) = unsafe (packed[run] & 63, packed[run + 4] & 63)
            } else {
                s = unsafe (packed[run + 4] & 15) | (packed[run - 4] &>> 6) &<< 4
                m = unsafe (packed[run + 4] &>> 4) | (packed[run] &>> 6) &<< 4
            }
            let factor = scale * Float(s)
            let shift = minimum * Float(m)
            let bytes = unsafe low + 32 * (run / 2)
            let target = unsafe out + 32 * run
            let nibble = UInt8(4 * (run & 1))
            if let high = unsafe high {
                for i in 0..<32 {
                    let bit = unsafe ((high[i] &>> UInt8(run)) & 1) &<< 4
                    unsafe target[i] = factor * Float((bytes[i] &>> nibble) & 15 | bit) - shift
                }
            } else {
                for i in 0..<32 {
                    unsafe target[i] = factor * Float((bytes[i] &>> nibble) & 15) - shift
                }
            }
        }
    }

    /// Q6_K: sixteen runs of 16 under 8-bit scales; four low bits here, two high bits there.
    private static func decode6K(
        _ block: UnsafePointer<UInt8>, into out: UnsafeMutablePointer<Float>
    ) {
        let scale = unsafe half(block, 208)
        for run in 0..<8 {
            let (part, quarter) = (run / 4, run % 4)
            let low = unsafe block + 64 * part + 32 * (quarter & 1)
            let high = unsafe block + 128 + 32 * part
            let scales = unsafe block + 192 + 2 * run
            let (nibble, pair) = (UInt8(quarter < 2 ? 0 : 4), UInt8(2 * quarter))
            for half in 0..<2 {
                let factor = unsafe scale * Float(Int8(bitPattern: scales[half]))
                for i in 16 * half..<16 * half + 16 {
                    let bits = unsafe (low[i] &>> nibble) & 15 | ((high[i] &>> pair) & 3) &<< 4
                    unsafe out[32 * run + i] = factor * Float(Int32(bits) &- 32)
                }
            }
        }
    }
}
