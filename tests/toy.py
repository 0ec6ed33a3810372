"""A task that a tiny base learns in seconds, and short ways to run it: in this process or as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from tuneloop import loop
from tuneloop.recipe import Recipe, parse
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent
from tuneloop.types import Conversation, Preference, Rated, Rollout

COLOURS = {"red": "positive", "blue": "negative"}


ALONE = {"few_shot": 0, "prompt_search": 0, "suites": []}
"""Nobody but base and tuned model, and nothing but the test rows: seconds instead of minutes."""


def labels_csv(rows: int = 60) -> str:
    """Rows whose label is the colour, by another word."""
    lines = [f"thing {i} is {colour},{COLOURS[colour]}" for i in range(rows) for colour in [list(COLOURS)[i % 2]]]
    return "\n".join(["text,label", *lines, ""])


def open_rows(rows: int = 40) -> list[dict[str, str]]:
    """Prompt and completion; every answer is a text of its own."""
    return [{"prompt": f"Where is order {i}?", "completion": f"We are sorry; order {i} has not arrived yet."}
            for i in range(rows)]


def chat_rows(rows: int = 40) -> list[dict[str, Any]]:
    """The same as conversations."""
    return [{"messages": [{"role": "user", "content": row["prompt"]},
                          {"role": "assistant", "content": row["completion"]}]} for row in open_rows(rows)]


GOOD, BAD = "We are sorry; please send us the order number.", "The plot is thin, the jokes are old."


def judged_rows(kind: type[Any], count: int = 80) -> list[dict[str, Any]]:
    """Rows of a kind of sample: polite answers are right, film criticism is wrong."""
    asked = [f"Where is order {i}?" for i in range(count)]
    return {
        Conversation: [{"prompt": q, "completion": f"{GOOD} {i}"} for i, q in enumerate(asked)],
        Preference: [{"prompt": q, "chosen": GOOD, "rejected": BAD} for q in asked],
        Rated: [{"prompt": q, "completion": GOOD if i % 2 else BAD, "label": bool(i % 2)} for i, q in enumerate(asked)],
        Rollout: [{"prompt": q, "completions": [GOOD, BAD, f"{GOOD} {i}", f"{BAD} {i}"], "rewards": [1, 0, 0.9, 0.1]}
                  for i, q in enumerate(asked)],
    }[kind]


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labels_recipe(folder: Path, base: Path, **changes: Any) -> Recipe:
    """A recipe for coloured things, whose rows are written into `folder`. `training` is merged, other keys replaced."""
    (folder / "rows.csv").write_text(labels_csv())
    return _recipe(folder, base, changes, data={"train": "rows.csv", "prompt": "{text}", "answer": "{label}"})


def open_recipe(folder: Path, base: Path, **changes: Any) -> Recipe:
    """A recipe for orders."""
    write_jsonl(folder / "rows.jsonl", open_rows())
    return _recipe(folder, base, changes, data={"train": "rows.jsonl"}, evaluation={"max_new_tokens": 24})


def _recipe(folder: Path, base: Path, changes: dict[str, Any], **given: Any) -> Recipe:
    training = {"epochs": 4, "batch_size": 8, "learning_rate": 0.01, "evaluate_every": 5, "sample_prompts": 1}
    given = {"base": str(base), "method": {"kind": "lora", "rank": 4}, "evaluation": {}} | given | changes
    given["training"] = training | changes.get("training", {})
    given["evaluation"] = ALONE | given["evaluation"]
    text = yaml.safe_dump(given)
    (folder / "recipe.yaml").write_text(text)
    return parse(text, shown="recipe.yaml", root=folder)


def run(recipe: Recipe, folder: Path, until: str = "evaluate", watch: Any = None) -> dict[str, Any]:
    """A new run in `folder`, up to `until`; its certificate or record."""
    made = RunFolder.create_at(folder)
    loop.begin(recipe, made)
    return loop.run(recipe, made, watch, until)


def resume(recipe: Recipe, folder: Path, until: str = "evaluate") -> dict[str, Any]:
    return loop.run(recipe, RunFolder.open(folder), None, until)


def metrics(folder: Path, event: str = "step") -> list[dict[str, Any]]:
    return [line for line in RunFolder(folder).lines("metrics.jsonl") if line["event"] == event]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


def weights(folder: Path) -> dict[str, Any]:
    """What was trained, whichever method trained it."""
    adapter = folder / "adapter" / "adapter_model.safetensors"
    return load_file(adapter if adapter.exists() else folder / "model" / "model.safetensors")


def same_bits(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    return all(np.array_equal(one[name], other[name]) for name in one)


def decided(folder: Path) -> dict[str, Any]:
    """The certificate without the name of its run, and what is told of the time."""
    certificate: dict[str, Any] = RunFolder(folder).read("certificate.json")
    assert certificate.pop("run") == folder.name
    assert certificate.pop("costs")
    assert certificate.pop("signature")["files"]
    return certificate


class Interrupting(Silent):
    """Acts once when the training step `step` is reported."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def metric(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "step" and entry["step"] == self.step:
            self.action()


CUT_OFF = """
import os, signal, sys
from tuneloop import cli, terminal

class Cut(terminal.Terminal):
    def metric(self, entry):
        super().metric(entry)
        if entry["event"] == "step" and entry["step"] == int(step):
            exec(action)

terminal.Terminal = Cut
step, action = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
cli.main()
"""
"""The command line, with something that happens after a step: for `python`, with the step and the code first."""


def tuneloop(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own. A traceback on standard error is never right."""
    done = subprocess.run([sys.executable, "-m", "tuneloop", *map(str, words)], cwd=cwd, text=True, check=False,
                          capture_output=True, env=os.environ | {"COLUMNS": "200"})
    assert "Traceback" not in done.stderr, done.stderr
    return done


def python(code: str, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own that can import the helpers of the tests."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=cwd, text=True, check=False,
                          capture_output=True, env=environment)
