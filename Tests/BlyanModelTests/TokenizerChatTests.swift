import BlyanModel
import Testing

@Suite struct TokenizerChatTests {
    static let smolLM2 =
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    static let mixtral =
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"

    /// What transformers' apply_chat_template writes, without the first token that the tokenizer adds.
    @Test func writesSmolLM2() throws {
        let template = try #require(ChatTemplate(jinja: Self.smolLM2))
        #expect(
            template.turn("Hi", isFirst: true, system: nil)
                == "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        )
        #expect(
            template.turn("Hi", isFirst: true, system: "Be brief")
                == "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        )
    }

    @Test func writesMixtral() throws {
        let template = try #require(ChatTemplate(jinja: Self.mixtral))
        #expect(template.turn("Hi", isFirst: true, system: nil) == "[INST] Hi [/INST]")
        #expect(template.turn("Hi", isFirst: false, system: nil) == "</s>[INST] Hi [/INST]")
    }

    @Test(arguments: [
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}",
        "[INST] <<SYS>>\n{{ system }}\n<</SYS>>\n\n{{ prompt }} [/INST]",
        "{{ '<start_of_turn>' + role }}", "{{ message['content'] }}", "",
    ]) func doesNotGuess(jinja: String) {
        #expect(ChatTemplate(jinja: jinja) == nil)
    }
}
