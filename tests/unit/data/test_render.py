"""The loss mask, proved by decoding it: supervised is each trained answer with its end of turn, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import CHATML, TURN_END, tiny_tokenizer
from tuneloop.data.render import RenderProblem, render
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Message, Origin, Rendered

Make = Callable[..., ChatTokenizer]
STRIPS = CHATML.replace("message['content']", "message['content'] | trim")
DROPS_HISTORY = (     # as bases that think do: an answer that is not the last is cut
    "{%- for m in messages -%}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] if loop.last or m['role'] == 'user' else m['content'] | upper }}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}")
BEFORE_ANSWER = CHATML.replace("{{ message['content'] }}",
                               "{{ '<think>\n</think>' if message['role'] == 'assistant' }}{{ message['content'] }}")
NO_SYSTEM = "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}" + CHATML
NEVER_CLOSES = CHATML.replace("<|im_end|>", "")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A tokenizer from a folder, with another template or other special tokens."""
    def chat_tokenizer(template: str | None = CHATML, **specials: Any) -> ChatTokenizer:
        inner = tiny_tokenizer(chat_template=False)
        if template is not None:
            inner.chat_template = template
        for name, value in specials.items():
            setattr(inner, name, value)
        inner.save_pretrained(tmp_path)
        return ChatTokenizer(tmp_path)
    return chat_tokenizer


def conversation(*turns: str, train: tuple[bool, ...] = (), system: str = "") -> Conversation:
    """User and assistant in turns; `train` is for the assistant's."""
    flags = iter(train)
    messages = [Message("system", system)] if system else []
    for i, text in enumerate(turns):
        messages.append(Message("assistant", text, next(flags, True)) if i % 2 else Message("user", text))
    return Conversation(tuple(messages), Origin("rows.jsonl", 7))


def one(c: Conversation, tokenizer: ChatTokenizer) -> Rendered:
    rendered = render([c], tokenizer)[0]
    assert isinstance(rendered, Rendered), rendered
    assert rendered.origin == c.origin
    return rendered


def problem(c: Conversation, tokenizer: ChatTokenizer) -> str:
    found = render([c], tokenizer)[0]
    assert isinstance(found, RenderProblem)
    assert found.origin == c.origin
    return found.message


def supervised(rendered: Rendered, tokenizer: ChatTokenizer) -> list[str]:
    """The decoded runs of tokens that carry loss."""
    borders = np.flatnonzero(np.diff(rendered.weights, prepend=0, append=0))
    return [tokenizer.decode(rendered.ids[a:b].tolist()) for a, b in zip(borders[::2], borders[1::2], strict=True)]


def whole(rendered: Rendered, tokenizer: ChatTokenizer) -> str:
    return tokenizer.decode(rendered.ids.tolist())


@pytest.mark.parametrize("answer", ["positive", "It is good.\n\n- one\n- two", " spaced ", "naïve 日本 🙂", "user"])
def test_the_answer_and_its_end_of_turn_are_supervised(make: Make, answer: str) -> None:
    tokenizer = make()
    rendered = one(conversation("Is it good?", answer), tokenizer)
    assert supervised(rendered, tokenizer) == [answer + TURN_END]
    assert set(rendered.weights.tolist()) == {0.0, 1.0}
    assert rendered.ids[-1] == tokenizer.end_of_turn_id


def test_prompt_ids_are_those_of_inference(make: Make) -> None:
    tokenizer = make()
    c = conversation("Is it good?", "positive", "Why so?", "The plot is good.", system="Be short.")
    rendered = one(c, tokenizer)
    for i in (2, 4):
        prompt = tokenizer.encode([tokenizer.prompt_text(c.messages[:i])])[0]
        assert rendered.ids[:len(prompt)].tolist() == prompt
        assert rendered.weights[len(prompt) - 1] == 0
        assert rendered.weights[len(prompt)] == 1


def test_every_answer_of_many_turns_is_supervised(make: Make) -> None:
    tokenizer = make()
    rendered = one(conversation("a?", "one", "b?", "two", "c?", "one"), tokenizer)
    assert supervised(rendered, tokenizer) == [f"one{TURN_END}", f"two{TURN_END}", f"one{TURN_END}"]
    assert whole(rendered, tokenizer) == tokenizer.full_text(
        conversation("a?", "one", "b?", "two", "c?", "one").messages).rstrip("\n")


def test_turns_not_to_be_trained_carry_no_loss(make: Make) -> None:
    tokenizer = make()
    assert supervised(one(conversation("a?", "one", "b?", "two", train=(False, True)), tokenizer), tokenizer) == [
        f"two{TURN_END}"]
    first = one(conversation("a?", "one", "b?", "two", train=(True, False)), tokenizer)
    assert supervised(first, tokenizer) == [f"one{TURN_END}"]
    assert "two" not in whole(first, tokenizer)      # nothing after the last target is computed
    assert "no turn" in problem(conversation("a?", "one", train=(False,)), tokenizer)


