"""The kinds of samples in words, for messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneloop.types import Conversation, Preference, Prompt, Ranked, Rated, Rollout, Text


@dataclass(frozen=True)
class Kind:
    """A kind of sample in words."""

    what: str
    wanted: str             # the columns of such rows
    objective: str          # that learns from them; empty where none learns from it


KINDS: dict[type[Any], Kind] = {
    Conversation: Kind("questions with their answers", "messages; or prompt and completion; or instruction, input and "
                       "output; or the templates data.prompt and data.answer", "sft"),
    Preference: Kind("pairs of answers", "prompt, chosen and rejected (texts or messages), perhaps margin", "dpo"),
    Rated: Kind("answers that people liked or not", "prompt, completion and label (true or false)", "kto"),
    Rollout: Kind("sampled answers with rewards", "prompt, completions (a list) and rewards (a number each); or "
                  "prompt, completion and reward, an answer a row", "grpo"),
    Ranked: Kind("ranked answers", "prompt and ranked, a list with the best answer first", "dpo"),
    Prompt: Kind("evaluation samples", "input and ideal", ""),
    Text: Kind("plain texts", "text", ""),
}
