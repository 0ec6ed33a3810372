"""The demo with three seeds: does the lower bound of tuned − base hold, and how long does it take?

Each seed draws its own rows, split, initialisation and order. `python benchmarks/demo_seeds.py [--runs FOLDER]`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEEDS = (0, 1, 2)
COLUMNS = ("seed", "rows", "base", "tuned", "rival", "tuned − base", "95 % interval", "verdict", "wall s", "stages s",
           "peak GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="keep the runs here instead of a temporary folder")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
        for seed in SEEDS:
            print(one(seed, runs or Path(temporary)), flush=True)


def one(seed: int, runs: Path) -> str:
    """One row of the table."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tuneloop", "demo", f"seed={seed}", "--json", "--runs", str(runs)],
                          capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode not in (0, 3, 4):
        raise SystemExit(done.stderr)
    certificate = json.loads(done.stdout)
    record = json.loads((Path(certificate["folder"]) / "record.json").read_text(encoding="utf-8"))
    scores = {name: f"{s['accuracy']['value']:.1%}" for name, s in certificate["scores"].items()}
    gain = next(d for d in certificate["differences"]
                if (d["metric"], d["from"], d["to"]) == ("accuracy", "base", "tuned"))
    stages = ", ".join(f"{k} {v:.0f}" for k, v in record["timings_seconds"].items())
    cells = [str(seed), str(certificate["test_rows"]), scores["base"], scores["tuned"], scores.get("rival", "not run"),
             f"{100 * gain['value']:+.1f}", f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}",
             certificate["verdict"], f"{seconds:.0f}", stages, f"{record['training']['peak_memory_bytes'] / 2**30:.1f}"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
