"""Images, sounds and films in rows: where they are taken from, what marks their place, and which are refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from format_rows import ASSISTANT, flaw, made
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.flaws import RowError
from tuneloop.data.formats import media
from tuneloop.data.formats.media import check_media
from tuneloop.types import Media, Message

PNG = "data:image/png;base64,iVBORw0KGgo="


def shown(content: Any, **columns: Any) -> Message:
    message: Message = made({"messages": [{"role": "user", "content": content}, ASSISTANT], **columns}).messages[0]
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the data, with a picture in it; beside it lies a secret."""
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "a.png").write_bytes(b"picture")
    (inside / "empty.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (inside / "out.png").symlink_to(tmp_path / "secret.png")
    (inside / "in.png").symlink_to(inside / "a.png")
    (inside / "circle.png").symlink_to(inside / "circle.png")
    os.mkfifo(inside / "pipe.png")
    return inside


def refused(where: str, folder: Path | None = None, kind: str = "image") -> str:
    with pytest.raises(RowError) as caught:
        check_media([Message("user", f"<{kind}>", media=(Media(kind, where),))], folder)
    return caught.value.what


@pytest.mark.parametrize(("part", "where"), [
    ({"type": "image_url", "image_url": {"url": "https://x.org/a.png", "detail": "low"}}, "https://x.org/a.png"),
    ({"type": "image_url", "image_url": "a.png"}, "a.png"),
    ({"type": "image_url", "value": "a.png"}, "a.png"),
    ({"type": "input_image", "image_url": PNG}, PNG),
    ({"type": "image", "image": "a.png"}, "a.png"),
    ({"type": "image", "path": "a.png"}, "a.png"),
    ({"type": "image", "url": "http://x.org/a.png"}, "http://x.org/a.png"),
    ({"type": "image", "base64": "iVBORw0KGgo="}, "data:image/unknown;base64,iVBORw0KGgo="),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}, PNG),
    ({"image": "a.png"}, "a.png"),
])
def test_a_part_shows_an_image(part: dict[str, Any], where: str) -> None:
    assert shown(["Who is ", part, {"text": "?"}]) == Message("user", "Who is <image>?", media=(Media("image", where),))


def test_long_base64_needs_no_beginning() -> None:
    whole = base64.b64encode(bytes(300)).decode()
    assert shown("Who?", images=[whole]).media == (Media("image", f"data:image/unknown;base64,{whole}"),)


def test_sounds_and_films() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert shown([sound, {"type": "video", "video": "a.mp4"}]) == Message("user", "<audio><video>", media=(
        Media("audio", "data:audio/wav;base64,UklGRg=="), Media("video", "a.mp4")))


def test_columns_go_to_their_marks_over_all_turns() -> None:
    turns = [{"role": "user", "content": "<image>Who?"}, ASSISTANT, {"role": "user", "content": "And<audio> <image>?"},
             ASSISTANT]
    found = made({"messages": turns, "images": ["a.png", "b.png"], "audios": "c.wav"}).messages
    assert [m.media for m in found] == [(Media("image", "a.png"),), (),
                                        (Media("audio", "c.wav"), Media("image", "b.png")), ()]


def test_columns_without_marks_go_before_the_first_question() -> None:
    assert shown("Who?", image="a.png") == Message("user", "<image>Who?", media=(Media("image", "a.png"),))
    assert shown([{"type": "image"}, {"type": "text", "text": "Who?"}], images=[{"path": "a.png"}]) == Message(
        "user", "<image>Who?", media=(Media("image", "a.png"),))
    assert made({"prompt": "Who?", "completion": "A", "image": "a.png"}).messages[0] == shown("Who?", image="a.png")
    assert shown("Who?", image={"bytes": PNG, "path": "a.png"}).media == (Media("image", PNG),)     # as in Parquet
    pair = {"prompt": "Who?", "chosen": "A", "rejected": "B", "images": ["a.png"]}
    assert made(pair).prompt == (shown("Who?", image="a.png"),)


@pytest.mark.parametrize("nothing", [None, "", []])
def test_no_media_and_marks_that_are_plain_text(nothing: Any) -> None:
    assert shown("Who?", images=nothing) == Message("user", "Who?")
    assert shown("What is <image> in SVG?") == Message("user", "What is <image> in SVG?")


@pytest.mark.parametrize(("content", "columns", "told"), [
    ("<image>Who?", {"images": ["a.png", "b.png"]}, "the text has 1 <image>, and 2 image files go with it"),
    ("<image><image>", {"images": ["a.png"]}, "the text has 2 <image>, and 1 image files go with it"),
    ("<video>", {"images": ["a.png"], "videos": []}, "the text has 0 <image>, and 1 image files go with it"),
    ([{"type": "text", "text": "<image>"}, {"type": "image", "image": "a.png"}], {}, "has 2 <image>, and 1 image"),
    ("Who?", {"images": [3]}, "the image of a message is a number"),
    ([{"type": "image", "image": {"size": 3}}], {}, "the image of a message is null"),
])
def test_marks_and_media_must_add_up(content: Any, columns: dict[str, Any], told: str) -> None:
    assert told in flaw({"messages": [{"role": "user", "content": content}, ASSISTANT], **columns})


@pytest.mark.parametrize("where", [
    "/etc/passwd", "../secret.png", "a/../../secret.png", "..\\secret.png", "C:\\secret.png", "C:secret.png",
    "\\\\host\\x", "~/secret.png", "file:///etc/passwd", "FILE:a.png", "ftp://x.org/a.png", "javascript:alert(1)",
    "a\0.png",
])
def test_path_tricks_are_refused_before_anything_is_opened(where: str) -> None:
    assert refused(where) == "the path of an image leads out of the folder of the data"


def test_files_beside_the_data(folder: Path) -> None:
    for good in ("a.png", "in.png", "./a.png"):
        check_media([Message("user", "<image>", media=(Media("image", good),))], folder)
    assert refused("out.png", folder) == "the file of an image is a link that leads out of the folder of the data"
    for gone in ("b.png", "empty.png", ".", "x" * 5000, "circle.png", "pipe.png"):
        assert refused(gone, folder) == "the file of an image is not there, or empty"
    check_media([Message("user", "<image>", media=(Media("image", "b.png"),))], None)


@given(st.text())
def test_no_name_ever_leads_out_or_breaks(tmp_path_factory: pytest.TempPathFactory, where: str) -> None:
    """In an empty folder every name is refused; a URL is no name."""
    if not where.startswith(media.URLS):
        assert refused(where, tmp_path_factory.getbasetemp() / "none")


@pytest.mark.parametrize(("where", "told"), [
    ("data:image/png;base64,####", "the base64 of an image does not decode"),
    ("data:image/png;base64,", "the base64 of an image does not decode"),
    ("data:image/png;base64,iVBORw0KGgo", "the base64 of an image does not decode"),
    ("data:image/png,raw", "the data of an image is no base64"),
    ("data:text/html;base64,AAAA", "what should be image data says that it is text"),
])
def test_base64_that_is_none(where: str, told: str) -> None:
    assert told in refused(where)


def test_what_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(media.LARGEST_BYTES, "image", 2 << 20)
    (folder / "large.png").write_bytes(bytes(3 << 20))
    assert refused("large.png", folder) == "the file of an image is larger than 2 MB"
    assert refused("data:image/png;base64," + base64.b64encode(bytes(3 << 20)).decode()) == (
        "the file of an image is larger than 2 MB")
