"""A recipe whose base is a shape alone: its rows are read and their characters counted, nothing is rendered."""

from __future__ import annotations

from typing import Any

from tuneloop.data import task as tasks
from tuneloop.data.load import Wanted, load
from tuneloop.errors import UserError
from tuneloop.plan.job import CHARACTERS_PER_TOKEN, Job, job_counted, size_of
from tuneloop.prepared import ASKED
from tuneloop.recipe import Recipe

COUNTED = (f"tokens are a guess, {CHARACTERS_PER_TOKEN} characters each, as a shape has no tokenizer: ±25 % for "
           "English, worse for other languages; duplicates, fixes, mixed rows and shared prefixes are not looked at")


def job_of_recipe(recipe: Recipe) -> tuple[Job, bool]:
    """The job, and whether its answers are labels. Raises UserError with every problem of the first file that has some.
    """
    data = recipe.data
    wanted = Wanted(recipe.row_kind, data.prompt, data.answer, data.system, data.drop_empty)
    parts: dict[str, list[Any]] = {}
    for part in ("train", "validation", "test"):
        if name := getattr(data, part):
            parts[part] = load(name, recipe.root, str(name), wanted).samples
    rows = parts["train"]
    if not rows:
        raise UserError(f"{data.train} holds no rows to train on.")
    held = {part: len(parts[part]) if part in parts else _share(getattr(data.split, part), len(rows))
            for part in ("validation", "test")}
    train = len(rows) - sum(held[part] for part in held if part not in parts)
    if train < 1:
        raise UserError(f"Of the {len(rows)} rows of {data.train} none is left to train on.", fix="hold out less")
    labels = tasks.decide(rows, data.answers) == "labels"
    test = min(held["test"], recipe.evaluation.rows or held["test"])
    job = job_counted([size_of(row) for row in rows[:min(train, data.max_train_rows or train)]],
                      (held["validation"], test), recipe.training, choices=labels,
                      max_new_tokens=recipe.evaluation.max_new_tokens,
                      frozen_passes=len(recipe.objective.needs & ASKED), counted=COUNTED)
    return job, labels


def _share(given: float, rows: int) -> int:
    """A count, or a share below 1, as in data.split."""
    return round(given * rows) if given < 1 else int(given)
