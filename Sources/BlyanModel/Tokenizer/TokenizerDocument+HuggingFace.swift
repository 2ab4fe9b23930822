internal import Foundation

extension TokenizerDocument {
    /// Reads the `tokenizer.json` of a Hugging Face directory, and end tokens and chat template from the files beside it.
    ///
    /// - Throws: ``ModelError`` naming every component that changes the result and that this build does not have.
    package init(huggingFace directory: String) throws(ModelError) {
        let path = "\(directory)/tokenizer.json"
        guard FileManager.default.fileExists(atPath: path) else {
            throw ModelError(
                "\(directory) has no tokenizer.json",
                hint: "save the tokenizer in its fast form, tokenizer.json")
        }
        let source = TokenizerSource(path: path, json: try JSONDocument(file: path))
        self = try source.document()
        try addNeighbours(directory)
    }

    /// End tokens from `generation_config.json` or `config.json`, the chat template from `tokenizer_config.json`.
    private mutating func addNeighbours(_ directory: String) throws(ModelError) {
        func read(_ name: String) throws(ModelError) -> JSONDocument? {
            let path = "\(directory)/\(name)"
            return FileManager.default.fileExists(atPath: path) ? try JSONDocument(file: path) : nil
        }
        for name in ["generation_config.json", "config.json"] {
            guard let ends = try read(name)?["eos_token_id"], !ends.isNull else { continue }
            endTokens = (ends.array ?? [ends]).compactMap(\.int)
            break
        }
        let settings = try read("tokenizer_config.json")
        let model = try read("config.json")?["model_type"]?.string
        try checkPrefixSpace(settings, model: model, in: "\(directory)/tokenizer_config.json")
        func token(_ key: String) -> String? {
            settings?[key]?.string ?? settings?[key]?["content"]?.string
        }
        if let name = token("eos_token"), let id = pieces.firstIndex(of: name),
            !endTokens.contains(id)
        {
            endTokens.append(id)
        }
        // Of several templates, the one for plain conversation; a file beside counts for more, as in transformers.
        let written = settings?["chat_template"]
        var jinja =
            written?.string
            ?? written?.array?.first { $0["name"]?.string == "default" }?["template"]?.string
        if let data = FileManager.default.contents(atPath: "\(directory)/chat_template.jinja") {
            jinja = String(decoding: data, as: UTF8.self)
        }
        setChat(jinja: jinja, begin: token("bos_token"), end: token("eos_token"))
    }

    /// Refuses an `add_prefix_space` that contradicts `tokenizer.json` where transformers follows it.
    ///
    /// That is for the tokenizer classes that it builds itself. All others, and `add_bos_token` and `add_eos_token`
    /// beside a `tokenizer.json`, change nothing there (transformers 5; Tests/Conformance/tokenizer_settings.py).
    private func checkPrefixSpace(
        _ settings: JSONDocument?, model: String?, in path: String
    ) throws(ModelError) {
        guard let wanted = settings?["add_prefix_space"]?.bool,
            var name = settings?["tokenizer_class"]?.string
        else { return }
        if name.hasSuffix("Fast") { name.removeLast(4) }
        let isByteLevel = kind == .byteLevelBPE
        let isFollowed: Bool
        switch name {
        // Mistral's models and byte-level files are read as they stand whatever the class says.
        case "LlamaTokenizer": isFollowed = !isByteLevel && model != "mistral" && model != "mixtral"
        case "GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer": isFollowed = isByteLevel
        default: isFollowed = false
        }
        let isAdded =
            normalizers.contains(.prepend("▁"))
            || steps.contains { step in
                if case .metaspace(let prefix) = step { prefix != .never } else { step == .space }
            }
        guard isFollowed, isAdded != wanted else { return }
        throw ModelError(
            "\(path): add_prefix_space is \(wanted), but tokenizer.json \(isAdded ? "adds" : "does not add") a space",
            hint:
                "save the tokenizer again with one of the two, or remove the field to follow tokenizer.json"
        )
    }
}

/// A `tokenizer.json` on its way to a document.
private struct TokenizerSource {
    typealias Key = JSONDocument.Key

    let path: String
    let json: JSONDocument

    private func unknown(_ component: String, _ value: JSONDocument?) -> ModelError {
        ModelError(
            "\(path): \(component) \(value?.summary ?? "") is not one that this build computes")
    }

