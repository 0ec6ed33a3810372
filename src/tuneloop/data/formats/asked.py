"""What comes before an answer: a prompt in columns, with what may stand beside it, or turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.base import Given, Shape, Turns, Values, one_of_each, with_system
from tuneloop.data.formats.media import columns_of, placed
from tuneloop.data.formats.turns import read_turns, without_loss
from tuneloop.data.template import Template, as_text, named
from tuneloop.types import Message

PROMPTS = ("prompt", "question", "instruction", "query", "problem", "input")
ANSWERS = ("completion", "response", "answer", "output")
CHATS = ("messages", "conversations")
SYSTEMS = ("system", "system_prompt")
TOOLS = ("tools", "functions")


@dataclass(frozen=True)
class Asked:
    """Where rows of a shape keep what was asked."""

    columns: tuple[str, ...]        # of the prompt, in its order
    question: str | None            # the one of them that every row needs; None: the answers bring their prompt along
    template: Template | None
    system: str | None              # the column of a system message
    fixed_system: str | None        # the recipe's, for rows without one
    tools: str | None               # the column of tools
    media: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, shape: Shape, given: Given, questions: Sequence[str]) -> Asked:
        system, tools, media = shape.find(SYSTEMS), shape.find(TOOLS), columns_of(shape)
        if given.prompt is not None:
            return cls(tuple(given.prompt.columns), None, given.prompt, system, given.system, tools, media)
        question = shape.find(questions)
        before, after = (shape.find((name,)) if question else None for name in ("context", "input"))
        return cls(one_of_each(before, question, after if after != question else None), question, None,
                   system, given.system, tools, media)

    @property
    def used(self) -> tuple[str, ...]:
        return one_of_each(*self.columns, self.system, self.tools, *self.media.values())

    @property
    def sentence(self) -> str:
        asked = f"the prompt is {named(self.columns)}" if self.columns else "the answers bring their prompt along"
        return asked + (f", after the system message {named([self.system])}" if self.system else "")

    def before(self, values: Values) -> Turns:
        """The turns before an answer, without the system message; none where the answers bring them along."""
        if self.template is not None:
            return (Message("user", self.template.fill(values, needed=True)),)
        if self.question is None:
            return ()
        given = values.get(self.question)
        if isinstance(given, list) and given and isinstance(given[0], str):
            as_text(values, self.question)      # says that it is no text
        earlier = without_loss(read_turns(given, self.question)) if isinstance(given, list | dict) else ()
        if earlier and earlier[-1].role not in ("user", "tool"):
            raise RowError(f'"{self.question}" does not end with a user turn', "It ends with what is asked;")
        last = earlier[-1] if earlier else Message("user", as_text(values, self.question))
        texts = [last.content if column == self.question else as_text(values, column, optional=True)
                 for column in self.columns]
        if len(texts) > 1 or not earlier:
            last = replace(last, content="\n\n".join(text for text in texts if text.strip()))
        return (*earlier[:-1], last)

    def complete(self, turns: Turns, values: Values) -> Turns:
        """The turns with the system message, and with the images, sounds and films of the row in their places."""
        if self.media:
            turns = placed(turns, values, self.media)
        own = as_text(values, self.system, optional=True) if self.system else ""
        return with_system(turns, own if own.strip() else self.fixed_system)

    def no_tools(self, values: Values) -> None:
        """Raise RowError where a row that judges answers offers tools: samples of its kind have no place for them."""
        if self.tools and values.get(self.tools) not in (None, "", [], "[]"):
            raise RowError("the row offers tools, which only chats may hold",
                           "Learn from the better answers as chats, or leave the tools out;")
