"""What the docs list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuneloop.data.convert import FORMATS
from tuneloop.data.examine import CHECKS
from tuneloop.data.fix import FIXES
from tuneloop.recipe import METHODS, PARTS

DOCS = Path(__file__).parents[2] / "docs"
DATA = (DOCS / "data.md").read_text(encoding="utf-8")


def table(heading: str) -> set[str]:
    """The names in code in the first column of the table below a heading."""
    below = DATA.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", below, re.MULTILINE))


def test_every_check_and_fix_is_listed() -> None:
    assert table("Checks") == {*CHECKS.names, "proof", "perplexity"}
    assert table("Fixes") == set(FIXES.names)


def test_every_format_that_is_written_is_named() -> None:
    named = re.search(r"--to ([a-z|-]+)`", DATA.split("writes any of them")[0][-300:])
    assert named is not None
    assert set(named[1].split("|")) == set(FORMATS)


@pytest.mark.parametrize("part", PARTS)
def test_every_key_of_a_recipe_is_named(part: str) -> None:
    line = re.search(rf"^\| `{part}` \| (.*?) \|", (DOCS / "recipe.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    assert set(re.findall(r"`(\w+)`", line[1])) >= set(PARTS[part].model_fields)


def test_every_method_is_listed_with_its_options() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1]: set(re.findall(r"`(\w+)`", line)) for line in text.splitlines()
              if line.startswith("| `") and "`kind`" not in line}
    assert set(listed) == set(METHODS.names)
    for name, found in listed.items():
        own = set(METHODS.get(name).model_fields) - {"kind"}
        assert found >= own or "as `lora`" in text.split(f"| `{name}` |")[1].splitlines()[0]
