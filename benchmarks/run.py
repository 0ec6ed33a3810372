"""Exact prefix sharing against padded batches and against the peers, on equal rows, weights, losses and flags.

`python benchmarks/run.py [--only NAME ...] [--repeats N] [--data FOLDER] [--peers]`; SmolLM2-135M, LoRA rank 16 on all
linear layers, fp32, dropout 0, no activation checkpointing. Losses of the first steps must agree before a time counts;
then the sides take turns, and the ratio is taken pair by pair. Results are printed as a table and appended to
benchmarks/results/<date>.json.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch
from baseline import Kind, Padded
from measure import CHECKED, Row, compare, interval, keep, markdown, row_of, take_turns
from memory import measured
from real_sets import SETS, render
from real_sets import steps as real_steps
from sides import LEARNING_RATE, TOKEN_BUDGET, Initial, Ours, Side, base_folder, lora
from workloads import Make, Shape, chats, preferences, rollouts, with_old
from workloads import sft as sft_steps

from tuneloop.compute.cut import cut_step
from tuneloop.compute.flops import Meter
from tuneloop.compute.model import ForestModel
from tuneloop.inference.columns import ColumnCache, Scorer
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.objectives import dpo, grpo, sft
from tuneloop.objectives.base import Objective
from tuneloop.types import Group

FIRST, SECOND = Shape(256, 24, 16, 8), Shape(512, 32, 32, 16)
PAIRS = (256, 64, 4)            # tokens of prompt and response, pairs per step
ROLLOUTS = (512, 64, 8)         # tokens of prompt and response, responses per prompt
CHATS = 8                       # rows per step
RESULTS = Path(__file__).parent / "results"
DPO, GRPO = dpo.Objective(beta=0.1), grpo.Objective(beta=0.0, epsilon=0.2)
Emit = Callable[[Row], None]


class Bench:
    """The models that sides train, loaded once, and how often rows repeat."""

    def __init__(self, given: argparse.Namespace, emit: Emit, scratch: Path) -> None:
        self.given, self.emit, self.scratch = given, emit, scratch
        self._models: list[Any] = []
        self._initial: Initial | None = None

    def repeats(self, default: int) -> int:
        """Timed steps of a row, not fewer than those whose losses are compared."""
        return max(CHECKED, self.given.repeats or default)

    def model(self, number: int) -> Any:
        """A PEFT model of its own for side `number`, with the initial weights."""
        while len(self._models) <= number:
            self._models.append(lora())
        self._initial = self._initial or Initial.of(self._models[0])
        self._initial.restore(self._models[number])
        return self._models[number]

    def padded(self, kind: Kind) -> Padded:
        return Padded(self.model(0), kind, LEARNING_RATE)

    def ours(self, objective: Objective, cache: str | None = None, number: int = 1) -> Ours:
        kept = None if cache is None else ColumnCache(self.scratch / f"{cache}.db")
        return Ours(self.model(number), objective, LEARNING_RATE, kept)

    def ready(self, sides: list[Side], warm: list[Group]) -> None:
        """One untimed step of every side, after which all begin again at the initial weights."""
        assert self._initial is not None
        for side in sides:
            side.step(warm)
            self._initial.restore(side.model)
            side.reset()

    def steps(self, make: Make, default: int) -> list[list[Group]]:
        return [make(step) for step in range(1, 1 + self.repeats(default))]

    def pair(self, workload: str, make: Make, goal: float, default: int, note: str = "") -> tuple[Padded, Ours, Row]:
        """Padded against ours on a workload of instruction tuning."""
        theirs, ours = self.padded("sft"), self.ours(sft.Objective())
        self.ready([theirs, ours], make(0))
        row = compare(workload, theirs, ours, self.steps(make, default), goal, note)
        self.emit(row)
        return theirs, ours, row


def first(bench: Bench) -> None:
    """The first row, and how busy either side keeps the machine while at it."""
    make = sft_steps(FIRST)
    theirs, ours = bench.padded("sft"), bench.ours(sft.Objective())
    meters = [Meter(ForestModel(theirs.model)), ours.meter]
    sides: list[Side] = [theirs, ours]
    for side, meter in zip(sides, meters, strict=True):
        with meter.counting():
            bench.ready([side], make(0))
    row = compare("SFT, prefix 256", theirs, ours, bench.steps(make, 5), 3.8, "256 / 24 / 16 tokens, 8 rows")
    bench.emit(row)
    samples = [r for group in make(1) for r in group.branches]
    rates = []
    for meter, name, share in zip(meters, ("other", "ours"), (False, True), strict=True):
        pieces = cut_step(samples, TOKEN_BUDGET if share else 10 ** 9, share=share)
        rates.append([copy.copy(meter).utilisation(pieces, step["seconds"]) for step in row.details[name]])
    busy, low, high = interval(rates[1])
    bench.emit(Row("utilisation, prefix 256", "rate of the linear layers alone", busy, low, high, 0.75,
                   note=f"executed FLOPs; transformers + PEFT: {statistics.median(rates[0]):.2f}"))
    middle, low, high = interval([b / a for a, b in zip(*rates, strict=True)])
    bench.emit(Row("utilisation, prefix 256", "transformers + PEFT", middle, low, high, 1.0,
                   note="ours over theirs, each of the rate at its own number of tokens"))


def second(bench: Bench) -> None:
    bench.pair("SFT, prefix 512", sft_steps(SECOND), 5.0, 3, "512 / 32 / 32 tokens, 16 rows")


def mixed(bench: Bench) -> None:
    bench.pair("SFT, mixed chat", chats(CHATS, grouped=False), 1.3, 3, "nothing shared; rows in random order")


def bucketed(bench: Bench) -> None:
    bench.pair("SFT, mixed chat, length-bucketed", chats(CHATS, grouped=True), 1.0, 3,
               "nothing shared; rows of a step of similar length on both sides")


def preference(bench: Bench) -> None:
    """DPO, with the reference model's log-probs computed in the step and found in the cache."""
    make = preferences(*PAIRS)
    theirs, ours, cached = bench.padded("dpo"), bench.ours(DPO, "computed"), bench.ours(DPO, "cached", number=2)
    steps = bench.steps(make, 3)
    for groups in steps:
        cached.with_reference(groups)
    bench.ready([theirs, ours, cached], make(0))
    done = take_turns([theirs, ours, cached], steps)
    note = "prompt 256, responses 64, 4 pairs; theirs asks the reference model in every step"
    bench.emit(row_of("DPO", theirs.name, done[0], done[1], 1.5, note))
    bench.emit(row_of("DPO, reference cached", theirs.name, done[0], done[2], 2.0, note))


