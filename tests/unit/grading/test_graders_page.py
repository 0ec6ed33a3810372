"""docs/graders.md lists every grader with its options, and its examples are recipes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneloop.grading.graders.catalog import KINDS, TYPES, keys_of
from tuneloop.grading.graders.similarity import MEASURES, REFUSED
from tuneloop.grading.rewards import rewards_of

PAGE = (Path(__file__).parents[3] / "docs" / "graders.md").read_text(encoding="utf-8")
RECIPE_PAGE = (Path(__file__).parents[3] / "docs" / "recipe.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, set[str]]:
    """Of each name in the first column of the table below a heading, what else its row names in code."""
    below = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {name: set(re.findall(r"`([^`\s]+)`", row)) for name, row in re.findall(r"^\| `(\w+)` \|(.*)$", below, re.M)}


def test_every_kind_is_listed_with_its_options() -> None:
    listed = table("Kinds")
    assert set(listed) - {"kind"} == set(KINDS)
    for name, grader in KINDS.items():
        assert listed[name] >= set(keys_of(grader)) - {"kind"}, name


def test_every_hosted_type_is_listed() -> None:
    listed = table("Hosted graders")
    assert set(listed) - {"type"} == set(TYPES)
    named = listed["text_similarity"] | {f"rouge_{n}" for n in range(1, 6)}
    assert named >= {*MEASURES, *REFUSED}


def test_the_recipes_page_names_every_kind() -> None:
    row = re.search(r"^\| `rewards` \| (.*?) \|", RECIPE_PAGE, re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"`(\w+)`", row[1])) >= {*KINDS, "weight", "on_failure", "name"}


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_are_rewards(example: str, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def grade(sample, item): return 1")
    given: dict[str, Any] = yaml.safe_load(example)
    assert rewards_of(given["rewards"], tmp_path).names
