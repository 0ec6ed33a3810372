"""A small interpreter of the part of Go's text/template that `modelfile` writes, to try out what it has written.

Language: https://pkg.go.dev/text/template; data as Ollama gives it: https://docs.ollama.com/modelfile (TEMPLATE).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tuneloop.types import Message

ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)
PIECE = re.compile(r'\(|\)|"[^"]*"|[^\s()]+')
Node = tuple[Any, ...]


def render(template: str, messages: Sequence[Message]) -> str:
    """The text of a conversation. An action that is not understood is a ValueError."""
    parts = iter(_parts(template))
    body, _ = _block(parts)
    listed = [{".Role": m.role, ".Content": m.content} for m in messages]
    values = {".Messages": listed, "$.Messages": listed}
    return "".join(_run(body, values))


def _parts(template: str) -> Iterator[tuple[str, str]]:
    at = 0
    for found in ACTION.finditer(template):
        yield "text", template[at:found.start()]
        yield "action", found[1]
        at = found.end()
    yield "text", template[at:]


def _block(parts: Iterator[tuple[str, str]]) -> tuple[list[Node], str]:
    """Nodes up to the action that ends the block, and that action."""
    nodes: list[Node] = []
    for kind, text in parts:
        if kind == "text":
            nodes.append(("text", text))
        elif text == "end" or text == "else" or text.startswith("else if "):
            return nodes, text
        elif text.startswith("range $i, $m := "):
            nodes.append(("range", text.removeprefix("range $i, $m := "), _block(parts)[0]))
        elif text.startswith("if "):
            nodes.append(_branches(text.removeprefix("if "), parts))
        elif found := re.fullmatch(r"(\$\w+) :?= (.*)", text):
            nodes.append(("set", found[1], found[2]))
        else:
            nodes.append(("print", text))
    return nodes, ""


def _branches(condition: str, parts: Iterator[tuple[str, str]]) -> Node:
    body, ended = _block(parts)
    if ended == "end":
        return ("if", condition, body, [])
    if ended == "else":
        return ("if", condition, body, _block(parts)[0])
    return ("if", condition, body, [_branches(ended.removeprefix("else if "), parts)])


def _run(nodes: list[Node], values: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if node[0] == "text":
            yield node[1]
        elif node[0] == "print":
            yield str(evaluate(node[1], values))
        elif node[0] == "set":
            values[node[1]] = evaluate(node[2], values)
        elif node[0] == "if":
            yield from _run(node[2] if evaluate(node[1], values) else node[3], values)
        else:
            for i, item in enumerate(evaluate(node[1], values)):
                values.update(item | {"$i": i})
                yield from _run(node[2], values)


def evaluate(expression: str, values: dict[str, Any]) -> Any:
    """The value of a Go expression: a name, a literal, or a function with its arguments."""
    return _call(iter([*PIECE.findall(expression), ")"]), values)


def _call(pieces: Iterator[str], values: dict[str, Any]) -> Any:
    found = []
    for piece in pieces:
        if piece == ")":
            break
        found.append(_call(pieces, values) if piece == "(" else _value(piece, values))
    name, *given = found
    if not callable(name):
        if given:
            raise ValueError(f"{name} is no function")
        return name
    return name(*given)


def _value(piece: str, values: dict[str, Any]) -> Any:
    functions = {"eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "and": lambda a, b: a and b, "len": len,
                 "not": lambda a: not a, "slice": lambda a, start: a[start:]}
    if piece.startswith('"'):
        return piece[1:-1]
    if piece.isdigit():
        return int(piece)
    if piece in functions:
        return functions[piece]
    if piece in values:
        return values[piece]
    raise ValueError(f"{piece} is not understood")
