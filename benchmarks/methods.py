"""Every method on one real task, side by side: trained parameters, peak memory, time, adapter size, accuracy.

`python benchmarks/methods.py FOLDER` with banking77's train.jsonl and test.jsonl in FOLDER. Every method runs in a
process of its own, in turn, on the same rows; the base's answers are computed once. Time is the process's CPU time
while it trains, as a ratio to LoRA's. Accuracy is exact match of the written answer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora"},
    "full": {"kind": "full"},
    "qlora": {"kind": "qlora"},
    "prefix": {"kind": "prefix"},
    "prompt": {"kind": "prompt"},
    "adapters, pfeiffer": {"kind": "adapters"},
    "ia3": {"kind": "ia3"},
    "lora, 8 bits": {"kind": "lora", "bits": 8},
    "lora, DoRA": {"kind": "lora", "dora": True},
    "adapters, houlsby": {"kind": "adapters", "placement": "houlsby"},
    "adapters, parallel": {"kind": "adapters", "placement": "parallel"},
    "full, norms": {"kind": "full", "only": ["norms"]},
    "full, last 4 blocks": {"kind": "full", "layers": 4},
    "lora, PiSSA": {"kind": "lora", "start": "pissa"},
    "peft, VERA": {"kind": "peft", "type": "VERA", "options": {"r": 256}},
}
BASE = "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where train.jsonl and test.jsonl are")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--test", type=int, default=300, help="test rows")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--only", nargs="*", choices=list(METHODS), help="these methods")
    parser.add_argument("--runs", type=Path, help="keep the runs here; those that are finished are not run again")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)       # a run's folder and its recipe, as JSON
    options = parser.parse_args()
    if options.one:
        _one(Path(options.one[0]), json.loads(options.one[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        found = {name: _run(name, options, options.runs or Path(temporary)) for name in options.only or METHODS}
        print(json.dumps(found, indent=2))
        print(_table(found))


def _run(name: str, options: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """One method, in a process of its own."""
    folder = runs / name.replace(", ", "-").replace(" ", "-")
    recipe = {"base": BASE, "method": METHODS[name], "goal": {"metric": "exact_match"},
              "data": {"train": str((options.folder / "train.jsonl").resolve()),
                       "test": str((options.folder / "test.jsonl").resolve()), "prompt": "{text}",
                       "answer": "{category}", "answers": "open", "max_train_rows": options.rows},
              "training": {"epochs": options.epochs, "sample_prompts": 0},
              "evaluation": {"rows": options.test, "max_new_tokens": 12}}
    if not (folder / "methods.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, __file__, str(options.folder), "--one", str(folder), json.dumps(recipe)],
                       check=True, stdout=sys.stderr)
    found: dict[str, Any] = json.loads((folder / "methods.json").read_text(encoding="utf-8"))
    print(name, found, file=sys.stderr, flush=True)
    return found


def _one(folder: Path, given: dict[str, Any]) -> None:
    """Run a recipe and write down what the table shows."""
    import yaml

    from tuneloop import loop
    from tuneloop.recipe import parse
    from tuneloop.record import RunFolder
    from tuneloop.session import Session

    recipe = parse(yaml.safe_dump(given), shown="the benchmark", root=Path.cwd())
    run = RunFolder.create_at(folder)
    loop.begin(recipe, run)
    _known_base(folder, recipe.method.load_options())
    seconds: list[float] = []
    train = Session.train

    def timed(self: Session) -> None:
        began = time.process_time()
        train(self)
        seconds.append(time.process_time() - began)

    Session.train = timed       # type: ignore[method-assign]
    certificate = loop.run(recipe, run)
    record = run.read("record.json")
    kept = run.file(recipe.method.artefact)
    scores = {name: certificate["scores"][name]["exact_match"] for name in ("base", "tuned")}
    found = {"trained": record["trainable_parameters"], "cpu_seconds": round(seconds[0], 1),
             "peak_bytes": record["training"]["peak_memory_bytes"], "steps": record["training"]["steps"],
             "artefact_bytes": sum(p.stat().st_size for p in kept.glob("*.safetensors")), **scores}
    (folder / "methods.json").write_text(json.dumps(found), encoding="utf-8")
    shutil.rmtree(folder / "checkpoints")


def _known_base(folder: Path, options: dict[str, Any]) -> None:
    """The base's answers by an earlier run on the same rows; a quantised base answers for itself."""
    earlier = [] if options else [p for p in folder.parent.glob("*/evaluation/base.json") if (
        p.parents[1] / "methods.json").is_file() and "bits" not in (p.parents[1] / "recipe.yaml").read_text()
        and "qlora" not in (p.parents[1] / "recipe.yaml").read_text()]
    if earlier:
        (folder / "evaluation").mkdir(exist_ok=True)
        shutil.copy(earlier[0], folder / "evaluation" / "base.json")


def _table(found: dict[str, dict[str, Any]]) -> str:
    usual = found.get("lora", next(iter(found.values())))["cpu_seconds"]
    lines = ["| method | trained | peak memory | CPU time / LoRA's | artefact | accuracy | 95 % interval |",
             "|---|---:|---:|---:|---:|---:|---|"]
    for name, row in found.items():
        tuned = row["tuned"]
        lines.append(f"| {name} | {row['trained']:,} | {row['peak_bytes'] / 2**30:.2f} GiB "
                     f"| {row['cpu_seconds'] / usual:.2f} | {row['artefact_bytes'] / 2**20:.1f} MiB "
                     f"| {tuned['value']:.1%} | {tuned['low']:.1%} to {tuned['high']:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
