"""`tuneloop plan --calibrate`: two micro-batches of the recipe's own rows, measured in a process of their own.

The longest rows come first, as many as are computed at once; then a shorter batch of the longest that fit into a
quarter of its tokens. Each is trained on for a few steps, forward, backward and update, as a run would; the last step
counts. What they took, `plan.calibration` makes a fit of, and later plans on this machine use it.

`python -m tuneloop.calibrate RECIPE RESULT` is that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.plan import calibration
from tuneloop.plan.calibration import Fit, Point
from tuneloop.plan.times import step_flops
from tuneloop.prepared import Prepared
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent, Watcher

if TYPE_CHECKING:
    from tuneloop.plan.make import Peak, Plan
    from tuneloop.recipe import Recipe
    from tuneloop.session import Session
    from tuneloop.types import Group

MOST_TOKENS = 2048      # at once, but for a longer row: what is computed at once is affine beyond it, too
SHORTER = 4             # the second batch is so many times shorter
STEPS = 3               # the first makes the optimizer's state, and pays for what libraries do once
GIB = 2**30
KILLED = -9


def calibrate(recipe: Recipe, watch: Watcher) -> list[str]:
    """Measure, keep the fit, and say what was measured and how far the arithmetic was off. Raises UserError."""
    import yaml

    with tempfile.TemporaryDirectory(prefix="tuneloop-calibrate-") as temporary:
        asked, answer = Path(temporary) / "recipe.yaml", Path(temporary) / "measured.json"
        asked.write_text(yaml.safe_dump(recipe.portable(), sort_keys=False, allow_unicode=True), encoding="utf-8")
        watch.stage("calibration: two micro-batches", None)
        done = subprocess.run([sys.executable, "-m", "tuneloop.calibrate", str(asked), str(answer)],
                              capture_output=True, text=True, check=False)
        if not answer.exists():
            raise _failed(done)
        told = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in told:
        raise UserError(told["error"]["found"], wanted=told["error"]["wanted"], fix=told["error"]["fix"])
    calibration.keep(told["name"], Fit(**told["fit"] | {"off": tuple(told["fit"]["off"])}),
                     {"measured": told["measured"]})
    return told["lines"]  # type: ignore[no-any-return]


def _failed(done: subprocess.CompletedProcess[str]) -> UserError:
    if done.returncode == KILLED:
        return UserError("The system ended the process that tried a micro-batch: memory ran out.",
                         fix="set training.checkpointing=true, a smaller training.token_budget, another method, or "
                             "take a smaller base")
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return UserError(f"The process that measures failed: {last[0]}", fix="`tuneloop doctor` looks at this machine")


# ── in the process of its own ────────────────────────────────────────────────────────────────────────────────────────

@dataclass(frozen=True)
class Micro:
    """A micro-batch: groups that are computed at once."""

    groups: Sequence[Group]
    tokens: int                 # unique ones
    heads: int                  # positions whose logits are computed
    length: float               # tokens of a row
    logical: int


def measure(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """What two micro-batches took, and the fit through them."""
    from tuneloop.training.peak import HighWater, release, resident_bytes

    ready = Prepared(recipe, Silent())
    if ready.recipe.online:
        raise UserError("--calibrate measures rows that are given, and this recipe trains on answers that the model "
                        "samples.", fix="leave --calibrate out; a run measures itself")
    plan = ready.plan_for(ready.recipe.method)
    micros = micro_batches(ready, plan)
    _warm_up()
    release()
    with HighWater() as high:
        runtime = 0 if high.how == "allocator" else resident_bytes()
        session = _session(ready, plan, folder)
        groups, _ = session.set_up([group for micro in micros for group in micro.groups], [])
        found, rest = [], list(groups)
        for micro in micros:
            mine, rest = rest[:len(micro.groups)], rest[len(micro.groups):]
            found.append(_measured(session, replace(micro, groups=mine), high, runtime, plan))
    day = time.strftime("%Y-%m-%d")
    checkpointing = plan["training.checkpointing"]
    fit = Fit.of(found, day)
    return {"name": ready.calibrated_as(ready.recipe.method, checkpointing), "fit": asdict(fit),
            "measured": {"by": high.how, "day": day, "points": [asdict(point) for point in found],
                         "reserved_bytes": high.reserved_bytes, "runtime_bytes": runtime,
                         "checkpointing": checkpointing,
                         "method": ready.recipe.method.model_dump(mode="json")},
            "lines": lines(found, high.how)}


def micro_batches(ready: Prepared, plan: Plan) -> list[Micro]:
    """The longest rows that are computed at once, and a shorter batch."""
    share = ready.recipe.method.exact_when_shared
    budget = min(plan["training.token_budget"], MOST_TOKENS)
    groups = sorted(ready.work.train, key=lambda group: -max(len(row) for row in group.branches))
    longest = _filled(groups, budget, plan["training.batch_size"], share)
    shorter = [group for group in groups if _micro([group], share).tokens <= longest.tokens / SHORTER] or groups[-1:]
    return [longest, _filled(shorter, longest.tokens // SHORTER, plan["training.batch_size"], share)]


def _filled(groups: Sequence[Group], budget: int, batch: int, share: bool) -> Micro:
    """As many of the groups as fit into the budget, one at least, and no more than a step has."""
    made = _micro(groups[:1], share)
    for count in range(2, min(batch, len(groups)) + 1):
        larger = _micro(groups[:count], share)
        if larger.tokens > budget:
            break
        made = larger
    return made


def _micro(groups: Sequence[Group], share: bool) -> Micro:
    import numpy as np

    from tuneloop.compute.packing import build_forest

    rows = [row for group in groups for row in group.branches]
    forest = build_forest(rows, share=share)
    return Micro(groups, forest.unique_tokens, len(np.unique(forest.predict_at)), float(np.mean([*map(len, rows)])),
                 int(forest.logical_tokens))


def _warm_up() -> None:
    """Load what a step loads, on something tiny, so that it counts as the runtime."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import torch

    from tuneloop.specimen import tiny_model

    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters())
    out: Any = model.model(input_ids=torch.ones(1, 8, dtype=torch.long))
    out.logits.sum().backward()
    optimizer.step()


