"""Characters and white space are mended; code keeps its spaces."""

from __future__ import annotations

import pytest
from fix_rows import TOOLS, chat, texts
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.fixes.base import Tools
from tuneloop.data.fixes.normalise import Fix
from tuneloop.types import Text


def mended(text: str, **options: str) -> str:
    return Fix(**options).apply(texts(text), TOOLS).items[0].values["text"]


@pytest.mark.parametrize(("text", "good"), [
    ("her fiancÃ© Cal", "her fiancé Cal"),
    ("cafe\u0301", "café"),
    ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
    ("zero\u200bwidth \x00 null\x1f", "zerowidth null"),
    ("two  spaces   here", "two spaces here"),
    ("One.  Two.  Three.\nFour.  Five.", "One. Two. Three.\nFour. Five."),
    ("end of line  \nnext\t\n\n\n\nlast\n", "end of line\nnext\n\nlast"),
    ("  start", "start"),
    ("| a   | b   |\n|  1  |  2  |", "| a   | b   |\n|  1  |  2  |"),
    ("name   age   town\nAnna   31   Ulm", "name   age   town\nAnna   31   Ulm"),
    ("say  it:\n```py\nx  = 1   \n\n\n\ny = 2\r\n```\nbye  now",
     "say it:\n```py\nx  = 1   \n\n\n\ny = 2\n```\nbye now"),
    ("def f(a):\n    return  a    # twice\n", "def f(a):\n    return  a    # twice"),
    ("- item\n  - nested  item", "- item\n  - nested item"),
    ("family 👨\u200d👩\u200d👧 می\u200cخواهم", "family 👨\u200d👩\u200d👧 می\u200cخواهم"),
    ("ﬁne x²", "ﬁne x²"),
])
def test_texts(text: str, good: str) -> None:
    assert mended(text) == good
    assert mended(good) == good


def test_nfkc_where_it_is_asked_for() -> None:
    assert mended("ﬁne x² Ａ", form="NFKC") == "fine x2 A"


def test_the_log_tells_each_kind_of_change_with_before_and_after() -> None:
    log = Fix().apply(texts("fine", "naÃ¯ve  text", "a\r\nb"), TOOLS).log
    assert [(change.what, [place.line for place in change.places]) for change in log] == [
        ("1 row: mojibake read in its right encoding", [2]), ("1 row: line ends made \\n", [3]),
        ("1 row: white space to spare removed", [2])]
    assert log[0].examples == ["'naÃ¯ve  text' → 'naïve  text'"]


def test_examples_hold_no_personal_data() -> None:
    log = Fix().apply(texts("mail  anna@posteo.de"), TOOLS).log
    assert log[0].examples == ["'mail  an…@…de' → 'mail an…@…de'"]


def test_chats_are_mended_turn_by_turn_and_good_rows_are_the_same() -> None:
    rows = [chat("two  words", "ok", line=1), chat("fine", "ok", line=2)]
    done = Fix().apply(rows, TOOLS)
    assert done.items[0].sample.messages[0].content == "two words"
    assert done.items[1] is rows[1]
    assert rows[0].values["messages"][0]["content"] == "two  words"


@pytest.mark.slow
@given(st.text(st.sampled_from("ab \n\r\t`~\u200b\u200d\u0301|;{}-"), max_size=60))
def test_what_is_mended_needs_no_more_mending(text: str) -> None:
    tools = Tools(lambda values, origin: Text(values["text"], origin))
    once = Fix().apply(texts(text), tools).items
    assert Fix().apply(once, tools).items[0].values == once[0].values