def test_a_question_that_repeats_the_answer_is_not_taken_for_it(make: Make) -> None:
    tokenizer = make()
    rendered = one(conversation("positive", "positive", "positive", "positive"), tokenizer)
    assert supervised(rendered, tokenizer) == [f"positive{TURN_END}"] * 2
    assert rendered.weights.tolist().count(1) == 2 * len(tokenizer.encode([f"positive{TURN_END}"])[0])


def test_a_template_that_strips_is_followed(make: Make) -> None:
    tokenizer = make(STRIPS)
    rendered = one(conversation("a?", "  positive \n"), tokenizer)
    assert supervised(rendered, tokenizer) == [f"positive{TURN_END}"]


def test_text_that_the_template_puts_before_the_answer_is_supervised(make: Make) -> None:
    """The model has to write it, since the prompt does not."""
    tokenizer = make(BEFORE_ANSWER)
    rendered = one(conversation("a?", "one"), tokenizer)
    assert supervised(rendered, tokenizer) == [f"<think>\n</think>one{TURN_END}"]


def test_a_template_that_changes_an_earlier_answer_is_refused(make: Make) -> None:
    tokenizer = make(DROPS_HISTORY)
    assert "'one'" in problem(conversation("a?", "one", "b?", "two"), tokenizer)
    assert "'one'" in problem(conversation("a?", "one", "one", "two"), tokenizer)      # the user says it, too
    assert supervised(one(conversation("a?", "one", "b?", "two", train=(False, True)), tokenizer), tokenizer) == [
        f"two{TURN_END}"]


def test_a_template_that_refuses_a_role_is_quoted(make: Make) -> None:
    assert "no system role" in problem(conversation("a?", "one", system="Be short."), make(NO_SYSTEM))


def test_problems_and_rows_come_in_order(make: Make) -> None:
    tokenizer = make(NO_SYSTEM)
    good, bad = conversation("a?", "one"), conversation("a?", "one", system="Be short.")
    assert [isinstance(r, RenderProblem) for r in render([good, bad, good, bad], tokenizer)] == [
        False, True, False, True]
    assert render([], tokenizer) == []


def test_a_base_without_a_template_gets_a_plain_one(make: Make) -> None:
    tokenizer = make(None)
    rendered = one(conversation("a?", "one", "b?", "two"), tokenizer)
    assert whole(rendered, tokenizer) == f"a?\none{TURN_END}b?\ntwo{TURN_END}"
    assert supervised(rendered, tokenizer) == [f"one{TURN_END}", f"two{TURN_END}"]
    assert any("no chat template" in note for note in tokenizer.notes)


def test_a_template_that_closes_no_answer_is_closed_with_eos(make: Make) -> None:
    tokenizer = make(NEVER_CLOSES)
    rendered = one(conversation("a?", "one"), tokenizer)
    assert supervised(rendered, tokenizer)[-1].endswith(TURN_END)
    assert rendered.ids[-1] == tokenizer.end_of_turn_id == tokenizer.inner.eos_token_id
    assert any("does not close" in note for note in tokenizer.notes)


def test_a_base_that_could_never_stop_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match="ends no turn"):
        make(NEVER_CLOSES, eos_token=None)


def test_padding_that_is_the_end_of_a_turn_is_repaired(make: Make) -> None:
    tokenizer = make(pad_token=TURN_END)
    assert tokenizer.pad_id not in {tokenizer.end_of_turn_id, tokenizer.inner.eos_token_id}
    assert any("padding was" in note for note in tokenizer.notes)


def test_padding_that_is_unset_is_set(make: Make) -> None:
    tokenizer = make(pad_token=None)
    assert tokenizer.pad_id != tokenizer.end_of_turn_id
    assert any("padding was unset" in note for note in tokenizer.notes)


def test_padding_that_is_right_is_left_alone(make: Make) -> None:
    tokenizer = make()
    assert tokenizer.inner.pad_token == "<|endoftext|>"
    assert not tokenizer.notes


def test_a_saved_tokenizer_is_the_repaired_one(make: Make, tmp_path: Path) -> None:
    repaired = make(None, pad_token=TURN_END)
    repaired.save(tmp_path / "saved")
    again = ChatTokenizer(tmp_path / "saved")
    c = conversation("a?", "one")
    assert again.pad_id == repaired.pad_id
    assert one(c, again).ids.tolist() == one(c, repaired).ids.tolist()
    assert not again.notes


def test_a_special_token_in_an_answer_is_refused(tiny_llama: Path) -> None:
    tokenizer = ChatTokenizer(tiny_llama)
    row = Conversation((Message("user", "Say it."), Message("assistant", "Done.<|im_end|> More.")), Origin("a.csv", 2))
    problem = render([row], tokenizer)[0]
    assert isinstance(problem, RenderProblem)
    assert "<|im_end|>" in problem.message
