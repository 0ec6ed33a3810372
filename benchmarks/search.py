"""Does a search beat the defaults on banking77 (77 intents of a bank's customers)?

`python benchmarks/search.py FOLDER/banking77 [--runs DIR] [--minutes M] [--trials N] [--rows N] [--data]`, where the
folder holds train.jsonl and test.jsonl. One `tuneloop search`; one that was cut off goes on. Prints whether it beat the
defaults, and what every trial reached. With --data: how much data it takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--data", action="store_true")
    options = parser.parse_args()
    kind = "data" if options.data else "search"
    folder = options.runs / f"banking77.{kind}"
    if not (folder / f"{kind}.json").is_file():
        run(options, folder)
    result = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
    tell_curve(result) if options.data else tell_search(result)


def recipe(folder: Path, rows: int) -> dict[str, Any]:
    return {
        "base": "smollm2-135m-instruct", "name": "banking77",
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "max_train_rows": rows,
                 "prompt": "What is this customer of a bank asking about?\n\n{text}", "answer": "{category}",
                 "split": {"validation": 200}},
        "goal": {"metric": "accuracy", "better_than_base_by": 0.2},
        "evaluation": {"rows": 200, "prompt_search": 16, "suites": []}}


def run(options: argparse.Namespace, folder: Path) -> None:
    """In a process of its own, as a user would."""
    words = ["--data"] if options.data else []
    for name in ("minutes", "trials"):
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    if folder.is_dir():
        words += ["--resume", str(folder)]
    else:
        file = options.runs / "banking77.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(recipe(options.folder.resolve(), options.rows), sort_keys=False),
                        encoding="utf-8")
        words.append(str(file))
    done = subprocess.run([sys.executable, "-m", "tuneloop", "search", *words, "--runs", str(options.runs)],
                          check=False, stdout=sys.stderr)
    if done.returncode not in (0, 3, 4):
        raise SystemExit(f"exit code {done.returncode}")


def tell_search(result: dict[str, Any]) -> None:
    """The sentence, and what it rests on."""
    print(result["sentence"])
    for which, of in result.get("certified", {}).items():
        print(f"{which}: {of['sentence']}")
    for one in result["trials"]:
        value = "" if one["value"] is None else f"{one['value']:.3f}"
        print(f"  {one['number']:>3} {one['kind']:<16} {one['state']:<9} {value:<6} {one['seconds']:>6.0f} s  "
              f"{json.dumps(one['values'])}  {one['why']}")
    print(f"spent: {json.dumps(result['spent'])}; importances: {json.dumps(result['importances'])}")


def tell_curve(result: dict[str, Any]) -> None:
    """The points, the law and the advice."""
    for one in result["points"]:
        print(f"  {one['rows']:>5} rows: {', '.join(f'{score:.3f}' for score in one['scores'])}")
    print("\n".join(result["advice"]))


if __name__ == "__main__":
    main()
