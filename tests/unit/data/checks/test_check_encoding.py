"""Damaged characters by kind; texts that only look odd are left alone."""

from __future__ import annotations

import pytest
from checked_rows import answers, found, lines, texts

from tuneloop.data.checks.encoding import Check


@pytest.mark.parametrize(("text", "kind"), [
    ("God\ufffds window", "replaced"),
    ("her fiancÃ© Cal", "mojibake"),
    ("Ocean â\x80\x94 in her", "mojibake"),
    ("price \x00 list", "control"),
    ("solve \x0crac{1}{2}", "latex"),
    ("pro-\u00adgovernment", "invisible"),
    ("zero\u200bwidth", "invisible"),
    ("if access\u202e} ⁦level\u2066", "hidden"),
    ("ignore \U000e0041\U000e0042 this", "hidden"),
    ("cafe\u0301", "forms"),
    ("you&apos;re &amp; me", "html"),
    ("one<br>two", "html"),
    ("M??nchen und K??ln", "question_marks"),
    ("????? ??? ????", "question_marks"),
    (" starts with a space", "ends"),
])
def test_damage_is_found_and_nothing_else(text: str, kind: str) -> None:
    assert list(found(Check(), answers("fine", text))) == [kind]


@pytest.mark.parametrize("text", [
    "naïve café — “quoted”… 5 € © 25 °C", "« CAFÉ », fermé\u00a0» et été", "NÃO, MAÇÃ” e AÇÃO",
    "Привет, 你好, नमस्ते, שלום", "family 👨\u200d👩\u200d👧 and می\u200cخواهم", "שלום\u200f!",
    "```html\n<br>&amp;\n```", "In HTML, <br> breaks a line",
    "What?? No! Really???", "a && b & c", "if (a<b) and c>d", "AT&T; R&D"])
def test_good_texts_are_left_alone(text: str) -> None:
    assert found(Check(), answers(text)) == {}


def test_lines_examples_and_the_command_that_mends_it() -> None:
    mojibake = found(Check(), texts("good", "the fiancÃ© and", "naÃ¯ve"))["mojibake"]
    assert (lines(mojibake), mojibake.severity, mojibake.fix) == ([2, 3], "fix", "tuneloop data fix FILE normalise")
    assert mojibake.examples[0] == "the fiancÃ© and → the fiancé and"
