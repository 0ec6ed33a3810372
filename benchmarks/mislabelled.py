"""How well wrong labels are found: `python benchmarks/mislabelled.py DATA_FOLDER [--rate 0.05] [--seeds 3]`.

Some labels of banking77's train rows are flipped to others, each as likely. tuneloop's small model tells how likely
every label is for every row that it did not learn; from these same numbers tuneloop and cleanlab say which labels are
wrong. Precision and recall are those of the flipped rows: the set has wrong labels of its own, so that no precision can
reach 1. `clean` is how many rows are named where nothing is flipped. Appended to
benchmarks/results/mislabelled-<date>.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues

from tuneloop.data.checks._keyed import keys_of
from tuneloop.data.checks.mislabelled import SURE
from tuneloop.data.labels.predict import FOLDS, out_of_sample
from tuneloop.data.labels.suspects import suspects

RESULTS = Path(__file__).parent / "results"
Finder = Callable[[Any, Any], Any]      # labels (n,), probabilities (n, K) -> numbers of the rows that are wrong


def ours(labels: Any, probabilities: Any, **options: Any) -> Any:
    return suspects(labels, probabilities, **options).rows


def theirs(labels: Any, probabilities: Any, **options: Any) -> Any:
    return np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1, **options))


FINDERS: dict[str, tuple[Finder, Finder]] = {
    "defaults": (partial(ours, least_margin=SURE), theirs),
    "prune by class": (partial(ours, prune="class"), partial(theirs, filter_by="prune_by_class")),
    "prune by noise rate": (partial(ours, prune="noise_rate"), partial(theirs, filter_by="prune_by_noise_rate")),
    "both": (partial(ours, prune="both"), partial(theirs, filter_by="both")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    with (given.data / "banking77" / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    names = sorted({row["category"] for row in rows})
    texts, right = [row["text"] for row in rows], np.array([names.index(row["category"]) for row in rows])
    measured = [measure(texts, right, given.rate, seed) for seed in range(given.seeds)]
    clean = measure(texts, right, 0.0, 0)
    told = {name: {side: {what: round(float(np.mean([run[name][side][what] for run in measured])), 3)
                          for what in ("precision", "recall", "named")} | {"clean": clean[name][side]["named"]}
                   for side in ("ours", "cleanlab")} |
            {"overlap": round(float(np.mean([run[name]["overlap"] for run in measured])), 3)} for name in FINDERS}
    for name, sides in told.items():
        print(name, json.dumps(sides))
    print(f"the model: {measured[0]['model_seconds']} s")
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / f"mislabelled-{date.today()}.json"
    before = json.loads(kept.read_text()) if kept.exists() else []
    entry = {"at": datetime.now().isoformat(timespec="seconds"), "rows": len(rows), "labels": len(names),
             "rate": given.rate, "seeds": given.seeds, "mean": told,
             "model_seconds": [run["model_seconds"] for run in measured],
             "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    kept.write_text(json.dumps([*before, entry], indent=1) + "\n")


def measure(texts: list[str], right: Any, rate: float, seed: int) -> dict[str, Any]:
    """What each finder finds, with labels flipped by a seed; seconds of the processor."""
    draw = np.random.default_rng(seed)
    flipped = draw.random(len(right)) < rate
    labels = right.copy()
    labels[flipped] = (right[flipped] + draw.integers(1, right.max() + 1, flipped.sum())) % (right.max() + 1)
    folds = (keys_of(texts) % np.uint64(FOLDS)).astype(np.int64)
    began = time.process_time()
    probabilities = out_of_sample(texts, labels, folds)
    found: dict[str, Any] = {"model_seconds": round(time.process_time() - began, 1)}
    for name, (our, their) in FINDERS.items():
        a, b = set(our(labels, probabilities).tolist()), set(their(labels, probabilities).tolist())
        wrong = set(np.flatnonzero(flipped).tolist())
        found[name] = {"ours": score(a, wrong), "cleanlab": score(b, wrong), "overlap": len(a & b) / len(a | b)}
    return found


def score(named: set[int], wrong: set[int]) -> dict[str, float]:
    return {"precision": len(named & wrong) / max(1, len(named)), "recall": len(named & wrong) / max(1, len(wrong)),
            "named": len(named)}


if __name__ == "__main__":
    main()
