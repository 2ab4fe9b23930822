/// Reads a canonical header line in one pass, key after key in their canonical order.
///
/// It takes only what needs no thought (plain ASCII text, no escapes) and answers nil for everything else, valid or not:
/// the general reader then decides, and words the error. What it takes is canonical by construction.
struct HeaderScanner {
    private let line: [UInt8]
    private var at = 0
    /// Where `"payload_sig":"…",` stands: the bytes that are not hashed.
    private var signatureField = 0..<0

    /// The header, its hash and its signature, or nil.
    static func scan(_ line: [UInt8]) -> (header: BlockHeader, hash: Digest, signature: [UInt8])? {
        var scanner = HeaderScanner(line: line)
        guard let (header, signature) = scanner.header() else { return nil }
        var hasher = SHA256()
        let (first, last) = (scanner.signatureField.lowerBound, scanner.signatureField.upperBound)
        unsafe line.withUnsafeBytes { bytes in
            unsafe hasher.update(UnsafeRawBufferPointer(rebasing: bytes[..<first]))
            unsafe hasher.update(UnsafeRawBufferPointer(rebasing: bytes[last...]))
        }
        return (header, hasher.finalize(), signature)
    }

    private init(line: [UInt8]) { self.line = line }

    private mutating func header() -> (BlockHeader, [UInt8])? {
        var header = BlockHeader(chainID: "", blockType: "", index: 0, previous: nil, timestamp: 0)
        guard take("{\"block_type\":"), let blockType = name(), take(",\"chain_id\":"),
            let chainID = name(),
            take(",\"depends_on\":["), dependencies(into: &header), take("],\"difficulty\":"),
            let difficulty = natural(), take(",\"expert_name\":"), let expertName = name(),
            take(",\"index\":"),
            let index = natural(), take(",\"layer_id\":"), let layerID = natural(),
            take(",\"merkle_root\":"),
            digest(&header.merkleRoot), take(",\"metadata\":"), metadata(&header.metadata),
            take(",\"miner_pub\":\""), let miner = hex(66), take("\",\"nonce\":"),
            let nonce = name(),
            nonce.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }), nonce == "0" || !nonce.hasPrefix("0"),
            nonce.utf8.count <= 20, take(",\"payload_hash\":"), digest(&header.payloadHash)
        else { return nil }
        let start = at
        guard take(",\"payload_sig\":\""),
            let signature = hex(128).flatMap({ Hex.decode($0, count: 64) }),
            take("\"")
        else { return nil }
        signatureField = start..<at
        guard take(",\"payload_size\":"), let payloadSize = natural(), take(",\"payload_type\":"),
            let payloadType = name(), take(",\"prev_hash\":"), digest(&header.previous),
            take(",\"timestamp\":"),
            let timestamp = natural(), take(",\"version\":"), let version = name(), take("}"),
            at == line.count
        else { return nil }
        header.blockType = blockType
        header.chainID = chainID
        header.difficulty = difficulty
        header.expertName = expertName
        header.index = index
        header.layerID = layerID
        header.miner = miner
        header.nonce = nonce
        header.payloadSize = payloadSize
        header.payloadType = payloadType
        header.timestamp = timestamp
        header.version = version
        return (header, signature)
    }

    private mutating func take(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard count <= line.count - at else { return false }
        for i in 0..<count where line[at + i] != (unsafe text.utf8Start[i]) { return false }
        at += count
        return true
    }

    /// A quoted text of printable ASCII without quotes and backslashes, within the limit of names.
    private mutating func name() -> String? {
        guard at < line.count, line[at] == UInt8(ascii: "\"") else { return nil }
        let start = at + 1
        var end = start
        while end < line.count, line[end] != UInt8(ascii: "\"") {
            let byte = line[end]
            guard byte >= 32, byte < 127, byte != UInt8(ascii: "\\") else { return nil }
            end += 1
        }
        guard end < line.count, end - start <= BlockHeader.Limit.name else { return nil }
        at = end + 1
        return String(decoding: line[start..<end], as: UTF8.self)
    }

    private mutating func natural() -> Int64? {
        let start = at
        var value: Int64 = 0
        while at < line.count, line[at] >= 48, line[at] <= 57 {
            value = value * 10 + Int64(line[at] - 48)
            at += 1
            guard value <= JSONValue.integers.upperBound else { return nil }
        }
        guard at > start, line[start] != 48 || at == start + 1 else { return nil }
        return value
    }

    /// So many lower-case hex digits.
    private mutating func hex(_ count: Int) -> String? {
        guard count <= line.count - at else { return nil }
        for byte in line[at..<at + count]
        where !(48...57).contains(byte) && !(97...102).contains(byte) { return nil }
        at += count
        return String(decoding: line[at - count..<at], as: UTF8.self)
    }

    /// A quoted digest or "".
    private mutating func digest(_ out: inout Digest?) -> Bool {
        if take("\"\"") { return true }
        guard take("\""), let digest = Digest(hexDigits: line, at: at) else { return false }
        at += 64
        out = digest
        return take("\"")
    }

    private mutating func dependencies(into header: inout BlockHeader) -> Bool {
        while at < line.count, line[at] != UInt8(ascii: "]") {
            if !header.dependsOn.isEmpty, !take(",") { return false }
            var digest: Digest?
            guard self.digest(&digest), let digest, header.dependsOn.count < 64,
                !header.dependsOn.contains(digest)
            else { return false }
            header.dependsOn.append(digest)
        }
        return true
    }

    /// An object of plain texts and natural numbers, its keys in ascending order.
    private mutating func metadata(_ out: inout [String: JSONValue]) -> Bool {
        guard take("{") else { return false }
        if take("}") { return true }
        var last: String?
        repeat {
            guard let key = name(), last.map({ $0 < key }) ?? true, take(":") else { return false }
            if at < line.count, line[at] == UInt8(ascii: "\"") {
                guard let text = name() else { return false }
                out[key] = .string(text)
            } else {
                guard let number = natural() else { return false }
                out[key] = .int(number)
            }
            last = key
        } while take(",")
        return take("}")
    }
}
