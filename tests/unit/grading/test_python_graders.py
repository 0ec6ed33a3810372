"""Graders in Python: what they are given, and what becomes of those that raise, hang, eat memory or give no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneloop.grading.graders.base import Case, Mark, Means
from tuneloop.grading.graders.catalog import Flaw, Reader

HOSTED = {"type": "python", "name": "mine"}


def hosted(source: str, *cases: Case, **more: Any) -> list[Mark]:
    grader = Reader(None).grader(HOSTED | {"source": source} | more)
    assert grader is not None
    return grader.grade(cases, Means())


def of_file(folder: Path, source: str, *cases: Case, function: str = "grade", **more: Any) -> list[Mark]:
    (folder / "reward.py").write_text(source)
    grader = Reader(folder).grader({"kind": f"reward.py:{function}", **more})
    assert grader is not None
    return grader.grade(cases, Means())


def flaws(given: Any, root: Path | None = None) -> list[Flaw]:
    reader = Reader(root)
    assert reader.grader(given) is None
    return reader.flaws


def test_the_documented_example() -> None:
    """A grader of names, as guides of the hosted service write them."""
    source = ("from difflib import SequenceMatcher\n\ndef grade(sample, item) -> float:\n"
              "    output_text = sample['output_text']\n    reference_answer = item['reference_answer']\n"
              "    return SequenceMatcher(None, output_text, reference_answer).ratio()\n")
    found = hosted(source, *(Case("", "", text, {"reference_answer": "abcd"}) for text in ("abcd", "bcde", "")))
    assert [mark.score for mark in found] == [1, 0.75, 0]


def test_what_it_is_given(tmp_path: Path) -> None:
    source = ("def grade(sample, item):\n    assert sample['output_json'] == {'a': 1}, sample\n"
              "    assert 'output_json' not in item and item['reference'] == 'r' and item['n'] == [1, None]\n"
              "    return len(sample['output_tools']) + len(sample['choices'][0]['message']['content'])")
    case = Case("q", "r", '{"a": 1}', {"reference": "r", "n": [1, None]})
    assert of_file(tmp_path, source, case, range=[0, 100])[0].score == 8
    [mark] = hosted("def grade(sample, item): return 'output_json' in sample", Case("", "", "text"))
    assert mark.score == 0


def test_each_that_misbehaves_is_a_fault_of_its_own() -> None:
    source = ("import time\n\ndef grade(sample, item):\n    text = sample['output_text']\n"
              "    if text == 'raise': raise ValueError('no such thing')\n"
              "    if text == 'hang':\n        while True: pass\n"
              "    if text == 'memory': x = bytearray(10**10)\n    if text == 'none': return None\n"
              "    if text == 'dict': return {'score': 1}\n    if text == 'exit': raise SystemExit\n"
              "    if text == 'nan': return float('nan')\n    if text == 'crash':\n        import ctypes\n"
              "        ctypes.string_at(0)\n    return 0.5\n")
    texts = ["good", "raise", "hang", "memory", "none", "dict", "exit", "crash", "good"]
    found = hosted(source, *(Case("", "", text) for text in texts), seconds=0.5)
    whats = [mark.fault.what if mark.fault else mark.score for mark in found]
    assert [whats[0], whats[-1]] == [0.5, 0.5]
    for what, said in zip(whats[1:-1], ["ValueError: no such thing (grader.py line 5", "timed out", "out of memory",
                                        "NoneType", "dict", "ended early", "SIGSEGV"], strict=True):
        assert said in str(what)
    flags = {text: mark.fault.flag for text, mark in zip(texts, found, strict=True) if mark.fault}
    assert flags.pop("crash") == "python_grader_server_error"
    assert set(flags.values()) == {"python_grader_runtime_error"}


def test_a_file_is_read_once_and_named_in_errors(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def polite(sample, item):\n    return 1 / len(item['x'])\n")
    grader = Reader(tmp_path).grader({"kind": "python", "file": "reward.py:polite"})
    assert grader is not None
    (tmp_path / "reward.py").write_text("def polite(sample, item): return 1")
    assert len(grader.files["file"]) == 64
    [mark] = grader.grade([Case("", "", "", {"x": ""})], Means())
    assert mark.fault is not None
    assert "reward.py line 2: return 1 / len(item['x'])" in mark.fault.what


@pytest.mark.parametrize(("source", "said"), [
    ("def grad(sample, item): return 1", "defines no function grade"), ("def grade(sample): return 1", "two arguments"),
    ("def grade(a, b, c): return 1", "two arguments"), ("def grade(a, b, *, c): return 1", "two arguments"),
    ("def grade(a, b", "no Python, line 1"), ("async def grade(sample, item): return 1", "grade is async"),
    ("", "defines no function"), ("x = '\0'", "no Python")])
def test_a_source_that_is_no_grader_is_refused_before_it_runs(source: str, said: str, tmp_path: Path) -> None:
    [flaw] = flaws(HOSTED | {"source": source})
    assert flaw.path == ("source",)
    assert said in flaw.wanted
    (tmp_path / "reward.py").write_text(source)
    [flaw] = flaws({"kind": "python", "file": "reward.py:grade"}, tmp_path)
    assert flaw.path == ("file",)
    assert said in flaw.found


@pytest.mark.parametrize("source", [
    "def grade(sample, item, more=1): return 1", "def grade(*all): return 1", "grade = lambda sample, item: 1",
    "from math import hypot as grade", "def grade(sample, /, item): return 1"])
def test_other_ways_to_define_it_are_fine(source: str) -> None:
    assert flaws_of_source(source) == []


def flaws_of_source(source: str) -> list[Flaw]:
    reader = Reader(None)
    reader.grader(HOSTED | {"source": source})
    return reader.flaws


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    for given, said in (({"kind": "reward.py:grade"}, "reward.py cannot be read"), ({"kind": "reward.py"}, "'file' is"),
                        ({"kind": "python"}, "'file' is missing"), ({"kind": "python", "file": "reward"}, "'file' is")):
        [flaw] = flaws(given, tmp_path)
        assert said in flaw.found
    (tmp_path / "reward.py").write_text("def grade(s, i): return 1")
    for options in ({"range": [1, 0]}, {"range": [0]}, {"seconds": 0}, {"memory_mb": 1}, {"range": ["a", "b"]}):
        assert flaws({"kind": "reward.py:grade"} | options, tmp_path)[0].path[0] == next(iter(options))


def test_a_source_of_more_than_256_kib_is_refused() -> None:
    big = "def grade(sample, item): return 1\n" + "#" * (256 << 10)
    assert "at most 256 KiB" in flaws(HOSTED | {"source": big})[0].wanted
