import BlyanModel
import Testing

@Suite struct TokenizerChatTests {
    private static let smolLM2System =
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    private static let qwenSystem =
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

    /// The instructions that a template always writes, wherever they stand in it.
    @Test(arguments: [
        (ChatTemplates.smolLM2, smolLM2System), (ChatTemplates.qwen25, qwenSystem),
        (ChatTemplates.variable, "Don't guess."), (ChatTemplates.qwen3, nil),
    ])
    func writesChatML(jinja: String, system: String?) throws {
        let template = try #require(ChatTemplate(jinja: jinja))
        let turn = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        let first = system.map { "<|im_start|>system\n\($0)<|im_end|>\n" } ?? ""
        #expect(template.turn("Hi", isFirst: true, system: nil) == first + turn)
        #expect(template.turn("Hi", isFirst: false, system: nil) == "<|im_end|>\n" + turn)
        #expect(
            template.turn("Hi", isFirst: true, system: "Be brief")
                == "<|im_start|>system\nBe brief<|im_end|>\n" + turn)
    }

    /// In SmolLM2's own GGUF the first token is also how each message begins, and is not added by the tokenizer.
    @Test func theFirstTokenMayBeginEveryMessage() throws {
        let template = try #require(
            ChatTemplate(
                jinja: ChatTemplates.smolLM2, begin: "<|im_start|>", end: "<|im_end|>"))
        #expect(template.defaultSystem == Self.smolLM2System)
    }

    /// What transformers' apply_chat_template writes, without the first token that the tokenizer adds.
    @Test(arguments: [
        (ChatTemplates.mixtral, "[INST] Hi [/INST]", "</s>"),
        (ChatTemplates.mistral1, "[INST] Hi [/INST]", "</s> "),
        (ChatTemplates.mistral3, "[INST] Hi[/INST]", "</s>"),
        (ChatTemplates.nemo, "[INST]Hi[/INST]", "</s>"),
    ])
    func writesMistral(jinja: String, turn: String, end: String) throws {
        let template = try #require(ChatTemplate(jinja: jinja))
        #expect(template.turn("Hi", isFirst: true, system: nil) == turn)
        #expect(template.turn("Hi", isFirst: false, system: nil) == end + turn)
        #expect(
            template.turn("Hi", isFirst: true, system: "Be brief")
                == turn.replacing("Hi", with: "Be brief\n\nHi"))
    }

    @Test(arguments: [
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}",
        "[INST] <<SYS>>\n{{ system }}\n<</SYS>>\n\n{{ prompt }} [/INST]",
        "{{ '<start_of_turn>' + role }}", "{{ message['content'] }}", "",
        // Begins the answer by itself; says the date; writes something after the last turn.
        ChatTemplates.smolLM2.replacing("assistant\n'", with: "assistant\n<think>\n'"),
        ChatTemplates.smolLM2.replacing("named SmolLM", with: "' + strftime_now('%d %b %Y') + '"),
        ChatTemplates.mixtral + "[TOOLS]",
        ChatTemplates.mixtral.replacing("' [/INST]'", with: "' [/INST]\n'"),
        "{% if", "{% for x in messages %}", "{{ 'a }}", "{{ (((( }}", "{% endif %}",
        "{% for m in messages[::0] %}{% endfor %}", "{{ 9999999999999999999 }}",
        String(repeating: "{% for a in messages %}", count: 31)
            + String(repeating: "{% endfor %}", count: 31),
        String(repeating: "{% if a %}", count: 5000), "{{ " + String(repeating: "(", count: 300),
        "{{ " + String(repeating: "not ", count: 300) + "a }}",
        "{{ " + String(repeating: "a + ", count: 3000) + "a }}",
    ]) func doesNotGuess(jinja: String) {
        #expect(ChatTemplate(jinja: jinja) == nil)
    }
}
