internal import BlyanPluginKit
internal import CBlyanPlugin

extension Written {
    /// Matrices of more than one row as int8 and scales; vectors and int8 stay as they are.
    static func quantised(_ plan: [Written]) throws(PluginError) -> [Written] {
        var result: [Written] = []
        for tensor in plan {
            if tensor.type == .i8 || tensor.sizes.count != 2 || tensor.sizes[0] == 1 {
                result.append(tensor)
            } else {
                result += try tensor.quantised()
            }
        }
        return result
    }

    /// Per row: scale = max|x| / 127, values rounded half to even; a row of zeros has scale 0.
    private func quantised() throws(PluginError) -> [Written] {
        guard name.utf8.count + 6 <= Int(BLYAN_TENSOR_NAME_MAX) else {
            throw PluginError(
                BLYAN_E_ARGUMENT, "tensor \(name.prefix(100)): its scales have no name")
        }
        let (rows, columns) = (Int(sizes[0]), Int(sizes[1]))
        let values = OwnedBytes(count: rows * columns)
        let scales = OwnedBytes(count: rows * 4)
        let row = UnsafeMutableBufferPointer<Float>.allocate(capacity: columns)
        defer { unsafe row.deallocate() }
        let width = Int(type.size)
        for i in 0..<rows {
            guard let base = unsafe bytes.baseAddress,
                unsafe Conversion.convert(type, base + i * columns * width, stride: 1, to: row)
            else { throw PluginError(BLYAN_E_ARGUMENT, "tensor \(name): its data is null") }
            var largest: Float = 0
            var poison: Float = 0
            for column in 0..<columns {
                let value = unsafe row[column]
                largest = max(largest, abs(value))
                // Not-a-number and infinity times zero stay not-a-number; max would lose them.
                poison += value * 0
            }
            guard poison == 0 else {
                throw unsupported(
                    "tensor \(name) has a value that is not finite; int8 cannot hold it")
            }
            let scale = largest / 127
            unsafe scales.buffer.storeBytes(of: scale, toByteOffset: 4 * i, as: Float.self)
            for column in 0..<columns {
                let value = unsafe scale > 0 ? (row[column] / scale).rounded(.toNearestOrEven) : 0
                unsafe values.buffer[i * columns + column] = UInt8(
                    bitPattern: Int8(min(max(value, -127), 127)))
            }
        }
        return unsafe [
            Written(
                name: name, type: .i8, sizes: sizes, bytes: UnsafeRawBufferPointer(values.buffer),
                owner: values),
            Written(
                name: name + ".scale", type: .f32, sizes: [sizes[0]],
                bytes: UnsafeRawBufferPointer(scales.buffer), owner: scales),
        ]
    }
}

// Safe: memory of its own, freed with it.
/// Bytes that live as long as this object.
@safe final class OwnedBytes {
    let buffer: UnsafeMutableRawBufferPointer

    init(count: Int) { unsafe buffer = .allocate(byteCount: count, alignment: 64) }

    deinit { unsafe buffer.deallocate() }
}
