"""Values of databases, workbooks and Arrow as plain Python: what JSON could hold."""

from __future__ import annotations

import base64
import datetime
import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tuneloop.errors import UserError

PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def plain(value: Any) -> Any:
    """A value as text, number, list or object. Dates as ISO 8601 writes them; bytes as text, or as a data: URI."""
    match value:
        case None | str() | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case bytes() | bytearray() | memoryview():
            return _of_bytes(bytes(value))
        case Sequence() | set() | frozenset():
            return [plain(inner) for inner in value]
        case datetime.datetime():
            return value.isoformat(sep=" ")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case numbers.Real():
            return float(value)
        case _:
            return str(value)       # decimals among them: a float would not be what was written


def _of_bytes(data: bytes) -> str:
    kind = next((kind for start, kind in PICTURES.items() if data.startswith(start)), "")
    if not kind and b"\0" not in data:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return f"data:{kind or 'application/octet-stream'};base64,{base64.b64encode(data).decode()}"


@contextmanager
def foreign(shown: str, kind: str) -> Iterator[None]:
    """Whatever another library says of a file that it cannot read, as a UserError.

    Such files come from anywhere, and the libraries promise nothing about which errors damaged ones end in.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{shown} is {kind} that is damaged, cut off or of an unknown make: {reason.rstrip('.')}.",
                        fix="copy, download or export it again") from error
