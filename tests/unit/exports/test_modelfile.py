"""Ollama's Modelfile: its template gives the text of the model's own, or there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import CHATML, tiny_base, tiny_tokenizer
from tuneloop.exports import go_template
from tuneloop.exports.modelfile import modelfile
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Message

TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
GENERATION = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
DEFAULT = ("{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
           "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + TURN + "{% endfor %}" + GENERATION)
NO_SYSTEM = ("{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
             + TURN + "{% endfor %}" + GENERATION)
FOLDED = ("{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
          "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
          "{% for m in rest %}{{ '<|im_start|>' + m['role'] + '\n' + (first if loop.first else '') + "
          "(m['content'] | trim) + '<|im_end|>\n' }}{% endfor %}" + GENERATION)
THINKING = ("{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}"
            "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m['content'] + '<|im_end|>\n' }}{% else %}"
            + TURN + "{% endif %}{% endfor %}" + GENERATION)
INST = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% else %}"
        "{{ raise_exception('no') }}{% endif %}{% endfor %}")
SHOUTED = "{% for m in messages %}{{ m['content'] | upper }}<|im_end|>{% endfor %}"
COUNTED = "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}<|im_end|>{% endfor %}"
BRACES = "{% for m in messages %}{{ '{{' }}{{ m['content'] }}<|im_end|>{% endfor %}"
CHAT = [Message("user", "One?"), Message("assistant", "1"), Message("user", "Two?\n")]


def chat_tokenizer(folder: Path, template: str | None) -> ChatTokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return ChatTokenizer(folder)


def template_of(text: str) -> str:
    return text.split('TEMPLATE """')[1].removesuffix('"""\n')


@pytest.mark.parametrize("template", [CHATML, DEFAULT, NO_SYSTEM, FOLDED, THINKING, INST, None],
                         ids=["chatml", "default", "no system", "folded", "thinking", "inst", "plain"])
def test_the_template_gives_the_same_text(template: str | None, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(tmp_path, template)
    text, note = modelfile(tokenizer, "model.gguf")
    assert text.startswith('FROM ./model.gguf\nPARAMETER stop "<|im_end|>"\n')
    chats = [CHAT[:1], CHAT]
    if template in (NO_SYSTEM, INST):
        assert "no system message" in note
    else:
        chats += [[Message("system", "Short."), *chat] for chat in chats]
    trimmed = "cuts white space" in note
    assert trimmed == (template is FOLDED)
    for chat in chats:
        chat = [Message(m.role, m.content.strip()) for m in chat] if trimmed else chat
        assert go_template.render(template_of(text), chat) == tokenizer.prompt_text(chat)


@pytest.mark.parametrize("template", [SHOUTED, COUNTED, BRACES], ids=["shouted", "counted", "braces"])
def test_a_template_of_another_shape_is_left_out(template: str, tmp_path: Path) -> None:
    text, note = modelfile(chat_tokenizer(tmp_path, template), "model.gguf")
    assert "TEMPLATE" not in text
    assert "inside the GGUF file" in note


def test_a_beginning_of_text_that_is_added_anyway_is_not_written_twice(tmp_path: Path) -> None:
    from tokenizers import processors

    inner = tiny_tokenizer()
    inner.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", inner.bos_token_id)])
    inner.chat_template = INST
    inner.save_pretrained(tmp_path)
    tokenizer = ChatTokenizer(tmp_path)
    written = template_of(modelfile(tokenizer, "model.gguf")[0])
    assert "<|im_start|>" + go_template.render(written, CHAT) == tokenizer.prompt_text(CHAT)


def test_the_interpreter_reads_what_go_reads() -> None:
    template = ('{{ $before := "" }}{{ range $i, $m := .Messages }}{{ if and (eq $i 0) (ne .Role "user") }}A'
                '{{ else if eq $before "user" }}B{{ else }}C{{ end }}{{ .Content }}{{ $before = .Role }}{{ end }}')
    assert go_template.render(template, CHAT) == "COne?B1CTwo?\n"
    with pytest.raises(ValueError, match="printf"):
        go_template.render('{{ printf "x" }}', CHAT)


def test_a_base_on_disk(tmp_path: Path) -> None:
    text, _ = modelfile(ChatTokenizer(tiny_base(tmp_path)), "a.gguf")
    assert text.count("{{ end }}") == template_of(text).count("{{ if") + 1
