"""Images, sounds and films in rows: files beside the data, URLs, or base64; and which of them are refused.

In a turn's text `<image>`, `<audio>` and `<video>` mark the place of each. Nothing is fetched or decoded further.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.base import Shape, Turns, Values, kind_of
from tuneloop.types import Media, Message

COLUMNS = {"image": ("images", "image"), "audio": ("audios", "audio"), "video": ("videos", "video")}
PARTS = {"image": "image", "image_url": "image", "input_image": "image", "audio": "audio", "audio_url": "audio",
         "input_audio": "audio", "video": "video", "video_url": "video", "input_video": "video"}
"""The types of parts of a message that show something, and what they show."""
LONGEST_NAME = 255          # of a file; what is longer and looks like base64 is that
URLS = ("https://", "http://", "gs://", "s3://")
LARGEST_BYTES = {"image": 20 << 20, "audio": 200 << 20, "video": 2 << 30}
MARK = re.compile("<(image|audio|video)>")
_AN = {"image": "an image", "audio": "a sound", "video": "a film"}
_DATA = re.compile(r"data:([\w.+-]+)/[\w.+*-]+(;[\w=.+-]+)*;base64,", re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9+/]+=*", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PLACES = "Media are files beside the data, URLs (https://…) or base64 (data:image/png;base64,…);"


def mark(kind: str) -> str:
    return f"<{kind}>"


def columns_of(shape: Shape) -> dict[str, str]:
    """The columns that hold media, by kind."""
    found = {kind: shape.find(names) for kind, names in COLUMNS.items()}
    return {kind: column for kind, column in found.items() if column}


def of_part(part: Values, kind: str) -> Media | None:
    """What a part of a message shows, in the ways of OpenAI, Anthropic, Hugging Face and LLaMA-Factory.

    None where it only marks a place, for what a column of the row holds.
    """
    keys = ("image_url", "video_url", "audio_url", "input_audio", kind, "url", "path", "base64", "source", "value")
    key = next((key for key in keys if part.get(key)), None)
    if key is None:
        return None
    return Media(kind, _base64(part[key], kind) if key == "base64" else _where(part[key], kind))


def _where(given: Any, kind: str) -> str:
    """A path, URL or data URI."""
    if isinstance(given, dict):
        if isinstance(given.get("data"), str):
            return _base64(given["data"], kind, given.get("media_type") or given.get("format"))
        given = given.get("url") or given.get("bytes") or given.get("path")
    if not isinstance(given, str) or not given:
        raise RowError(f"the {kind} of a message is {kind_of(given)}", _PLACES)
    return _base64(given, kind) if len(given) > LONGEST_NAME and _BARE.fullmatch(given) else given


def _base64(given: Any, kind: str, form: Any = None) -> str:
    form = str(form or "unknown")
    return f"data:{form if '/' in form else f'{kind}/{form}'};base64,{given}"


# --- to the turns that show them -------------------------------------------------------------------------------------


def placed(turns: Turns, values: Values, columns: Mapping[str, str]) -> Turns:
    """The turns with what the columns of their row hold, each at its mark; all before the first question if there are
    no marks. Raises RowError where marks and media do not add up."""
    given = [Media(kind, _where(item, kind)) for kind, column in columns.items()
             for item in _listed(values.get(column))]
    if given and not any(MARK.search(turn.content) for turn in turns):
        turns = _marked(turns, given)
    marks = Counter(kind for turn in turns if not turn.media for kind in MARK.findall(turn.content))
    for kind in columns:
        if marks[kind] != (files := sum(media.kind == kind for media in given)):
            raise _mismatch(kind, marks[kind], files)
    if not given:
        return turns
    waiting = {kind: iter([media for media in given if media.kind == kind]) for kind in columns}
    return tuple(turn if turn.media else replace(turn, media=tuple(
        next(waiting[kind]) for kind in MARK.findall(turn.content) if kind in waiting)) for turn in turns)


def _listed(value: Any) -> Sequence[Any]:
    if value is None or value == "":
        return ()
    return value if isinstance(value, list) else [value]


def _marked(turns: Turns, given: Sequence[Media]) -> Turns:
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    marks = "".join(mark(media.kind) for media in given)
    return (*turns[:first], replace(turns[first], content=marks + turns[first].content), *turns[first + 1:])


# --- which are refused -----------------------------------------------------------------------------------------------


def check_media(turns: Iterable[Message], folder: Path | None) -> None:
    """Raise RowError unless every turn's marks are those of its media and each of these can be trusted.

    Files must lie in `folder` or below, also when links are followed; None: they are not looked at.
    """
    for turn in turns:
        if turn.media:
            _check_marks(turn)
            for media in turn.media:
                _check(media, folder)


def _check_marks(turn: Message) -> None:
    places, shown = Counter(MARK.findall(turn.content)), Counter(media.kind for media in turn.media)
    for kind in sorted(places | shown):
        if places[kind] != shown[kind]:
            raise _mismatch(kind, places[kind], shown[kind])


def _mismatch(kind: str, places: int, files: int) -> RowError:
    return RowError(f"the text has {places} {mark(kind)}, and {files} {kind} files go with it",
                    "<image>, <audio> and <video> mark the place of each;")


def _check(media: Media, folder: Path | None) -> None:
    if media.where.startswith("data:"):
        _check_base64(media)
    elif not media.where.startswith(URLS):
        _check_path(media, folder)


def _check_base64(media: Media) -> None:
    found = _DATA.match(media.where)
    if not found:
        raise RowError(f"the data of {_AN[media.kind]} is no base64 (data:{media.kind}/…;base64,…)", _PLACES)
    if found[1] != media.kind and found[1] != "application":
        raise RowError(f"what should be {media.kind} data says that it is {found[1]}", _PLACES)
    payload = media.where[found.end():]
    _check_size(media, len(payload) // 4 * 3)
    try:
        whole = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        whole = b""
    if not whole:
        raise RowError(f"the base64 of {_AN[media.kind]} does not decode", "It is the whole file, in base64;")


def _check_path(media: Media, folder: Path | None) -> None:
    """A name inside the folder of the data, on any system."""
    where = PureWindowsPath(media.where)        # takes / and \\ for separators, and knows drives
    if _SCHEME.match(media.where) or where.drive or where.root or ".." in where.parts or (
            media.where.startswith("~") or "\0" in media.where):
        raise RowError(f"the path of {_AN[media.kind]} leads out of the folder of the data", _PLACES)
    if folder is None:
        return
    path = folder / media.where
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RowError(f"the file of {_AN[media.kind]} is a link that leads out of the folder of the data", _PLACES)
        size = path.stat().st_size if path.is_file() else 0
    except (OSError, RuntimeError, ValueError):
        size = 0        # a name that is too long, links in a circle: no file either
    if not size:
        raise RowError(f"the file of {_AN[media.kind]} is not there, or empty", f"Paths count from {folder};")
    _check_size(media, size)


def _check_size(media: Media, size_bytes: int) -> None:
    if size_bytes > LARGEST_BYTES[media.kind]:
        raise RowError(f"the file of {_AN[media.kind]} is larger than {LARGEST_BYTES[media.kind] >> 20} MB",
                       "Make it smaller;")