def rollout_steps(bench: Bench, make: Make, numbers: range) -> list[list[Group]]:
    """Steps of GRPO with the log-probs of the initial policy."""
    cache = ColumnCache(bench.scratch / "old.db")
    found = []
    for groups in map(make, numbers):
        scorer = Scorer(lambda: (ForestModel(bench.model(0)), True), "initial", cache, token_budget=TOKEN_BUDGET)
        columns = scorer.columns([r for group in groups for r in group.branches])
        found.append(with_old(groups, [c["logprobs"] for c in columns]))
    return found


def policy(bench: Bench) -> None:
    """GRPO's update on given rollouts."""
    warm, *steps = rollout_steps(bench, rollouts(*ROLLOUTS), range(1 + bench.repeats(3)))
    theirs, ours = bench.padded("grpo"), bench.ours(GRPO)
    bench.ready([theirs, ours], warm)
    bench.emit(compare("GRPO, update", theirs, ours, steps, 3.3,
                       "prompt 512, responses 64, 8 per prompt; old log-probs given, no reference model"))


def memory(bench: Bench) -> None:
    """Peak memory above the loaded model, in fresh processes."""
    threads = bench.given.threads
    found = {side: [measured(side, FIRST, 2, threads) / 2**30 for _ in range(bench.given.repeats or 1)]
             for side in ("padded", "ours")}
    ratio, low, high = interval([b / a for a, b in zip(found["padded"], found["ours"], strict=True)])
    bench.emit(Row("peak memory, prefix 256", "transformers + PEFT", ratio, low, high, 0.4,
                   statistics.median(found["padded"]), statistics.median(found["ours"]), at_most=True,
                   note="ours over theirs, above the loaded model; GiB in place of seconds"))


