internal import BlyanPluginKit
public import CBlyanPlugin

/// The native format.
///
/// Page-aligned matrices that inference reads where they lie. See FORMAT.md.
final class TensorBlock: Format {
    static let name = "tensorblock"
    static let version = "1.0.0"
    static let configSchema =
        #"{"type": "object", "additionalProperties": false, "properties": {}}"#

    let host: HostServices

    init(host: HostServices, config: String) { self.host = host }

    func list(_ payload: borrowing Payload) throws(PluginError) -> [blyan_tensor] {
        var tensors: [blyan_tensor] = []
        for entry in try Directory(payload).entries {
            let header = entry.header
            var tensor = try blyan_tensor(name: entry.name)
            tensor.dtype = header.element.rawValue
            tensor.layout = header.order.rawValue
            tensor.quantisation = header.scaling.rawValue
            tensor.rows = header.rows
            tensor.columns = header.columns
            tensor.row_stride = header.stride
            tensor.data_offset = entry.offset + header.dataOffset
            tensor.data_length = header.dataLength
            if header.scaling != .none {
                tensor.scale_offset = entry.offset + header.scaleOffset
                tensor.scale_length = header.rows * 4
            }
            if header.scaling == .affine {
                tensor.zero_offset = tensor.scale_offset + tensor.scale_length
                tensor.zero_length = header.rows * 4
            }
            tensors.append(tensor)
        }
        return tensors
    }

    func decode(
        _ payload: borrowing Payload, index: Int, rows: Range<UInt64>,
        into out: UnsafeMutableBufferPointer<Float>
    ) throws(PluginError) {
        let entries = try Directory(payload).entries
        guard entries.indices.contains(index), rows.upperBound <= entries[index].header.rows else {
            throw PluginError(
                BLYAN_E_ARGUMENT, "rows \(rows) of tensor \(index) of \(entries.count)")
        }
        guard let start = out.baseAddress, !rows.isEmpty else { return }
        let rowScales = try RowScales(payload, entries[index], rows)
        try unsafe decode(payload, entries[index], rows, rowScales, start)
    }

    /// Rows of one block as f32, row after row; `out` has room for them.
    func decode(
        _ payload: borrowing Payload, _ entry: Directory.Entry, _ rows: Range<UInt64>,
        _ scales: borrowing RowScales, _ out: UnsafeMutablePointer<Float>
    ) throws(PluginError) {
        let header = entry.header
        let (count, columns) = (rows.count, Int(header.columns))
        switch header.order {
        case .rows:
            let data = try unsafe Directory.read(
                payload, entry.offset + header.dataOffset + rows.lowerBound * header.stride,
                UInt64(count) * header.stride, "block \(entry.name)")
            guard let data = data.baseAddress else { return }
            unsafe Numbers.widen(header.element, data, count * columns, into: out)
        case .columns:
            // The rows lie in every column: from the first column's first of them to the last column's last.
            let width = UInt64(header.element.width)
            let data = try unsafe Directory.read(
                payload, entry.offset + header.dataOffset + rows.lowerBound * width,
                (header.columns - 1) * header.stride + UInt64(count) * width,
                "block \(entry.name)")
            guard let data = data.baseAddress else { return }
            unsafe scatter(header, data, count, out)
        }
        guard header.scaling != .none else { return }
        for r in 0..<count {
            let row = unsafe out + r * columns
            let (scale, zero) = (scales.scale(r), scales.zero(r))
            for c in 0..<columns { unsafe row[c] = scale * (row[c] - zero) }
        }
    }

    /// Columns that begin at `data` as rows, from tiles small enough for a cache.
    private func scatter(
        _ header: BlockHeader, _ data: UnsafeRawPointer, _ rows: Int,
        _ out: UnsafeMutablePointer<Float>
    ) {
        let (columns, stride) = (Int(header.columns), Int(header.stride))
        let (tileRows, tileColumns) = (min(rows, 256), 16)
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: tileRows * tileColumns) {
            tile in
            guard let tile = tile.baseAddress else { return }
            for row in Swift.stride(from: 0, to: rows, by: tileRows) {
                let height = min(tileRows, rows - row)
                let first = unsafe data + row * header.element.width
                for column in Swift.stride(from: 0, to: columns, by: tileColumns) {
                    let count = min(tileColumns, columns - column)
                    for c in 0..<count {
                        unsafe Numbers.widen(
                            header.element, first + (column + c) * stride, height,
                            into: tile + c * tileRows)
                    }
                    for r in 0..<height {
                        let line = unsafe out + (row + r) * columns + column
                        for c in 0..<count { unsafe line[c] = tile[c &* tileRows &+ r] }
                    }
                }
            }
        }
    }

    func selfTest() throws(PluginError) { try SelfTest(self).run() }
}

// Safe: reads are within the ranges that init got from the payload, which outlives the plugin call.
/// Scales and zero points of a range of rows, checked to be numbers that scale.
@safe struct RowScales: ~Copyable {
    /// One a row of the range; nil without quantisation.
    private(set) var scales: UnsafeRawPointer?
    /// One a row of the range; nil without zero points.
    private(set) var zeros: UnsafeRawPointer?

    init(
        _ payload: borrowing Payload, _ entry: Directory.Entry, _ rows: Range<UInt64>
    ) throws(PluginError) {
        let header = entry.header
        guard header.scaling != .none, !rows.isEmpty else { return }
        let first = entry.offset + header.scaleOffset + rows.lowerBound * 4
        let length = UInt64(rows.count) * 4
        unsafe scales = try Directory.read(
            payload, first, length, "the scales of \(entry.name)"
        ).baseAddress
        if header.scaling == .affine {
            unsafe zeros = try Directory.read(
                payload, first + header.rows * 4, length, "the zero points of \(entry.name)"
            ).baseAddress
        }
        for row in 0..<rows.count {
            guard scale(row).isFinite, scale(row).sign == .plus, zero(row).isFinite
            else {
                throw Layout.malformed(
                    "block \(entry.name): row \(rows.lowerBound + UInt64(row)) has scale \(scale(row)) and zero point \(zero(row)), expected finite numbers and a scale of at least 0"
                )
            }
        }
    }

    /// The scale of row `i` of the range; 1 without quantisation.
    func scale(_ i: Int) -> Float {
        unsafe scales?.loadUnaligned(fromByteOffset: i &* 4, as: Float.self) ?? 1
    }

    /// The zero point of row `i` of the range; 0 if there is none.
    func zero(_ i: Int) -> Float {
        unsafe zeros?.loadUnaligned(fromByteOffset: i &* 4, as: Float.self) ?? 0
    }
}

private let table = PluginTable.format(TensorBlock.self, abilities: [.view, .compute, .encode])

/// The one exported symbol.
@c(blyan_plugin_entry)
public func entry() -> UnsafePointer<blyan_plugin> { unsafe table.entry }
