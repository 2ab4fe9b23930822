extension TokenizerDocument {
    /// Token types of ggml (llama.h, `llama_token_type`).
    private enum TokenType { static let unknown = 2, control = 3, userDefined = 4 }

    /// Reads the tokenizer of a GGUF file at a path; see ``init(gguf:)-(GGUFMetadata)``.
    package init(gguf path: String) throws(ModelError) {
        try self.init(gguf: GGUFMetadata(GGUFFile(path: path)))
    }

    /// Reads the tokenizer of a GGUF file, to be computed as llama.cpp does.
    ///
    /// - Throws: ``ModelError`` naming a model or pre-tokenizer that this build does not compute.
    init(gguf metadata: GGUFMetadata) throws(ModelError) {
        guard let pieces = try metadata.strings("tokenizer.ggml.tokens"),
            let model = try metadata.string("tokenizer.ggml.model")
        else { throw ModelError("\(metadata.path) has no tokenizer") }
        let types = try metadata.ints("tokenizer.ggml.token_type") ?? []
        guard types.isEmpty || types.count == pieces.count else {
            throw ModelError(
                "\(metadata.path): \(types.count) token types for \(pieces.count) tokens")
        }
        self.init(kind: .byteLevelBPE, pieces: pieces)
        unknown = try metadata.int("tokenizer.ggml.unknown_token_id")
        matchesLongestFirst = true
        var impliesBegin = false
        switch model {
        case "gpt2":
            let name = try metadata.string("tokenizer.ggml.pre") ?? "default"
            guard let known = Self.preTokenizers[name] else {
                throw ModelError(
                    "\(metadata.path): the pre-tokenizer \"\(name)\" is not one that this build computes",
                    hint: "known: \(Self.preTokenizers.keys.sorted().joined(separator: ", "))")
            }
            steps = known.patterns.map { .split($0) } + [.bytes]
            ignoresMerges = known.ignoresMerges
            impliesBegin = known.addsBegin
            guard let merges = try metadata.strings("tokenizer.ggml.merges") else {
                throw ModelError("\(metadata.path) has no tokenizer.ggml.merges")
            }
            self.merges = merges
        case "llama":
            kind = .piecesScores
            impliesBegin = true
            guard let scores = try metadata.doubles("tokenizer.ggml.scores"),
                scores.count == pieces.count
            else {
                throw ModelError("\(metadata.path) has no score for each token")
            }
            self.scores = scores.map { Float($0) }
            guard self.scores.allSatisfy(\.isFinite) else {
                throw ModelError("\(metadata.path) has a score that is not finite")
            }
            unknown = unknown ?? 0
            if try metadata.bool("tokenizer.ggml.add_space_prefix") ?? true {
                firstSpace = .dropped
                normalizers.append(.prepend("▁"))
            }
            normalizers.append(.replace(" ", with: "▁"))
        default:
            throw ModelError(
                "\(metadata.path): the tokenizer model \"\(model)\" is not one that this build computes",
                hint: "known: gpt2, llama")
        }
        for key in ["add_sep_token", "remove_extra_whitespaces", "escape_whitespaces"]
        where try metadata.bool("tokenizer.ggml.\(key)") == true {
            throw ModelError(
                "\(metadata.path): tokenizer.ggml.\(key) is not one that this build computes")
        }
        for (id, type) in types.enumerated()
        where type == TokenType.control || type == TokenType.userDefined
            || type == TokenType.unknown
        {
            guard !pieces[id].isEmpty else { continue }
            added.append(
                Added(
                    id: id, text: pieces[id], special: type != TokenType.userDefined))
        }
        stripAsPhi3(try metadata.string("general.name") ?? "")
        try addEnds(metadata, isPieces: model == "llama", impliesBegin: impliesBegin)
        func text(_ key: String) throws(ModelError) -> String? {
            guard let id = try metadata.int("tokenizer.ggml.\(key)_token_id"),
                pieces.indices.contains(id)
            else { return nil }
            return pieces[id]
        }
        try setChat(
            jinja: metadata.string("tokenizer.chat_template"), begin: text("bos"), end: text("eos"))
    }

    /// Ids that encoding adds by itself, and those that end an answer.
    private mutating func addEnds(
        _ metadata: GGUFMetadata, isPieces: Bool, impliesBegin: Bool
    ) throws(ModelError) {
        func id(_ key: String) throws(ModelError) -> Int? {
            guard let id = try metadata.int("tokenizer.ggml.\(key)_token_id") else { return nil }
            guard pieces.indices.contains(id) else {
                throw ModelError(
                    "\(metadata.path): \(key)_token_id is \(id), there are \(pieces.count) tokens")
            }
            return id
        }
        let begin = try id("bos") ?? (isPieces ? 1 : nil)
        let end = try id("eos") ?? (isPieces ? 2 : nil)
        let addsBegin = try metadata.bool("tokenizer.ggml.add_bos_token") ?? impliesBegin
        if addsBegin, let begin { prefix = [begin] }
        if try metadata.bool("tokenizer.ggml.add_eos_token") ?? false, let end { suffix = [end] }
        endTokens = [end, try id("eot")].compactMap { $0 }
        for name in ["<|im_end|>", "<|eot_id|>", "<|end|>"] {
            if let found = added.first(where: { $0.text == name && $0.special })?.id,
                !endTokens.contains(found)
            {
                endTokens.append(found)
            }
        }
    }

    /// GGUF has no field for swallowed white space; llama.cpp goes by the model's name.
    private mutating func stripAsPhi3(_ name: String) {
        let name = name.lowercased()
        guard name.contains("phi-3") || name.contains("phi3") else { return }
        for i in added.indices {
            added[i].stripsRight = !["<unk>", "<s>", "<|endoftext|>"].contains(added[i].text)
        }
    }
}
