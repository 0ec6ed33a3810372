"""How long `tuneloop check` takes and how much memory, on one core: `python benchmarks/checking.py [--rows 100000]`.

Rows are generated: short support questions and answers, with exact and near copies, e-mail addresses, cards, damaged
letters and contradictions among them. The command runs as a process of its own; its first line with a finding is
timed, its peak memory comes from the kernel, and its JSON is compared with what was put in. Model-based checks are no
part of it. The row is appended to benchmarks/results/checking-<date>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THINGS = [
    "order", "parcel", "invoice", "refund", "voucher", "account", "password", "delivery", "courier", "address",
    "payment", "card", "subscription", "receipt", "warranty", "exchange", "basket", "newsletter", "appointment",
    "contract", "meter", "router", "ticket", "seat", "booking",
]
STATES = [
    "late", "missing", "broken", "wrong", "cancelled", "doubled", "unpaid", "locked", "expired", "delayed",
    "lost", "damaged", "refused", "changed", "confirmed", "incomplete", "blocked", "pending", "overdue",
    "returned",
]
ASKS = ("Where is", "Why is", "What happened to", "Who can help with", "How do I change", "Please check", "I ask about",
        "Nobody answers about", "Since Monday I wait for", "Can you explain")
COPIES = {"exact": 0.01, "near": 0.02}
PLANTED = {"email": 0.002, "damaged": 0.001}


def rows(count: int, seed: int = 0) -> Any:
    """`count` rows as dictionaries, in bounded memory."""
    draw = random.Random(seed)
    earlier: list[dict[str, str]] = []
    for number in range(count):
        luck = draw.random()
        if earlier and luck < COPIES["exact"]:
            yield draw.choice(earlier)
            continue
        if earlier and luck < COPIES["exact"] + COPIES["near"]:
            original = draw.choice(earlier)
            yield {**original, "prompt": original["prompt"] + " Thanks"}
            continue
        row = _row(draw, number)
        if draw.random() < PLANTED["email"]:
            row["prompt"] += f" Write to {draw.choice(THINGS)}.{number}@mail.test-shop.com."
        if draw.random() < PLANTED["damaged"]:
            row["completion"] = row["completion"].replace("e", "\ufffd", 1)
        if len(earlier) < 1000:
            earlier.append(row)
        else:
            earlier[draw.randrange(1000)] = row
        yield row


def _row(draw: random.Random, number: int) -> dict[str, str]:
    thing, other, state = draw.choice(THINGS), draw.choice(THINGS), draw.choice(STATES)
    words = " ".join(draw.choice(THINGS + STATES) for _ in range(6))
    question = f"{draw.choice(ASKS)} my {state} {thing} and the {other}, number {number * 7919 % 10**9}? {words}."
    return {"prompt": question,
            "completion": f"Your {thing} was {draw.choice(STATES)} on day {draw.randrange(365)}; we look into the "
                          f"{other} and its {draw.choice(STATES)} {draw.choice(THINGS)}."}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for row in rows(given.rows):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{given.rows:,} rows, {file.stat().st_size / 2**20:.0f} MB", flush=True)
        measured = [measure(file) for _ in range(given.repeats)]
    for one in measured:
        print(json.dumps(one))
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / f"checking-{date.today()}.json"
    before = json.loads(kept.read_text()) if kept.exists() else []
    entry = {"at": datetime.now().isoformat(timespec="seconds"), "rows": given.rows, "runs": measured}
    kept.write_text(json.dumps([*before, entry], indent=1) + "\n")


def measure(file: Path) -> dict[str, Any]:
    """Seconds to the first finding, in all, of the processor; peak memory; how many findings of each check."""
    command = [sys.executable, "-m", "tuneloop", "check", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=on_one_core)
    assert process.stdout is not None
    first, lines = 0.0, []
    for line in process.stdout:
        first = first or (time.perf_counter() - began if line.strip().startswith(("fix", "note", "blocks")) else 0.0)
        lines.append(line.rstrip())
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"first_finding_seconds": round(first, 1), "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
            "peak_mib": round(after.ru_maxrss / 1024), "exit_code": process.returncode, "verdict": lines[-1]}


def on_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
