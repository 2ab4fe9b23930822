internal import BlyanPluginKit
internal import CBlyanPlugin

/// The header of one TensorBlock: 128 bytes.
///
/// The offsets of scales and data follow from the rest, so a header that gives others is refused.
struct BlockHeader: Equatable {
    var element: Element
    var order: Order
    var scaling: Scaling
    var rows: UInt64
    var columns: UInt64
    /// From this header to the index.
    var merkleOffset: UInt64

    /// Bytes of scales and zero points.
    var metadataLength: UInt64 { rows * scaling.bytesPerRow }
    /// From this header to the scales; 0 if there are none.
    var scaleOffset: UInt64 { scaling == .none ? 0 : Layout.headerSize }
    /// From this header to the first element.
    var dataOffset: UInt64 { Layout.aligned(Layout.headerSize + metadataLength) }
    /// Bytes of elements.
    var dataLength: UInt64 { rows * columns * UInt64(element.width) }
    /// Bytes of the whole block, a multiple of the page.
    var blockLength: UInt64 { dataOffset + Layout.aligned(dataLength) }
    /// Bytes from a row to the next, or from a column to the next.
    var stride: UInt64 { (order == .rows ? columns : rows) * UInt64(element.width) }

    func encoded() -> [UInt8] {
        var out = Layout.magic
        out.append(little: Layout.version)
        out.append(little: element.rawValue)
        out.append(little: rows)
        out.append(little: columns)
        out.append(little: order.rawValue)
        out.append(little: scaling.rawValue)
        out.append(little: scaleOffset)
        out.append(little: dataOffset)
        out.append(little: merkleOffset)
        out.append(contentsOf: [UInt8](repeating: 0, count: Layout.reservedSize))
        return out
    }

    init(
        element: Element, order: Order = .rows, scaling: Scaling = .none, rows: UInt64,
        columns: UInt64, merkleOffset: UInt64 = 0
    ) {
        self.element = element
        self.order = order
        self.scaling = scaling
        self.rows = rows
        self.columns = columns
        self.merkleOffset = merkleOffset
    }

    /// Reads a header and checks all that it alone decides.
    ///
    /// - Parameter name: what errors call the block.
    init(_ bytes: UnsafeRawBufferPointer, name: String) throws(PluginError) {
        func bad(_ what: String) -> PluginError { Layout.malformed("\(name): \(what)") }
        func unknown(_ what: String) -> PluginError {
            PluginError(BLYAN_E_UNSUPPORTED, "\(name): \(what)")
        }
        var reader = unsafe LittleEndian(bytes)
        guard reader.skip(Layout.magic) else { throw bad("the magic is not TBLOCK01") }
        guard let version: UInt32 = reader.integer(), let dtype: UInt32 = reader.integer(),
            let rows: UInt64 = reader.integer(), let columns: UInt64 = reader.integer(),
            let layout: UInt32 = reader.integer(), let method: UInt32 = reader.integer(),
            let scales: UInt64 = reader.integer(), let data: UInt64 = reader.integer(),
            let merkle: UInt64 = reader.integer()
        else { throw bad("the header has \(bytes.count) bytes, expected 128") }
        guard version == Layout.version else {
            throw unknown("version \(version), this plugin reads version \(Layout.version)")
        }
        guard let element = Element(rawValue: dtype) else {
            throw unknown("dtype code \(dtype) is not known")
        }
        guard let order = Order(rawValue: layout) else {
            throw unknown("layout code \(layout) is not known")
        }
        guard let scaling = Scaling(rawValue: method) else {
            throw unknown("quantisation code \(method) is not known")
        }
        guard reader.skipZeros(Layout.reservedSize) else {
            throw bad("reserved bytes are not zero")
        }
        self.init(
            element: element, order: order, scaling: scaling, rows: rows, columns: columns,
            merkleOffset: merkle)
        if let fault = fault() { throw PluginError(fault.status, "\(name): \(fault.message)") }
        guard scales == scaleOffset else {
            throw bad("scales at \(scales), expected \(scaleOffset)")
        }
        guard data == dataOffset else { throw bad("data at \(data), expected \(dataOffset)") }
    }

    /// Why no block can have this shape and dtype, or nil; nothing else is computed before it was asked.
    func fault() -> PluginError? {
        guard rows > 0, columns > 0 else {
            return Layout.malformed("a shape of \(rows) x \(columns) has no elements")
        }
        let (count, overflow) = rows.multipliedReportingOverflow(by: columns)
        guard !overflow, count <= Layout.dataLimit / UInt64(element.width) else {
            return PluginError(
                BLYAN_E_LIMIT,
                "a shape of \(rows) x \(columns) exceeds \(Layout.dataLimit) bytes of data")
        }
        switch (element, scaling) {
        case (.int8, .none): return Layout.malformed("int8 without scales")
        case (.f16, .none), (.bf16, .none), (.f32, .none), (.int8, _), (.f8, _): return nil
        default: return Layout.malformed("scales on dtype \(element), which has none")
        }
    }
}
