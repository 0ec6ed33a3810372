"""Raw rows to samples: which row format a file has, and what is wrong with which rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.data.flaws import RowError, flaw_errors
from tuneloop.data.read import Table
from tuneloop.data.template import Template, as_text, named, suggest
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Conversation, Message, Origin, Sample

Values = dict[str, Any]
Reader = Callable[[Values], tuple[Message, ...]]
Maker = Callable[[Values, Origin], Sample]

CHAT = "messages"
PROMPTS = ("prompt", "question", "instruction")
ANSWERS = ("completion", "response", "answer", "output")
ROLES = ("system", "user", "assistant")
SHOWN_COLUMNS = 8
NOT_YET = {
    "tools": "tools", "functions": "tools", "images": "images", "videos": "videos", "audios": "audio",
}
"""Keys of chat rows that change what the model is asked; leaving them out silently would train on something else."""
OTHER_FORMATS = {"conversations": "ShareGPT rows, which are not supported yet"}


class DroppableError(RowError):
    """A row that nothing can be learnt from; the recipe may drop these."""


class EmptyAnswerError(DroppableError):
    """A row without an answer."""

    def __init__(self) -> None:
        super().__init__("the answer is empty",
                         "Every row needs an answer; drop such rows with data.drop_empty=true, or")


@dataclass(frozen=True)
class Recognised:
    """The samples of a file, the sentence that says how its rows were read, and the rows dropped as empty."""

    samples: list[Any]          # all of the kind asked for
    sentence: str
    dropped: list[Origin]


@dataclass(frozen=True)
class Format:
    """How one file's rows become samples."""

    sentence: str
    make: Maker


def recognise(table: Table, *, prompt: str | None = None, answer: str | None = None, system: str | None = None,
              drop_empty: bool = False) -> Recognised:
    """Conversations of `table`: by the templates if given, else by the format its rows have.

    Raises every problem of the file at once: per kind of problem one UserError, with all its lines.
    """
    sentence, read = _from_templates(table, prompt, answer) if prompt or answer else _recognised_format(table)

    def make(values: Values, origin: Origin) -> Conversation:
        messages = read(values)
        check_answered(messages)
        return Conversation(with_system(messages, system), origin)

    return read_all(table, Format(sentence, make), drop_empty)


def read_all(table: Table, chosen: Format, drop_empty: bool) -> Recognised:
    """Every row by one format; raises as `recognise` does."""
    samples: list[Sample] = []
    dropped: list[Origin] = []
    flaws: list[tuple[Origin, RowError]] = []
    for row in table.rows:
        origin = Origin(table.file, row.line, row.digest)
        try:
            samples.append(chosen.make(row.values, origin))
        except DroppableError as error:
            if drop_empty:
                dropped.append(origin)
            else:
                flaws.append((origin, error))
        except RowError as error:
            flaws.append((origin, error))
    raise_all(flaw_errors(flaws))
    return Recognised(samples, chosen.sentence, dropped)


# --- formats ---------------------------------------------------------------------------------------------------------


def _from_templates(table: Table, prompt: str | None, answer: str | None) -> tuple[str, Reader]:
    if not (prompt and answer):
        given, lacking = ("prompt", "answer") if prompt else ("answer", "prompt")
        raise UserError(f"data.{given} is given and data.{lacking} is not.", wanted="both templates, or neither",
                        fix=f"give data.{lacking} too; {table.file} has the columns: {', '.join(table.columns)}")
    asked = Template("data.prompt", prompt, table)
    answered = Template("data.answer", answer, table)
    sentence = f"the prompt is made from {named(asked.columns)}, the answer from {named(answered.columns)}"

    def read(row: Values) -> tuple[Message, ...]:
        return Message("user", asked.fill(row, needed=True)), Message("assistant", answered.fill(row))

    return sentence + unused(table, [*asked.columns, *answered.columns]), read


def _recognised_format(table: Table) -> tuple[str, Reader]:
    found = format_of(table)
    if found is None:
        raise _unrecognised(table)
    extra, question, answer = found
    if extra == CHAT:
        return "each row is a chat, messages with role and content" + unused(table, [CHAT]), _chat
    extras = [column for column in table.columns if column.lower() == extra]
    order = [*extras, question] if extra == "context" else [question, *extras]
    sentence = f"the prompt is {named(order)}, the answer {named([answer])}" + unused(table, [*order, answer])
    return sentence, _column_reader(order, question, answer)


def format_of(table: Table) -> tuple[str, str, str] | None:
    """(optional column that goes with the prompt, prompt column, answer column), or CHAT in the first place.

    The format that most rows have, so that an odd first row does not decide; None when no row has a known one.
    """
    votes = Counter(found for row in table.rows if (found := _format_of_row(row.values)))
    return votes.most_common(1)[0][0] if votes else None


def _format_of_row(row: Values) -> tuple[str, str, str] | None:
    if CHAT in row:
        return CHAT, "", ""
    names = {name.lower(): name for name in reversed(row)}
    if "instruction" in names and "output" in names:
        return "input", names["instruction"], names["output"]
    question = next((names[n] for n in PROMPTS if n in names), None)
    answer = next((names[n] for n in ANSWERS if n in names), None)
    return None if question is None or answer is None else ("context", question, answer)


