"""Every recipe that we show runs as it is, but for its base and its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from toy import COLOURS, chat_rows, judged_rows, open_rows, run, write_jsonl
from tuneloop.recipe import load
from tuneloop.record import RunFolder
from tuneloop.types import Preference, Rated, Rollout

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
LONGEST = 30


def coloured(path: Path) -> None:
    rows = [f"thing {i} is {colour},{COLOURS[colour]}" for i in range(60) for colour in [list(COLOURS)[i % 2]]]
    path.write_text("\n".join(["text,label", *rows, ""]))


def questions(path: Path, first: int = 0) -> None:
    rows = [f"Where is order {i}?,boat,We are sorry; order {i} has not arrived." for i in range(first, first + 30)]
    path.write_text("\n".join(["question,product,answer", *rows, ""]))


def customers(count: int) -> list[dict[str, str]]:
    return [{"question": f"{row['prompt']} Write to buyer{i}@post-shop.com.", "reply": row["completion"],
             "customer": f"c-{i % 20}"} for i, row in enumerate(open_rows(count))]


ROWS: dict[str, dict[str, Callable[[Path], object]]] = {
    "labels.yaml": {"train": coloured},
    "chat.yaml": {"train": lambda path: write_jsonl(path, chat_rows(40))},
    "full.yaml": {"train": lambda path: write_jsonl(path, open_rows(200))},
    "dpo.yaml": {"train": lambda path: write_jsonl(path, judged_rows(Preference))},
    "reward.yaml": {"train": lambda path: write_jsonl(path, judged_rows(Preference))},
    "kto.yaml": {"train": lambda path: write_jsonl(path, judged_rows(Rated, 400))},
    "grpo.yaml": {"train": lambda path: write_jsonl(path, judged_rows(Rollout))},
    "mended.yaml": {"train": lambda path: write_jsonl(path, customers(60))},
    "open.yaml": {"train": questions, "test": lambda path: questions(path, 100)},
}
"""The files of each recipe, by key of `data`."""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(recipe: Path, tmp_path: Path, tiny_llama: Path) -> None:
    given = load(recipe)
    changes = [f"base={tiny_llama}", "training.max_steps=4", "evaluation.rows=8", "evaluation.max_new_tokens=8"]
    for part, write in ROWS[recipe.name].items():
        path = tmp_path / str(getattr(given.data, part))
        write(path)
        changes.append(f"data.{part}={path}")
    certificate = run(load(recipe, changes), tmp_path / "run")
    assert certificate["verdict"] in ("met", "not met", "undecided")
    assert certificate["test_rows"] == 8
    assert len([m for m in RunFolder(tmp_path / "run").lines("metrics.jsonl") if m["event"] == "step"]) == 4
    assert (tmp_path / "run" / given.method.artefact).is_dir()


def test_recipes_are_short_explained_and_all_tested() -> None:
    assert {path.name for path in RECIPES} == ROWS.keys()
    for path in RECIPES:
        text = path.read_text()
        assert len(text.splitlines()) < LONGEST, path.name
        assert text.startswith("# "), path.name
        assert load(path).name == path.stem