def _session(ready: Prepared, plan: Plan, folder: RunFolder) -> Session:
    from tuneloop.session import Session

    folder.update_record()
    return Session(ready, plan, folder, Silent())


def _measured(session: Session, micro: Micro, high: Any, runtime: int, plan: Plan) -> Point:
    """Some steps on a micro-batch; the last one counts."""
    from tuneloop.training.loop import begin
    from tuneloop.training.peak import release
    from tuneloop.training.source import Drawn
    from tuneloop.training.step import run_step

    settings = replace(session.settings(), batch_size=len(micro.groups), token_budget=2 * micro.tokens + 64,
                       memory_bytes=2**60, steps=STEPS)
    objective = session.ready.recipe.objective
    release()
    high.mark()
    trainer, _ = begin(session.model, objective, settings, lambda entry: None, high)
    peak, taken = 0, []
    for step in range(STEPS):
        began, busy = time.perf_counter(), time.process_time()
        entry = run_step(trainer, Drawn(micro.groups, objective, {}), step)
        taken.append((time.process_time() - busy, time.perf_counter() - began))
        peak = max(peak, high.mark().in_use_bytes)
    peak = max(peak, trainer.governor.peak_bytes)
    cpu, seconds = (min(times) for times in zip(*taken[1:], strict=True))
    arithmetic = replace(session.ready.peak(plan), fit=None)
    return Point(micro.tokens, _expected(arithmetic, micro), peak - runtime,
                 step_flops(arithmetic.shape, arithmetic.method.memory(arithmetic.shape), entry["tokens"], micro.heads,
                            micro.length, arithmetic.checkpointing), entry["pieces"], cpu, seconds)


def _expected(peak: Peak, micro: Micro) -> Any:
    """What the arithmetic says of this very micro-batch, which is a whole step."""
    return replace(peak, unique=micro.tokens, logical=micro.logical).at(micro.tokens, heads=micro.heads)


def lines(points: Sequence[Point], how: str) -> list[str]:
    """What was measured, for people."""
    by = {"kernel": "the kernel's high-water mark", "allocator": "CUDA's allocator", "samples": "sampling"}[how]
    told = [f"measured by {by}: {point.tokens:,} tokens at once take {point.peak_bytes / GIB:.2f} GiB above the "
            f"runtime ({point.peak_bytes * (1 + point.off) / GIB:.2f} by arithmetic, {point.off:+.0%}), and "
            f"{point.cpu_seconds:.2f} s of the processor, {point.seconds:.2f} s by the clock" for point in points]
    longest = max(points, key=lambda point: point.tokens)
    return [*told, f"a token takes about {1000 * longest.seconds / longest.tokens:.2f} ms. Plans of this base and "
            "method on this machine use it from now on."]


def main() -> None:
    """The process: a recipe in, a result or an error out."""
    from tuneloop.recipe import load

    asked, answer = map(Path, sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="tuneloop-calibrate-") as temporary:
        try:
            told = measure(load(asked), RunFolder(Path(temporary)))
        except UserError as error:
            told = {"error": {"found": error.found, "wanted": error.wanted, "fix": error.fix}}
    answer.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
