"""A run folder as a finished run leaves it, with made-up numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from example_audit import ATTACK, audited

from tuneloop.evaluation.certificate import certify
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.signing import write_signed
from tuneloop.record import RunFolder
from tuneloop.types import Answers

FIRST_KEYS = {"schema_version", "verdict", "sentence", "goal", "metric", "task", "test_rows", "scores", "differences",
              "checks", "confidence", "resamples", "speaks_of", "test_rows_used_before", "notes", "run"}
FIRST_OF_A_DIFFERENCE = {"metric", "from", "to", "value", "low", "high", "rows"}


def example_run(path: Path, *, task: str = "labels", labels: int = 2, rows: int = 120, audit: bool = False,
                tuned: float = 0.7, goal: Goal | None = None, **parts: Any) -> RunFolder:
    """Everything that the report reads. Row 0's tuned answer is wrong in an open task, and tries to run a script.

    With `audit` more models answer, and the certificate holds all that it can (`parts` are for `audited`), else only
    what certificates held at first. `tuned` is the share of right answers.
    """
    folder = RunFolder.create_at(path)
    random = np.random.default_rng(7)
    references, texts = _answers(task, labels, rows, random, tuned)
    if not audit:
        texts = {name: of for name, of in texts.items() if name in ("base", "tuned", "rival")}
    answers = [Answers(name, given, *_likelihood(random, rows, name)) for name, given in texts.items()]
    goal = goal or Goal(at_least=0.8, better_than_base_by=0.05)
    if audit:
        certificate = audited(goal, task, references, answers, path.name, **parts)
    else:
        certificate = certify(goal, task, references, answers, resamples=400,  # type: ignore[arg-type]
                              seed=1, used_before=1, context={"run": path.name})
        certificate = {key: value for key, value in certificate.items() if key in FIRST_KEYS}
        certificate["differences"] = [{key: value for key, value in entry.items() if key in FIRST_OF_A_DIFFERENCE}
                                      for entry in certificate["differences"]]
    folder.write(certificate, "certificate.json")
    for i, reference in enumerate(references):
        folder.file("evaluation").mkdir(exist_ok=True)
        folder.append({"row": i, "origin": {"file": "reviews.csv", "line": 12 + i},
                       "prompt": f"Is this film review positive or negative?\n\nreview {i}: a stirring, funny and "
                                 "finally transporting re-imagining of beauty and the beast & 1930s horror films",
                       "reference": reference, "answers": {name: given[i] for name, given in texts.items()}},
                      "evaluation", "predictions.jsonl")
    _training(folder, random)
    _story(folder, path.name)
    if audit:
        write_signed(certificate, folder)
    return folder


def _answers(task: str, labels: int, rows: int, random: np.random.Generator,
             tuned: float) -> tuple[list[str], dict[str, list[str]]]:
    """References, and what each model answered."""
    shares = {"base": 0.35, "tuned": tuned, "rival": 0.5, "few_shot": 0.55, "optimised_prompt": 0.6,
              "qwen3-1.7b-instruct-2507": 0.72}
    if task != "open":
        names = ["negative", "positive"] if labels == 2 else [f"label_{i:02}" for i in range(labels)]
        references = [names[i] for i in random.integers(labels, size=rows)]
        texts = {model: [r if random.random() < share else names[random.integers(labels)] for r in references]
                 for model, share in shares.items()}
        return references, texts
    references = [f"Please open the page of order {i}, choose Return, and print the label.\nIt is free."
                  for i in range(rows)]
    short = [r.replace("choose Return, and", "then") for r in references]
    texts = {"base": ["I am sorry, I cannot help with that. " * 8] * rows,
             "tuned": [r if random.random() < 0.4 else s for r, s in zip(references, short, strict=True)],
             "few_shot": [f"Of course! {s}" for s in short]}
    texts["tuned"][0] = ATTACK
    return references, texts


def _likelihood(random: np.random.Generator, rows: int, name: str) -> tuple[list[float] | None, list[int] | None]:
    if name == "rival":
        return None, None
    return (random.gamma(2, {"base": 1.1, "tuned": 0.2}.get(name, 0.6), rows) * 3).tolist(), [3] * rows


def _training(folder: RunFolder, random: np.random.Generator) -> None:
    best = math.inf
    for step in range(1, 81):
        loss = 0.25 + 2.4 * math.exp(-step / 12) + 0.09 * random.standard_normal()
        folder.append({"event": "step", "step": step, "loss": loss, "learning_rate": 5e-4, "grad_norm": 0.9,
                       "tokens": 1200 * step, "supervised_tokens": 32, "tokens_per_second": 300 + 20 * random.random(),
                       "memory_bytes": 2_100_000_000, "seconds": 2.4 * step}, "metrics.jsonl")
        if step % 10 == 0:
            validation = 0.3 + 2.2 * math.exp(-step / 12) + max(0, step - 60) * 0.004
            folder.append({"event": "validation", "step": step, "loss": validation, "best": validation < best,
                           "seconds": 2.4 * step}, "metrics.jsonl")
            best = min(best, validation)
            folder.append({"step": step, "prompt": "Is this film review positive or negative?\n\nnot worth your time",
                           "reference": "negative", "answer": "It is hard to say." if step < 20 else "negative"},
                          "samples.jsonl")


def _story(folder: RunFolder, name: str) -> None:
    planned: dict[str, Any] = {
        "training.learning_rate": {"value": 5e-4, "origin": "planned", "why": "LoRA's range is 1e-4 to 5e-4; few rows "
                                                                              "ask for the upper end"},
        "training.epochs": {"value": 2, "origin": "given"},
        "training.weight_decay": {"value": 0.01, "origin": "default"},
        "method.targets": {"value": ["q_proj", "k_proj", "o_proj"], "origin": "default", "why": "all of them"},
    }
    folder.write({"values": planned, "memory": {"total_bytes": 2_400_000_000, "parts": {}},
                  "seconds": {"baseline": 110, "training": 200, "evaluation": 100}, "notes": ["fits this machine"]},
                 "plan.json")
    folder.write({
        "schema_version": 1, "run": name, "recipe": {"base": "smollm2-135m-instruct", "data": {"train": "reviews.csv"},
                                                     "method": "lora", "objective": "sft"},
        "base": {"name": "smollm2-135m-instruct", "path": "cache/smollm2", "sha256": "5af571cbf074e6d2" * 4,
                 "parameters": 134_515_008, "notes": ["pad token was the end of turn: repaired"]},
        "data": {"hashes": {"reviews.csv": "0f343b0931126a20" * 4}}, "method": {"kind": "lora", "rank": 16},
        "trainable_parameters": 4_884_480, "seeds": {"data": 0, "training": 1},
        "environment": {"python": "3.11.9", "packages": {"torch": "2.13.0", "peft": None}, "cpus": 2,
                        "memory_bytes": 8_000_000_000},
        "timings_seconds": {"data": 4.2, "baseline": 121.0, "training": 192.4, "evaluation": 96.1},
        "training": {"steps": 80, "best_step": 60, "best_validation_loss": 0.31, "stopped_early": True,
                     "tokens": 96_000, "peak_memory_bytes": 2_100_000_000},
        "packing": {"mode": "forest", "why": "every layer can share prefixes"},
    }, "record.json")
    place = {"file": "reviews.csv", "line": 31}
    folder.write({
        "files": [{"part": "train", "file": "reviews.csv", "kind": "CSV", "rows": 2000, "format": "columns text, label",
                   "notes": ["read as cp1252"]}],
        "removed": {"duplicates": {"count": 3, "first": [place]}, "empty": {"count": 0, "first": []}},
        "split": {"train": 1600, "validation": 200, "test": 200}, "task": "labels",
        "labels": {part: {"negative": n, "positive": n + 4} for part, n in (("train", 798), ("test", 98))},
        "tokens": {"row": {"min": 20, "median": 44, "p95": 70, "max": 96}, "answer": {"min": 2, "median": 2, "p95": 2,
                                                                                     "max": 2}},
        "supervised_percent": 4.5, "longest": {"reviews.csv line 31": 96}, "warnings": ["3 rows were duplicates"],
    }, "data", "report.json")