def real(bench: Bench) -> None:
    """The training stage on twelve public sets."""
    if bench.given.data is None:
        bench.emit(Row("real sets", "transformers + PEFT", None, None, None, 1.5,
                       note="not run: no folder given by --data or TUNELOOP_BENCH_DATA"))
        return
    tokenizer, ratios, worst = ChatTokenizer(base_folder()), [], None
    for chosen in SETS:
        steps = real_steps(render(chosen, bench.given.data, tokenizer), bench.repeats(2))
        theirs, ours = bench.padded("sft"), bench.ours(sft.Objective())
        if worst is None:
            bench.ready([theirs, ours], steps[0])
        row = whole(f"real: {chosen.name}", theirs, ours, steps)
        bench.emit(row)
        assert row.ratio is not None
        ratios.append(row.ratio)
        worst = row if worst is None or row.ratio < (worst.ratio or 0) else worst
    median, low, high = interval(ratios)
    bench.emit(Row(f"{len(ratios)} real sets, median", theirs.name, median, low, high, 1.5, note="resampled over sets"))
    assert worst is not None
    bench.emit(Row(f"{len(ratios)} real sets, worst", theirs.name, worst.ratio, worst.low, worst.high, 1.0,
                   note=worst.workload))


def whole(workload: str, theirs: Side, ours: Side, steps: list[list[Group]]) -> Row:
    """All steps of both sides, their sums compared; every step counts."""
    other, own = take_turns([theirs, ours], steps)
    theirs_seconds, ours_seconds = (sum(step.seconds for step in side) for side in (other, own))
    _, low, high = interval([a.seconds / b.seconds for a, b in zip(other, own, strict=True)])
    found = row_of(workload, theirs.name, other, own, None)
    return replace(found, ratio=theirs_seconds / ours_seconds, low=low, high=high, other=theirs_seconds,
                   ours=ours_seconds, note=f"{len(steps)} steps of 16 rows, seconds of all")


def peers(bench: Bench) -> None:
    """Other tools, each in its own environment (peers/install.py), from the same rows and initial adapter."""
    from peers.compare import Task, run_all

    def task(name: str, kind: Kind, objective: Objective, made: list[list[Group]], goal: float | None) -> Task:
        return Task(name, kind, objective, made[0], made, goal)     # the first again: its loss must have fallen

    numbers = range(bench.repeats(3))
    run_all(bench, [
        task("SFT, prefix 256", "sft", sft.Objective(), list(map(sft_steps(FIRST), numbers)), 3.8),
        task("SFT, prefix 512", "sft", sft.Objective(), list(map(sft_steps(SECOND), numbers[:2])), 5.0),
        task("DPO", "dpo", DPO, list(map(preferences(*PAIRS), numbers[:2])), None),
        task("GRPO, update", "grpo", GRPO, rollout_steps(bench, rollouts(*ROLLOUTS), numbers[:2]), None)])


ROWS: dict[str, Callable[[Bench], None]] = {
    "first": first, "second": second, "chat": mixed, "bucketed": bucketed, "dpo": preference, "grpo": policy,
    "memory": memory, "real": real, "peers": peers,
}


def context(threads: int) -> dict[str, Any]:
    """What a figure depends on, without anything that names the machine."""
    import peft
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
            "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
            "threads": threads, "capability": torch.backends.cpu.get_cpu_capability(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30), "load_before": round(os.getloadavg()[0], 2)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="NAME", help=f"rows out of {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, help="timed steps of every row, at least 2; each row has its default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=os.environ.get("TUNELOOP_BENCH_DATA"),
                        help="folder of the real sets; TUNELOOP_BENCH_DATA otherwise")
    parser.add_argument("--peers", action="store_true", help="measure the peers, too")
    parser.add_argument("--cache", type=Path, help="where peers/install.py put the environments of the peers")
    parser.add_argument("--peer", nargs="+", help="only these peers")
    parser.add_argument("--peer-rows", nargs="+", help="only these workloads of the peers")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that a step of a peer may take")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{date.today()}.json")
    given = parser.parse_args()
    if given.data is not None and not Path(given.data).is_dir():
        parser.error(f"there is no folder {given.data}")
    given.data = None if given.data is None else Path(given.data)
    return given


@contextmanager
def told(name: str) -> Iterator[None]:
    """Say how long a row took; one that fails is told and does not stop the others."""
    began = time.perf_counter()
    try:
        yield
    except Exception:
        traceback.print_exc()
        print(f"{name}: FAILED", file=sys.stderr)
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    given = parse()
    torch.set_num_threads(given.threads)
    about, done = context(given.threads), []

    def emit(row: Row) -> None:
        done.append(row)
        keep(row, given.out, about)
        print("  " + " | ".join(row.cells()), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given, emit, Path(scratch))
        for name in given.only or [n for n in ROWS if n != "peers" or given.peers]:
            with told(name):
                ROWS[name](bench)
    print(markdown(done))


if __name__ == "__main__":
    main()
