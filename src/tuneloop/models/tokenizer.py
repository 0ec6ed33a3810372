"""A base's tokenizer and chat template, without torch: repaired where it is known to be broken, and said so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from tuneloop.errors import UserError
from tuneloop.types import Message

PLAIN_TEMPLATE = (
    "{%- for message in messages -%}{{ message['content'] }}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- else -%}{{ '\n' }}{%- endif -%}{%- endfor -%}"
)
"""For bases without a template: each turn on its own line, the answer closed by the end-of-text token."""

LONGEST_BELIEVABLE = 10_000_000     # model_max_length is 1e30 where nobody set it
PROBE = (Message("user", "QUESTION"), Message("assistant", "ANSWER"))


class ChatTokenizer:
    """Text in, ids out, with the base's own chat template. `notes` says what was repaired.

    `end_of_turn` is the text that closes an answer, the special token that stops generation included.
    """

    def __init__(self, folder: Path) -> None:
        _allow_for_no_torch()
        from transformers import AutoTokenizer

        try:
            self.inner: Any = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"The tokenizer in {folder} cannot be loaded: {error}",
                            wanted="tokenizer.json and tokenizer_config.json of the base") from error
        self.notes: list[str] = []
        self.max_length = self._believable_length(folder)
        self._ensure_template()
        self.end_of_turn = self._find_end_of_turn()
        self.end_of_turn_id: int = self.inner.convert_tokens_to_ids(self._stop_token)
        self._separate_padding()

    @cached_property
    def specials(self) -> frozenset[str]:
        """Texts that become one token with a meaning of its own, such as the end of a turn."""
        named = {t.content for t in self.inner.added_tokens_decoder.values() if t.special}
        return frozenset(filter(None, named | set(self.inner.all_special_tokens)))

    def check_same_tokens(self, other: ChatTokenizer, name: str) -> None:
        """Raise a UserError unless `other`, the tokenizer of the model `name`, has the same tokens and ids."""
        if self.inner.get_vocab() != other.inner.get_vocab():
            raise UserError(f"{name} has another vocabulary than the base, so its log-probs are of other tokens.",
                            wanted="a model of the same family, with the same tokenizer")

    @property
    def pad_id(self) -> int:
        return cast(int, self.inner.pad_token_id)

    def prompt_text(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> str:
        """The text after which the model is to answer. `tools`: the JSON text of each, as in `Conversation`."""
        return self._apply(messages, tools, add_generation_prompt=True)

    def full_text(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> str:
        """The whole conversation, every turn closed."""
        text = self._apply(messages, tools, add_generation_prompt=False)
        if self._closes_turns or messages[-1].role != "assistant":
            return text
        return text + self.end_of_turn

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that already hold their special tokens."""
        if not texts:
            return []
        return cast("list[list[int]]", self.inner(list(texts), add_special_tokens=False, verbose=False)["input_ids"])

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Text of ids, by default with special tokens written out."""
        return cast(str, self.inner.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False))

    def save(self, folder: Path) -> None:
        """Write the repaired tokenizer, so that whoever loads the result stops where we stop."""
        self.inner.save_pretrained(folder)

    def _apply(self, messages: Sequence[Message], tools: Sequence[str] = (), *, add_generation_prompt: bool) -> str:
        return cast(str, self.inner.apply_chat_template(
            [_for_template(m) for m in messages], tools=[json.loads(tool) for tool in tools] or None, tokenize=False,
            add_generation_prompt=add_generation_prompt))

    def _believable_length(self, folder: Path) -> int:
        length = int(self.inner.model_max_length)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            config = {}
        positions = config.get("max_position_embeddings") or config.get("n_positions")
        if length < LONGEST_BELIEVABLE:
            return min(length, int(positions or length))
        known = int(positions or 2048)
        self.inner.model_max_length = known
        self.notes.append(f"the tokenizer named no maximum length; set to the base's {known} positions")
        return known

    def _ensure_template(self) -> None:
        if self.inner.chat_template:
            return
        adds_bos = self.inner.bos_token and self.inner("a")["input_ids"][:1] == [self.inner.bos_token_id]
        self.inner.chat_template = ("{{ bos_token }}" if adds_bos else "") + PLAIN_TEMPLATE
        self.notes.append("the base has no chat template; turns are put on lines of their own")

    def _find_end_of_turn(self) -> str:
        text = self._apply(PROBE, add_generation_prompt=False)
        after = text[text.rindex(PROBE[-1].content) + len(PROBE[-1].content):]
        found = [(after.index(token), -len(token), token) for token in self.specials if token in after]
        self._closes_turns = bool(found)
        if found:
            at, _, token = min(found)
            self._stop_token = token
            return after[: at + len(token)]
        if not self.inner.eos_token:
            raise UserError("The base's chat template ends no turn and its tokenizer names no end-of-text token.",
                            fix="a model trained so would never stop; choose another base")
        self.notes.append(f"the chat template does not close the answer; closed with {self.inner.eos_token}")
        self._stop_token = self.inner.eos_token
        return cast(str, self.inner.eos_token)

    def _separate_padding(self) -> None:
        """Padding must not be the stop token: whoever masks padding by its id would train a model that never stops."""
        stops = {self.end_of_turn_id, self.inner.eos_token_id}
        if self.inner.pad_token_id is not None and self.inner.pad_token_id not in stops:
            return
        named = [t.content for t in self.inner.added_tokens_decoder.values() if t.special]
        choices = [t for t in named if "pad" in t.lower()] + [self.inner.unk_token, "<|endoftext|>"]
        usable = [t for t in choices if t and t in self.inner.get_vocab()
                  and self.inner.convert_tokens_to_ids(t) not in stops]
        if usable:
            self.notes.append(f"padding was {self.inner.pad_token or 'unset'}, the same as the end of a turn; "
                              f"now {usable[0]}")
            self.inner.pad_token = usable[0]
        elif self.inner.pad_token is None:
            self.inner.pad_token = self.inner.eos_token


def _for_template(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: the arguments of calls as an object, and no key without a value."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [{"type": "function", **({"id": call.id} if call.id else {}),
                               "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
                              for call in message.calls]
    return turn | {key: value for key, value in (("tool_call_id", message.call_id), ("name", message.name)) if value}


def _allow_for_no_torch() -> None:
    """Let transformers see that torch cannot be imported: an import hook that refuses it would end its import too."""
    import importlib.util
    import sys

    try:
        importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        sys.modules["torch"] = cast(Any, None)      # as Python itself notes a module that must not be imported
