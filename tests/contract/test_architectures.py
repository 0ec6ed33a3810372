"""docs/architectures.md is what comes out: a training step, or a sentence on why not, of every architecture."""

from __future__ import annotations

import re

import architectures
import pytest

ROW = re.compile(r"^\| (\S+) \| (\S+) \| (.+?) \|$", re.MULTILINE)


@pytest.mark.slow
def test_the_table_is_what_comes_out() -> None:
    import transformers

    written = architectures.DOC.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}," not in written:
        pytest.skip(f"the table is of another version than transformers {transformers.__version__}")
    kept = {name: (kind, result) for name, kind, result in ROW.findall(written) if name not in ("model_type", "---")}
    found = {name: (kind, result) for name, kind, result in architectures.rows()}
    assert kept.keys() == found.keys()
    slow = {name for name in found if "more than" in kept[name][1] + found[name][1]}      # says more of the machine
    different = {name: (kept[name], found[name]) for name in found if name not in slow and kept[name] != found[name]}
    assert not different
    assert len(slow) <= 5


def test_no_architecture_fails_without_a_name() -> None:
    results = [result for name, _, result in ROW.findall(architectures.DOC.read_text(encoding="utf-8"))]
    assert sum(result in ("sharing", "packed", "padded", "row by row") for result in results) >= 120
    assert not [result for result in results if result.startswith("fails")]


def test_the_usual_families_share() -> None:
    of = {name: result for name, _, result in ROW.findall(architectures.DOC.read_text(encoding="utf-8"))}
    for name in ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2", "mixtral", "qwen3_moe", "phi3", "olmo2"):
        assert of[name] == "sharing", (name, of[name])
