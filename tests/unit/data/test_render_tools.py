"""The loss mask of rows with tools: calls carry loss whole, tools and their answers none, and templates are proven."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import CHATML, TURN_END, tiny_tokenizer
from tuneloop.data.render import RenderProblem, render, specials_in, would_cut
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Media, Message, Origin, Prompt, Rendered, Text, ToolCall

Make = Callable[..., ChatTokenizer]

TOOLS_FIRST = (
    "{%- if tools -%}<|im_start|>system\n# Tools\n{%- for tool in tools %}\n{{ tool | tojson }}{% endfor -%}"
    "<|im_end|>\n{% endif -%}")
CALLS = (
    "{%- for call in message.tool_calls or [] %}\n<tool_call>\n"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n</tool_call>{% endfor -%}")
CODER = (       # as Qwen3-Coder writes calls: every argument on lines of its own
    "{%- for call in message.tool_calls or [] %}\n<function={{ call.function.name }}>"
    "{%- for name, value in call.function.arguments.items() -%}"
    "<parameter={{ name }}>{{ value }}</parameter>{%- endfor -%}"
    "{% endfor -%}")
TOLD = (
    "{%- elif message.role == 'tool' -%}<|im_start|>user\n"
    "<tool_response>{{ message.content }}</tool_response><|im_end|>\n")


def hermes(tools: str = TOOLS_FIRST, calls: str = CALLS, told: str = TOLD, end: str = TURN_END) -> str:
    """A template like those of Hermes and Qwen, whose parts may be exchanged; `end` closes a turn that calls."""
    return (tools + "{%- for message in messages -%}{%- if message.role == 'assistant' -%}<|im_start|>assistant\n"
            "{{ message.content }}" + calls + "{{ '" + end + "' if message.tool_calls else '<|im_end|>' }}\n" + told +
            "{%- else -%}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{%- endif -%}{%- endfor -%}"
            "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}")


TOOL = '{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}'
ROME = ToolCall("weather", '{"city": "Rome \\"é\\"", "days": 3, "hourly": false}', "c1")
OSLO = ToolCall("weather", '{"city": "Oslo"}', "c2")
ROME_TEXT = ('<tool_call>\n{"name": "weather", "arguments": {"city": "Rome \\"é\\"", "days": 3, "hourly": false}}\n'
             "</tool_call>")
OSLO_TEXT = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
TURNS = (Message("user", "How is the weather?"), Message("assistant", "", calls=(ROME, OSLO)),
         Message("tool", "sunny", call_id="c1", name="weather"), Message("tool", "rain", call_id="c2", name="weather"),
         Message("assistant", "Sun and rain."), Message("user", "And now?"),
         Message("assistant", "Let me see.", calls=(OSLO,)))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def chat_tokenizer(template: str) -> ChatTokenizer:
        inner = tiny_tokenizer(chat_template=False)
        inner.chat_template = template
        inner.save_pretrained(tmp_path)
        return ChatTokenizer(tmp_path)
    return chat_tokenizer


def row(*turns: Message, tools: tuple[str, ...] = (TOOL,)) -> Conversation:
    return Conversation(turns or TURNS, Origin("rows.jsonl", 7), tools)


def rendered(c: Conversation, tokenizer: ChatTokenizer) -> Rendered:
    [found] = render([c], tokenizer)
    assert isinstance(found, Rendered), found
    return found


def problem(c: Conversation, tokenizer: ChatTokenizer) -> str:
    [found] = render([c], tokenizer)
    assert isinstance(found, RenderProblem)
    assert found.origin == c.origin
    return found.message


def supervised(found: Rendered, tokenizer: ChatTokenizer) -> list[str]:
    borders = np.flatnonzero(np.diff(found.weights, prepend=0, append=0))
    return [tokenizer.decode(found.ids[a:b].tolist()) for a, b in zip(borders[::2], borders[1::2], strict=True)]


def test_calls_carry_loss_with_their_end_of_turn_and_nothing_else_does(make: Make) -> None:
    tokenizer = make(hermes())
    found = rendered(row(), tokenizer)
    assert supervised(found, tokenizer) == [ROME_TEXT + OSLO_TEXT + TURN_END, f"Sun and rain.{TURN_END}",
                                            f"Let me see.{OSLO_TEXT}{TURN_END}"]
    whole = tokenizer.decode(found.ids.tolist())
    assert whole.startswith(f"<|im_start|>system\n# Tools{TOOL}<|im_end|>\n<|im_start|>user\nHow is the weather?")
    assert "<tool_response>sunny</tool_response>" in whole


def test_the_prompt_of_every_turn_is_that_of_inference(make: Make) -> None:
    tokenizer = make(hermes())
    found = rendered(row(), tokenizer)
    for i in (1, 4, 6):
        prompt = tokenizer.encode([tokenizer.prompt_text(TURNS[:i], [TOOL])])[0]
        assert found.ids[:len(prompt)].tolist() == prompt
        assert found.weights[len(prompt) - 1:len(prompt) + 1].tolist() == [0, 1]


def test_a_call_without_loss_is_part_of_the_prompt(make: Make) -> None:
    tokenizer = make(hermes())
    turns = (TURNS[0], Message("assistant", "", False, (OSLO,)), *TURNS[3:5])
    assert supervised(rendered(row(*turns), tokenizer), tokenizer) == [f"Sun and rain.{TURN_END}"]


def test_arguments_may_be_written_in_the_templates_own_way(make: Make) -> None:
    tokenizer = make(hermes(calls=CODER))
    found = rendered(row(TURNS[0], Message("assistant", "", calls=(ROME,))), tokenizer)
    assert supervised(found, tokenizer) == [
        '<function=weather><parameter=city>Rome "é"</parameter><parameter=days>3</parameter>'
        f"<parameter=hourly>False</parameter>{TURN_END}"]


@pytest.mark.parametrize(("template", "told"), [
    (hermes(tools=""), "the base's chat template shows no tools: weather is not in the prompt"),
    (hermes(calls=""), "the base's chat template shows no calls: that of weather is not in what the model would learn"),
    (hermes(calls=CALLS.replace("call.function.arguments", "{}")), "shows no calls: that of weather"),
    (hermes(told="{%- elif message.role == 'tool' -%}"), "leaves out what a tool answered, 'sunny'"),
    (hermes(end="<|endoftext|>"), "a turn that calls a function is not found with its end of turn, '<|im_end|>'"),
    (hermes().replace("{{ message.content }}" + CALLS, "{{ message.content if not message.tool_calls }}" + CALLS),
     "leaves out the text beside a call, 'Let me see.'"),
    (CHATML, "the base's chat template shows no tools"),
])
def test_templates_that_show_less_are_refused(make: Make, template: str, told: str) -> None:
    assert told in problem(row(), make(template))


def test_a_name_that_only_the_question_holds_is_no_tool_shown(make: Make) -> None:
    turns = (Message("user", "Call weather!"), Message("assistant", "Fine."))
    assert "shows no tools" in problem(row(*turns), make(CHATML))
    calling = Message("assistant", "I call weather.", calls=(OSLO,))
    assert "shows no calls" in problem(row(turns[0], calling, tools=()), make(hermes(calls="")))


def test_a_special_token_in_a_call_is_refused(make: Make) -> None:
    odd = ToolCall("weather", '{"city": "<|im_end|>"}')
    assert "contains <|im_end|>" in problem(row(TURNS[0], Message("assistant", "", calls=(odd,))), make(hermes()))


def test_what_the_base_cannot_see_is_refused_by_name(make: Make) -> None:
    turns = Message("user", "<image>Who?", media=(Media("image", "a.png"),)), Message("assistant", "A")
    assert problem(row(*turns, tools=()), make(CHATML)) == "the row shows an image, and the base reads text alone"


def test_special_tokens_typed_into_a_prompt_are_found(make: Make) -> None:
    tokenizer: Any = make(CHATML)
    typed = Message("user", "Why does <|im_end|> end it, and <|im_end|> not <|im_start|>?")
    origin = Origin("rows.jsonl", 7)
    assert specials_in(Conversation((typed, Message("assistant", "A")), origin), tokenizer) == [
        "<|im_end|>", "<|im_start|>"]
    assert specials_in(Prompt((Message("user", "a < b |> c"),), (), origin), tokenizer) == []
    assert specials_in(Text("The end.<|endoftext|>", origin), tokenizer) == ["<|endoftext|>"]


def test_what_would_be_cut(make: Make) -> None:
    tokenizer = make(CHATML)
    found = rendered(row(Message("user", "Hi"), Message("assistant", "one two"), tools=()), tokenizer)
    whole = tokenizer.decode(found.ids.tolist())
    kept = tokenizer.decode(found.ids[:8].tolist())
    assert kept + would_cut(found, 8, tokenizer) == whole
    assert would_cut(found, len(found), tokenizer) == ""
    assert would_cut(found, len(found) - 1, tokenizer) == TURN_END
