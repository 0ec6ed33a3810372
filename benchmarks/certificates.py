"""Three real certificates, from recipes as a user would write them: intents, film reviews, support answers.

`python benchmarks/certificates.py FOLDER [--runs DIR] [--only banking77 sst2 support]`, where FOLDER holds the sets
banking77, sst2 and bitext_customer_support as folders of JSONL files. Each is one `tuneloop run`; a run that was cut
off is resumed. Prints what a reader of the first screen sees.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tuneloop.evaluation.findings import findings
from tuneloop.record import RunFolder

BASE = "smollm2-135m-instruct"
RECIPES: dict[str, dict[str, Any]] = {
    "banking77": {
        "data": {"train": "banking77/train.jsonl", "test": "banking77/test.jsonl", "max_train_rows": 800,
                 "prompt": "What is this customer of a bank asking about?\n\n{text}", "answer": "{category}",
                 "split": {"validation": 128}},
        "goal": {"metric": "accuracy", "at_least": 0.6, "better_than_base_by": 0.2, "max_forgetting": 0.05},
        "training": {"epochs": 2}, "evaluation": {"rows": 120, "prompt_search": 16}},
    "sst2": {
        "data": {"train": "sst2/train.jsonl", "test": "sst2/test.jsonl", "max_train_rows": 600,
                 "prompt": "Is this film review positive (1) or negative (0)?\n\n{sentence}", "answer": "{label}",
                 "split": {"validation": 64}},
        "training": {"epochs": 2},
        "goal": {"metric": "accuracy", "at_least": 0.8, "better_than_base_by": 0.05, "better_than_few_shot_by": 0.0},
        "evaluation": {"rows": 400, "prompt_search": 30}},
    "support": {
        "data": {"train": "bitext_customer_support/train.jsonl", "max_train_rows": 300, "prompt": "{instruction}",
                 "answer": "{response}", "max_length_tokens": 512, "over_length": "drop",
                 "split": {"test": 0.03, "validation": 48}},
        "goal": {"metric": "rouge_l", "better_than_base_by": 0.02}, "training": {"epochs": 2},
        "evaluation": {"rows": 60, "max_new_tokens": 120, "prompt_search": 0}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    options = parser.parse_args()
    for name in options.only:
        run(name, options.folder.resolve(), options.runs / name)
        tell(name, options.runs / name)


def run(name: str, data: Path, folder: Path) -> None:
    """One run, in a process of its own."""
    if (folder / "certificate.json").is_file():
        return
    words = ["--resume", str(folder)]
    if not (folder / "recipe.yaml").is_file():
        recipe = {"base": BASE, "name": name, **RECIPES[name]}
        for part in ("train", "test"):
            if part in recipe["data"]:
                recipe["data"] = recipe["data"] | {part: str(data / recipe["data"][part])}
        file = folder.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        words = [str(file), "--folder", str(folder)]
    done = subprocess.run([sys.executable, "-m", "tuneloop", "run", *words], check=False, stdout=sys.stderr)
    if done.returncode not in (0, 3, 4):
        raise SystemExit(f"{name}: exit code {done.returncode}")


def tell(name: str, folder: Path) -> None:
    """The sentence and the findings, and the figures that they must match."""
    certificate = RunFolder(folder).read("certificate.json")
    print(f"\n{name}: {certificate['sentence']}")
    for finding in findings(certificate):
        print(" ", " ".join(filter(None, (finding.question, finding.answer, "–", finding.text))))
    print(json.dumps({key: certificate.get(key) for key in ("scores", "checks")}, indent=1))
    print(f"  seconds by stage: {RunFolder(folder).read('record.json')['timings_seconds']}", flush=True)


if __name__ == "__main__":
    main()
