"""Ollama's Modelfile: where the model is, where an answer ends, and the chat template in Go's syntax.

The template of a model is a program in Jinja's language, Ollama's is one in Go's. It is not translated but probed:
what stands before and after a message of each role is read off a few renderings, and what was written from that is
run on other conversations and compared with the tokenizer's own text. https://docs.ollama.com/modelfile
"""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.exports import go_template
from tuneloop.exports.gguf_tokenizer import adds_bos
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Message

SYSTEM, USER, ANSWER, AGAIN = "SYSTEMPROBE", "USERPROBE", "ANSWERPROBE", "AGAINPROBE"
TRIES = (
    ("user", "What is 2 + 2?"), ("assistant", "It is 4.\n\nNot 5."), ("user", "Sure?\n- yes\n- no"),
    ("assistant", "Yes"), ("user", "Thanks"),
)
PADDED = "  with space around  "


@dataclass(frozen=True)
class _Shape:
    """What stands around messages. `first_user` begins a user's message right after the system's."""

    before: dict[str, str]
    after: dict[str, str]
    generation: str
    default: str            # in front of a conversation without a system message
    first_user: str = ""
    system: bool = True


def modelfile(tokenizer: ChatTokenizer, gguf_name: str) -> tuple[str, str]:
    """The text of the Modelfile for the file `gguf_name` beside it, and a note on the template."""
    stop = tokenizer.inner.convert_ids_to_tokens(tokenizer.end_of_turn_id)
    lines = [f"FROM ./{gguf_name}", f'PARAMETER stop "{stop}"']
    template, note = _template(tokenizer)
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    return "\n".join(lines) + "\n", note


def _template(tokenizer: ChatTokenizer) -> tuple[str | None, str]:
    none = ("the chat template cannot be put in Ollama's terms, so the Modelfile has none; servers built on llama.cpp "
            "use the exact one inside the GGUF file")
    for with_system in (True, False):
        shape = _probe(tokenizer, with_system)
        written = None if shape is None else _write(shape)
        if written is None or '"""' in written:
            continue
        if not all(_same(tokenizer, written, turns) for turns in _conversations(with_system)):
            continue
        notes = ["the Modelfile's template gives the same text as the model's own; tools are not part of it"]
        if not with_system:
            notes.append("the model's template takes no system message, so Ollama leaves one out")
        if not _same(tokenizer, written, [Message("user", PADDED)]):
            notes.append("the model's template cuts white space around a message, Ollama's does not")
        return written, "; ".join(notes)
    return None, none


def _conversations(with_system: bool) -> list[list[Message]]:
    turns = [Message(role, text) for role, text in TRIES]
    plain = [turns[:1], turns[:3], turns]
    system = [[Message("system", "You are brief.\nVery."), *some] for some in plain]
    return plain + (system if with_system else [])


def _text(tokenizer: ChatTokenizer, messages: list[Message], *, generation: bool = True) -> str | None:
    """The tokenizer's own text, without the beginning of text that Ollama adds itself; None if it refuses."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.prompt_text(messages) if generation else tokenizer.full_text(messages)
    except (TemplateError, TypeError, ValueError, KeyError):
        return None
    return text.removeprefix(tokenizer.inner.bos_token) if adds_bos(tokenizer) else text


def _same(tokenizer: ChatTokenizer, written: str, messages: list[Message]) -> bool:
    try:
        return go_template.render(written, messages) == _text(tokenizer, messages)
    except (ValueError, TypeError):
        return False


def _split(text: str | None, *probes: str) -> list[str] | None:
    """The text between the probes, each there once and in this order, or None."""
    parts: list[str] = []
    for probe in probes:
        if text is None or text.count(probe) != 1:
            return None
        before, text = text.split(probe)
        parts.append(before)
    return [*parts, text or ""]


def _probe(tokenizer: ChatTokenizer, with_system: bool) -> _Shape | None:
    user, again = Message("user", USER), Message("user", AGAIN)
    one = _split(_text(tokenizer, [user]), USER)
    closed = _split(_text(tokenizer, [user], generation=False), USER)
    # An answer that is not the last: of the last one, some templates show the thinking.
    two = _split(_text(tokenizer, [user, Message("assistant", ANSWER), again]), USER, ANSWER, AGAIN)
    if one is None or closed is None or two is None:
        return None
    answered = _split(_text(tokenizer, [user, Message("assistant", ANSWER)], generation=False), USER, ANSWER)
    # What closes the last answer closes earlier ones too, where the question then begins like the first one does.
    after_answer = answered[2] if answered is not None and two[2].startswith(answered[2]) else ""
    before_user = two[2][len(after_answer):]
    if not two[0].endswith(before_user):
        before_user = _common_end(two[0], two[2])
        after_answer = two[2][:len(two[2]) - len(before_user)]
    if not one[1].startswith(closed[1]) or not two[1].startswith(closed[1]):
        return None
    before = {"user": before_user, "assistant": two[1][len(closed[1]):]}
    after = {"user": closed[1], "assistant": after_answer}
    generation, default = one[1][len(closed[1]):], two[0][:len(two[0]) - len(before_user)]
    if not with_system:
        return _Shape(before, after, generation, default, system=False)
    system = _split(_text(tokenizer, [Message("system", SYSTEM), user]), SYSTEM, USER)
    if system is None:
        return None
    # Where the question begins as usual, what comes before it closes the system message; else the two share a turn.
    usual = system[1].endswith(before_user)
    closing = system[1][:len(system[1]) - len(before_user)] if usual else ""
    return _Shape({**before, "system": system[0]}, {**after, "system": closing}, generation, default,
                  before_user if usual else system[1])


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length:]


def _write(shape: _Shape) -> str | None:
    """The template in Go's language; white space is never trimmed, so every character outside braces is printed."""
    if any("{{" in text or "}}" in text for text in _literals(shape)):
        return None
    question = shape.before["user"]
    if shape.first_user != question and shape.system:
        question = f'{{{{ if eq $previous "system" }}}}{shape.first_user}{{{{ else }}}}{question}{{{{ end }}}}'
    parts = ['{{ $previous := "" }}{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}']
    if shape.default:
        first = '{{ if and (eq $i 0) (ne .Role "system") }}' if shape.system else "{{ if eq $i 0 }}"
        parts.append(f"{first}{shape.default}{{{{ end }}}}")
    parts.append(f'{{{{ if eq .Role "user" }}}}{question}{{{{ .Content }}}}{shape.after["user"]}')
    if shape.system:
        parts.append(f'{{{{ else if eq .Role "system" }}}}{shape.before["system"]}{{{{ .Content }}}}'
                     + shape.after["system"])
    parts.append(f'{{{{ else if eq .Role "assistant" }}}}{shape.before["assistant"]}{{{{ .Content }}}}'
                 f'{{{{ if not $last }}}}{shape.after["assistant"]}{{{{ end }}}}{{{{ end }}}}')
    parts.append(f'{{{{ if and $last (ne .Role "assistant") }}}}{shape.generation}{{{{ end }}}}')
    return "".join([*parts, "{{ $previous = .Role }}{{ end }}"])


def _literals(shape: _Shape) -> list[str]:
    return [*shape.before.values(), *shape.after.values(), shape.generation, shape.default, shape.first_user]
