internal import CBlyanPlugin

extension Candidate {
    /// What the model is asked to go on from.
    public struct Prompt: Sendable, Equatable {
        /// A document of the draw, by its number in it; nil = the text alone.
        public var document: Int?
        /// Tokens from the beginning of that document.
        public var beginning: Int
        /// Text, behind the document where there is one.
        public var text: String

        /// Makes a prompt.
        public init(document: Int? = nil, beginning: Int = 0, text: String) {
            self.document = document
            self.beginning = beginning
            self.text = text
        }
    }

    /// What the candidate said after a prompt; losses in micro-nats.
    public struct Said: Sendable, Equatable {
        /// The ids of its tokens.
        public let tokens: [Int]
        /// What the model with the candidate thinks of its own words.
        public let candidate: Int64
        /// What the model without it thinks of them.
        public let lineage: Int64
        /// Tokens that were run, the prompt's and those that were said but the last.
        public let run: Int
        /// Those of them that the candidate served; all, where it is no expert.
        public let served: Int
    }

    /// Continues prompts greedily by `tokens` tokens each: exact, the same on every machine.
    ///
    /// - Throws: `BLYAN_E_UNSUPPORTED` if the node has no held-out text left.
    public func say(_ prompts: [Prompt], tokens: Int) throws(PluginError) -> [Said] {
        guard let service = unsafe probeService else { throw Self.missing(BLYAN_HOST_PROBE) }
        var bytes: [CChar] = []
        var raw = unsafe [blyan_prompt]()
        for prompt in prompts {
            var entry = unsafe blyan_prompt()
            unsafe entry.document = prompt.document.map { UInt64(clamping: $0) } ?? UInt64.max
            unsafe entry.beginning = UInt64(clamping: prompt.beginning)
            unsafe entry.text.size = UInt64(prompt.text.utf8.count)
            unsafe raw.append(entry)
            bytes += prompt.text.utf8.map { CChar(bitPattern: $0) }
        }
        var said = [blyan_said](repeating: blyan_said(), count: prompts.count)
        var words = [UInt32](repeating: 0, count: prompts.count * tokens)
        var error = Self.emptyError
        let status = unsafe bytes.withUnsafeBufferPointer { bytes in
            var at = bytes.baseAddress
            for i in unsafe raw.indices {
                unsafe raw[i].text.data = at
                unsafe at = at.map { unsafe $0 + Int(raw[i].text.size) }
            }
            return unsafe service.pointee.run(
                table, &raw, UInt64(raw.count), UInt32(clamping: tokens), &said, &words, &error)
        }
        try Self.check(status, error)
        return said.enumerated().map { i, said in
            Said(
                tokens: words[i * tokens..<(i + 1) * tokens].map { Int($0) },
                candidate: said.candidate_unat, lineage: said.lineage_unat, run: Int(said.run),
                served: Int(said.served))
        }
    }
}
