"""Every odd row of three public sets of example files is found and named by its line."""

from __future__ import annotations

from functools import cache

import pytest
from checked_rows import SHARED, lines

from tuneloop.data.examine import Input, Reading, examine

CHECKS = ("personal", "encoding", "degenerate", "unfinished", "turns", "tool_calls", "refusals", "language")
COOKBOOK, DEMOS = "fmt_openai_chat_cookbook", "fmt_llamafactory_demos"

ODD = [
    # toy chats: nobody asks; one phrase 2,000 times; no system message. Calls whose arguments are encoded twice
    (f"{COOKBOOK}/toy_chat_fine_tuning.jsonl", "turns", "no_user", [4]),
    (f"{COOKBOOK}/toy_chat_fine_tuning.jsonl", "degenerate", "repetition", [5]),
    (f"{COOKBOOK}/toy_chat_fine_tuning.jsonl", "turns", "without_system", [3]),
    (f"{COOKBOOK}/drone_training_first5.jsonl", "rows", "", [3, 4, 5]),
    # tool calls
    (f"{DEMOS}/glaive_toolcall_en_demo.jsonl", "tool_calls", "wrong_argument", [260]),
    (f"{DEMOS}/glaive_toolcall_zh_demo.jsonl", "tool_calls", "missing_argument", [22, 145]),
    (f"{DEMOS}/glaive_toolcall_zh_demo.jsonl", "tool_calls", "wrong_argument", [103, 240]),
    (f"{DEMOS}/glaive_toolcall_zh_demo.jsonl", "tool_calls", "orphan_result", [198, 294]),
    (f"{DEMOS}/reason_tool_use_demo_50.jsonl", "tool_calls", "unknown_argument", [18]),
    (f"{DEMOS}/reason_tool_use_demo_50.jsonl", "tool_calls", "joined_results", [3, 7, 35]),
    # damaged characters
    (f"{DEMOS}/c4_demo.jsonl", "encoding", "replaced", [11, 94, 109, 165]),
    (f"{DEMOS}/c4_demo.jsonl", "encoding", "html", [46, 175, 269]),
    (f"{DEMOS}/c4_demo.jsonl", "encoding", "invisible", [146, 148, 193, 210]),
    (f"{DEMOS}/dpo_en_demo.jsonl", "encoding", "mojibake", [16]),
    (f"{DEMOS}/dpo_en_demo.jsonl", "encoding", "latex", [287]),
    (f"{DEMOS}/dpo_en_demo.jsonl", "encoding", "invisible", [68]),
    (f"{DEMOS}/dpo_zh_demo.jsonl", "encoding", "replaced", [42, 56, 124, 192, 252, 284]),
    (f"{DEMOS}/kto_en_demo.jsonl", "encoding", "mojibake", [246, 260]),
    # one thing over and over
    (f"{DEMOS}/c4_demo.jsonl", "degenerate", "repetition", [140]),
    (f"{DEMOS}/dpo_en_demo.jsonl", "degenerate", "repetition", [166]),
    (f"{DEMOS}/glaive_toolcall_en_demo.jsonl", "degenerate", "repetition", [244]),
    (f"{DEMOS}/kto_en_demo.jsonl", "degenerate", "repetition", [66]),
    # not done
    (f"{DEMOS}/alpaca_en_demo.jsonl", "unfinished", "midst", [464]),
    (f"{DEMOS}/alpaca_en_demo.jsonl", "unfinished", "open_code", [180]),
    (f"{DEMOS}/glaive_toolcall_zh_demo.jsonl", "unfinished", "filler", [23]),
    (f"{DEMOS}/glaive_toolcall_zh_demo.jsonl", "unfinished", "midst", [236]),
    # people
    (f"{DEMOS}/c4_demo.jsonl", "personal", "email", [65, 97, 152, 167, 168, 191, 261, 299]),
    (f"{DEMOS}/c4_demo.jsonl", "personal", "phone", [1, 140, 141, 299]),
    (f"{DEMOS}/c4_demo.jsonl", "language", "other", [216]),
]
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="needs the public data sets")


@cache
def found(file: str) -> dict[tuple[str, str], list[int]]:
    examined = examine([Input("train", file)], Reading(SHARED), names=CHECKS)
    return {(finding.check, finding.kind): lines(finding) for finding in examined.findings}


@pytest.mark.parametrize(("file", "check", "kind", "at"), ODD)
def test_odd_rows(file: str, check: str, kind: str, at: list[int]) -> None:
    assert found(file)[check, kind] == at


def test_placeholders_that_were_never_filled_in() -> None:
    assert len(found(f"{DEMOS}/identity.jsonl")["unfinished", "placeholder"]) == 85
    assert found(f"{DEMOS}/v1_sft_demo.jsonl")["unfinished", "placeholder"] == list(range(1, 51))
