internal import BlyanPluginKit
internal import CBlyanPlugin

// Safe: the sizes of data and scales were compared with the shape, and all live until encode returns.
/// One block to be written: its source, and the header that the source and the options give it.
@safe struct BlockPlan {
    let name: String
    let offset: UInt64
    let header: BlockHeader
    private let stored: Element
    private let data: UnsafeRawPointer
    private let scales: UnsafeRawBufferPointer

    /// Bytes written at a time where the source's own cannot be.
    private static let pieceSize = 1 << 20

    /// Checks a source.
    ///
    /// Matrices of more than one row are quantised if asked; norms and biases stay as they are.
    init(_ source: blyan_source, _ options: EncodeOptions, offset: UInt64) throws(PluginError) {
        let name = unsafe source.text
        func bad(_ what: String) -> PluginError {
            PluginError(BLYAN_E_ARGUMENT, "tensor \(name): \(what)")
        }
        if let fault = Layout.fault(inName: name.utf8) { throw bad(fault) }
        guard unsafe source.dtype != Element.f8.rawValue,
            let stored = unsafe Element(rawValue: source.dtype)
        else {
            throw PluginError(
                BLYAN_E_UNSUPPORTED,
                "tensor \(name): dtype code \(unsafe source.dtype) cannot be written")
        }
        let (rows, columns) = unsafe (source.rows, source.columns)
        let isNamed = options.only?.contains(name)
        if isNamed == true, rows < 2 || stored == .int8 {
            throw EncodeOptions.refuse(
                "option \"only\" names \(name), which is int8 already or has one row")
        }
        let quantises = options.quantises && stored != .int8 && (isNamed ?? (rows > 1))
        let element = quantises ? .int8 : stored
        header = BlockHeader(
            element: element, order: rows > 1 ? options.order : .rows,
            scaling: element == .int8 ? .symmetric : .none, rows: rows, columns: columns)
        if let fault = header.fault() { throw bad(fault.message) }
        let (length, overflow) = (rows * columns).multipliedReportingOverflow(
            by: UInt64(stored.width))
        guard !overflow, let data = unsafe source.data.data, unsafe source.data.size == length,
            Int(exactly: length) != nil
        else {
            throw bad("\(unsafe source.data.size) bytes are not \(rows) x \(columns) of \(stored)")
        }
        unsafe scales = unsafe UnsafeRawBufferPointer(
            start: source.scales.data,
            count: source.scales.data == nil ? 0 : Int(clamping: source.scales.size))
        guard unsafe scales.count == (stored == .int8 ? Int(rows) * 4 : 0) else {
            throw bad("\(unsafe source.scales.size) bytes of scales for \(rows) rows of \(stored)")
        }
        for row in unsafe 0..<scales.count / 4 {
            let scale = unsafe scales.loadUnaligned(fromByteOffset: row * 4, as: Float.self)
            guard scale.isFinite, scale.sign == .plus else {
                throw bad("row \(row) has scale \(scale), expected a finite number of at least 0")
            }
        }
        self.name = name
        self.offset = offset
        self.stored = stored
        unsafe self.data = UnsafeRawPointer(data)
    }

    /// Writes header, scales, data and padding.
    func write(to sink: Sink, covered: UInt64, host: HostServices) throws(PluginError) {
        var header = header
        header.merkleOffset = covered - offset
        var head = header.encoded()
        let rowScales = try quantisedScales()
        for scale in rowScales { head.append(little: scale.bitPattern) }
        unsafe head.append(contentsOf: scales)
        head.append(contentsOf: [UInt8](repeating: 0, count: Int(header.dataOffset) - head.count))
        try sink.write(head)
        switch header.order {
        case .rows where stored == header.element:
            try unsafe sink.write(
                UnsafeRawBufferPointer(start: data, count: Int(header.dataLength)))
        case .rows: try writeRows(to: sink, rowScales, host)
        case .columns: try writeColumns(to: sink, rowScales, host)
        }
        let padding = Layout.aligned(header.dataLength) - header.dataLength
        if padding > 0 { try sink.write([UInt8](repeating: 0, count: Int(padding))) }
    }

    /// The scales of rows that are to be quantised; empty if none are.
    private func quantisedScales() throws(PluginError) -> [Float] {
        guard stored != header.element else { return [] }
        var scales: [Float] = []
        scales.reserveCapacity(Int(header.rows))
        let columns = Int(header.columns)
        for row in 0..<Int(header.rows) {
            let largest = unsafe Numbers.largest(
                stored, data + row * columns * stored.width, columns)
            guard largest.isFinite else {
                throw PluginError(
                    BLYAN_E_UNSUPPORTED,
                    "tensor \(name): row \(row) has a value that is not finite; int8 cannot hold it"
                )
            }
            scales.append(Numbers.scale(forLargest: largest))
        }
        return scales
    }

    /// Rows quantised a piece at a time.
    private func writeRows(
        to sink: Sink, _ rowScales: [Float], _ host: HostServices
    ) throws(PluginError) {
        let (rows, columns) = (Int(header.rows), Int(header.columns))
        let piece = UnsafeMutablePointer<Int8>.allocate(
            capacity: min(Self.pieceSize, rows * columns))
        defer { unsafe piece.deallocate() }
        var used = 0
        for row in 0..<rows {
            var column = 0
            while column < columns {
                let count = min(columns - column, Self.pieceSize - used)
                unsafe Numbers.quantise(
                    stored, data + (row * columns + column) * stored.width, count,
                    scale: rowScales[row], into: piece + used)
                column += count
                used += count
                guard used == Self.pieceSize || (row == rows - 1 && column == columns) else {
                    continue
                }
                try Self.checkCancelled(host)
                try unsafe sink.write(UnsafeRawBufferPointer(start: piece, count: used))
                used = 0
            }
        }
    }

    /// Columns gathered a band at a time, from a few rows at a time.
    private func writeColumns(
        to sink: Sink, _ rowScales: [Float], _ host: HostServices
    ) throws(PluginError) {
        let (rows, columns) = (Int(header.rows), Int(header.columns))
        let width = header.element.width
        let band = min(columns, max(1, Self.pieceSize / (rows * width)))
        let out = UnsafeMutableRawPointer.allocate(byteCount: rows * band * width, alignment: 16)
        let lines = UnsafeMutablePointer<Int8>.allocate(capacity: Transpose.rows * band)
        defer {
            unsafe out.deallocate()
            unsafe lines.deallocate()
        }
        for first in stride(from: 0, to: columns, by: band) {
            let count = min(band, columns - first)
            for row in stride(from: 0, to: rows, by: Transpose.rows) {
                let height = min(Transpose.rows, rows - row)
                var source = unsafe data + (row * columns + first) * stored.width
                var pitch = columns * stored.width
                if stored != header.element {
                    for r in 0..<height {
                        unsafe Numbers.quantise(
                            stored, source + r * pitch, count, scale: rowScales[row + r],
                            into: lines + r * count)
                    }
                    unsafe (source, pitch) = (UnsafeRawPointer(lines), count)
                }
                unsafe Transpose.gather(
                    source, pitch: pitch, rows: height, columns: count, width: width,
                    into: out + row * width, pitch: rows * width)
            }
            try Self.checkCancelled(host)
            try unsafe sink.write(UnsafeRawBufferPointer(start: out, count: rows * count * width))
        }
    }

    private static func checkCancelled(_ host: HostServices) throws(PluginError) {
        guard !host.isCancelled else {
            throw PluginError(BLYAN_E_CANCELLED, "the host asked to stop")
        }
    }
}