def _column_reader(order: Sequence[str], question: str, answer: str) -> Reader:
    """`order` holds the columns of the prompt, of which all but `question` may be missing or empty."""
    def read(row: Values) -> tuple[Message, ...]:
        texts = [as_text(row, column, optional=column != question) for column in order]
        return (Message("user", "\n\n".join(text for text in texts if text.strip())),
                Message("assistant", as_text(row, answer)))

    return read


def unused(table: Table, used: Sequence[str]) -> str:
    """What the model will not see: a question without its choices shows here."""
    left = [column for column in table.columns if column not in used]
    more = ", …" if len(left) > SHOWN_COLUMNS else ""
    return f"; not used: {', '.join(left[:SHOWN_COLUMNS])}{more}" if left else ""


def _unrecognised(table: Table) -> UserError:
    columns = ", ".join(table.columns)
    for column, kind in OTHER_FORMATS.items():
        if column in table.columns:
            return UserError(f'{table.file}: the column "{column}" looks like {kind}.',
                             wanted="messages, prompt and completion, or plain columns with templates")
    suggested = suggest(table)
    fix = ("say how a row becomes a question and its answer: " +
           " ".join(f"data.{key}='{text}'" for key, text in zip(("prompt", "answer"), suggested, strict=True))
           if suggested else "rename the columns: prompt for the question, completion for the answer")
    return UserError(f"{table.file}: no known row format in the columns {columns}.", fix=fix,
                     wanted="messages; or prompt and completion; or instruction, input and output; "
                            "or the templates data.prompt and data.answer")


# --- rows ------------------------------------------------------------------------------------------------------------


def _chat(row: Values) -> tuple[Message, ...]:
    for key, kind in NOT_YET.items():
        if row.get(key):
            raise RowError(f"the row has {kind} ({key}), which are not supported yet",
                           "Chat rows may hold text alone; leave such rows out, or")
    if isinstance(row.get("label"), bool):
        raise RowError("the row has a label that says whether people liked it",
                       "Objective kto learns from such rows; for sft leave out those that are false, and the label, or")
    if CHAT not in row:
        raise RowError("there are no messages", "This file is a list of chats;")
    messages = row[CHAT]
    if not isinstance(messages, list):
        raise RowError(f"messages is {kind_of(messages)}", "Messages are a list of role and content;")
    return tuple(read_message(message) for message in messages)


def read_message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise RowError(f"a message is {kind_of(message)}", "A message has role and content;")
    role, content = message.get("role"), message.get("content")
    if message.get("tool_calls") or message.get("function_call") or role in ("tool", "function"):
        raise RowError("a message calls a tool or answers for one, which is not supported yet",
                       "Chat rows may hold text alone; leave such rows out, or")
    if role not in ROLES:
        raise RowError("a message has no role" if role is None else f"unknown role {str(role)[:40]!r}",
                       "Roles are system, user and assistant;")
    if isinstance(content, list):
        raise RowError("the content of a message is in parts (text, image …), which is not supported yet",
                       "Content is one text;")
    if not isinstance(content, str):
        raise RowError(f"the content of a message is {kind_of(content)}", "Content is a text;")
    return Message(role, content, _trains(message) or role != "assistant")


def _trains(message: Values) -> bool:
    """OpenAI's `weight` and our `train` both switch the loss of an assistant turn off."""
    weight, train = message.get("weight"), message.get("train")
    if weight not in (None, 0, 1):
        raise RowError(f"a message has the weight {str(weight)[:20]}", "A weight is 0 or 1;")
    if train not in (None, True, False):
        raise RowError(f"a message has train: {str(train)[:20]}", "train is true or false;")
    return weight != 0 and (train is None or bool(train))


def check_answered(messages: Sequence[Message]) -> None:
    """What every conversation must satisfy, whatever its format."""
    if not any(m.role == "assistant" for m in messages):
        raise RowError("there is no assistant turn", "A conversation ends with the answer to learn;")
    if messages[-1].role != "assistant":
        raise RowError(f"the conversation ends with a {messages[-1].role} turn",
                       "A conversation ends with the assistant's answer;")
    if not messages[-1].train:
        raise RowError("the last answer carries no loss", "It is what the model is judged by; end the chat earlier,")
    if any(not m.content.strip() for m in messages if m.role == "assistant" and m.train) or (
            not messages[-1].content.strip()):
        raise EmptyAnswerError
    if not any(m.content.strip() for m in messages[:-1]):
        raise RowError("the prompt is empty", "Every row needs something to answer;")
    try:
        "".join(m.content for m in messages).encode()
    except UnicodeEncodeError:
        raise RowError("the text holds half of a surrogate pair (\\ud800 to \\udfff), which is no character",
                       "Text is Unicode;") from None


def with_system(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    if system and all(m.role != "system" for m in messages):
        return (Message("system", system), *messages)
    return messages


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", str: "a text"}
    return names.get(type(value), "a number")