    func document() throws(ModelError) -> TokenizerDocument {
        guard let model = json["model"], let vocabulary = model["vocab"]?.members else {
            throw ModelError("\(path) has no model with a vocab")
        }
        guard try (model.text("type") ?? "BPE") == "BPE" else {
            throw unknown("model type", model["type"])
        }
        for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
            guard let value = model[key], !value.isNull, value.string != "", value.double != 0
            else { continue }
            throw unknown("model.\(key)", value)
        }
        var document = TokenizerDocument(kind: .piecesBPE, pieces: try pieces(vocabulary))
        document.merges = try merges(model["merges"])
        document.ignoresMerges = try model.flag("ignore_merges", default: false)
        document.fusesUnknown = try model.flag("fuse_unk", default: false)
        document.fallsBackOnBytes = try model.flag("byte_fallback", default: false)
        if let name = try model.text("unk_token") {
            guard let id = vocabulary[Key(text: name)]?.int else {
                throw unknown("unk_token", model["unk_token"])
            }
            document.unknown = id
        }
        try readNormalizer(json["normalizer"], &document)
        try readPreTokenizer(json["pre_tokenizer"], &document)
        if document.steps.contains(.bytes) {
            document.kind = .byteLevelBPE
            guard !document.fallsBackOnBytes else {
                throw ModelError(
                    "\(path): byte_fallback together with ByteLevel is not one that this build computes"
                )
            }
        }
        try readDecoder(json["decoder"], &document)
        try readAdded(&document, vocabulary)
        try readPostProcessor(json["post_processor"], &document)
        return document
    }

    private func pieces(_ vocabulary: [Key: JSONDocument]) throws(ModelError) -> [String] {
        var entries: [(Int, String)] = []
        var seen: [Int: String] = [:]
        // Room for padding, none for a number that makes the table of pieces much larger than the file.
        let limit = try 4 * (vocabulary.count + json.list("added_tokens").count) + 65_536
        for (key, value) in vocabulary {
            guard let id = value.int, id >= 0, id < limit else {
                throw unknown("vocabulary id of \"\(key.text)\":", value)
            }
            entries.append((id, key.text))
        }
        for token in try json.list("added_tokens") {
            guard let id = token["id"]?.int, id >= 0, id < limit,
                let text = token["content"]?.string,
                vocabulary[Key(text: text)].map({ $0.int == id }) ?? true
            else { throw unknown("added token", token) }
            entries.append((id, text))
        }
        var pieces = [String](repeating: "", count: (entries.map(\.0).max() ?? -1) + 1)
        for (id, piece) in entries {
            if let other = seen.updateValue(piece, forKey: id), Key(text: other) != Key(text: piece)
            {
                throw ModelError("\(path): id \(id) stands for \"\(other)\" and \"\(piece)\"")
            }
            pieces[id] = piece
        }
        return pieces
    }

    private func merges(_ value: JSONDocument?) throws(ModelError) -> [String] {
        guard let items = value?.array else { throw ModelError("\(path) has no model.merges") }
        var merges: [String] = []
        merges.reserveCapacity(items.count)
        for item in items {
            if let text = item.string {
                merges.append(text)
            } else if let pair = item.array, pair.count == 2, let left = pair[0].string,
                let right = pair[1].string, !left.utf8.contains(32), !right.utf8.contains(32)
            {
                merges.append("\(left) \(right)")
            } else {
                throw unknown("merge", item)
            }
        }
        return merges
    }

    private func steps(
        _ value: JSONDocument?, _ list: String
    ) throws(ModelError) -> [JSONDocument] {
        guard let value, !value.isNull else { return [] }
        guard value["type"]?.string == "Sequence" else { return [value] }
        guard let steps = value[list]?.array else { throw unknown("Sequence", value) }
        return steps
    }

    private func readNormalizer(_ value: JSONDocument?, _ document: inout TokenizerDocument)
        throws(ModelError)
    {
        for step in try steps(value, "normalizers") {
            switch step["type"]?.string {
            case "NFC": document.normalizers.append(.formC)
            case "Prepend":
                guard let text = step["prepend"]?.string else { throw unknown("Prepend", step) }
                document.normalizers.append(.prepend(text))
            case "Replace":
                guard let old = step["pattern"]?["String"]?.string, !old.isEmpty,
                    let new = step["content"]?.string
                else { throw unknown("Replace pattern", step["pattern"]) }
                document.normalizers.append(.replace(old, with: new))
            default: throw unknown("normalizer", step["type"] ?? step)
            }
        }
    }

    private func readPreTokenizer(_ value: JSONDocument?, _ document: inout TokenizerDocument)
        throws(ModelError)
    {
        for step in try steps(value, "pretokenizers") {
            switch step["type"]?.string {
            case "ByteLevel":
                guard !document.steps.contains(.bytes) else {
                    throw unknown("second", step["type"])
                }
                if try step.flag("add_prefix_space", default: true) {
                    document.steps.append(.space)
                }
                if try step.flag("use_regex", default: true) {
                    document.steps.append(.split(TokenizerDocument.gpt2Pattern))
                }
                document.steps.append(.bytes)
            case "Digits":
                let isSingle = try step.flag("individual_digits", default: false)
                document.steps.append(.split(isSingle ? #"\p{N}"# : #"\p{N}+"#))
            case "Punctuation":
                // ASCII punctuation, symbols among it, and every punctuation of Unicode.
                let mark = #"[\p{P}$+<=>^`|~]"#
                switch try step.text("behavior") ?? "Isolated" {
                case "Isolated": document.steps.append(.split(mark))
                case "Contiguous": document.steps.append(.split(mark + "+"))
                default: throw unknown("Punctuation behavior", step["behavior"])
                }
            case "Split": document.steps.append(.split(try splitPattern(step)))
            case "Metaspace":
                guard try (step.text("replacement") ?? "▁") == "▁" else {
                    throw unknown("Metaspace replacement", step["replacement"])
                }
                document.steps.append(.metaspace(try prefix(step)))
                if try step.flag("split", default: true) { document.steps.append(.split("▁[^▁]*")) }
            default: throw unknown("pre-tokenizer", step["type"] ?? step)
            }
        }
    }

    private func splitPattern(_ step: JSONDocument) throws(ModelError) -> String {
        guard step["behavior"]?.string == "Isolated" else {
            throw unknown("Split behavior", step["behavior"])
        }
        guard try !step.flag("invert", default: false) else {
            throw unknown("Split invert", step["invert"])
        }
        if let pattern = step["pattern"]?["Regex"]?.string { return pattern }
        guard let text = step["pattern"]?["String"]?.string, !text.isEmpty else {
            throw unknown("Split pattern", step["pattern"])
        }
        return text.unicodeScalars.map { scalar in
            let isPlain =
                !scalar.isASCII || scalar == " " || scalar.properties.isAlphabetic
                || scalar.properties.numericType != nil || scalar.value < 32
            return isPlain ? String(scalar) : "\\\(scalar)"
        }.joined()
    }

    private func prefix(_ metaspace: JSONDocument) throws(ModelError) -> TokenizerDocument.Prefix {
        guard let name = try metaspace.text("prepend_scheme") else {
            return try metaspace.flag("add_prefix_space", default: true) ? .always : .never
        }
        guard let scheme = TokenizerDocument.Prefix(rawValue: name) else {
            throw unknown("Metaspace prepend_scheme", metaspace["prepend_scheme"])
        }
        return scheme
    }

    private func readDecoder(_ value: JSONDocument?, _ document: inout TokenizerDocument)
        throws(ModelError)
    {
        for step in try steps(value, "decoders") {
            switch step["type"]?.string {
            case "ByteLevel" where document.kind == .byteLevelBPE: continue
            case "Metaspace" where document.kind == .piecesBPE:
                document.firstSpace = try prefix(step) == .never ? .kept : .droppedFromToken
            case "Replace"
            where document.kind == .piecesBPE && step["pattern"]?["String"]?.string == "▁"
                && step["content"]?.string == " ":
                continue
            case "ByteFallback" where document.kind == .piecesBPE: continue
            case "Fuse": continue
            case "Strip"
            where step["content"]?.string == " " && step["start"]?.int == 1
                && step["stop"]?.int == 0:
                document.firstSpace = .dropped
            default: throw unknown("decoder", step["type"] ?? step)
            }
        }
    }

    private func readAdded(
        _ document: inout TokenizerDocument, _ vocabulary: [Key: JSONDocument]
    ) throws(ModelError) {
        for token in try json.list("added_tokens") {
            guard let id = token["id"]?.int, let text = token["content"]?.string else {
                throw unknown("added token", token)
            }
            let isSpecial = try token.flag("special", default: false)
            document.added.append(
                TokenizerDocument.Added(
                    id: id, text: text, special: isSpecial,
                    stripsLeft: try token.flag("lstrip", default: false),
                    stripsRight: try token.flag("rstrip", default: false),
                    singleWord: try token.flag("single_word", default: false),
                    normalised: try token.flag("normalized", default: !isSpecial),
                    isPiece: vocabulary[Key(text: text)] != nil))
        }
    }

    private func readPostProcessor(_ value: JSONDocument?, _ document: inout TokenizerDocument)
        throws(ModelError)
    {
        for step in try steps(value, "processors") {
            switch step["type"]?.string {
            case "ByteLevel": continue
            case "TemplateProcessing":
                var isBefore = true
                for item in try step.list("single") {
                    if item["Sequence"] != nil {
                        isBefore = false
                    } else if let name = item["SpecialToken"]?["id"]?.string,
                        let ids = step["special_tokens"]?[name]?["ids"]?.array?.compactMap(\.int)
                    {
                        if isBefore { document.prefix += ids } else { document.suffix += ids }
                    } else {
                        throw unknown("post-processor item", item)
                    }
                }
            default: throw unknown("post-processor", step["type"] ?? step)
            }
        }
    }
}
