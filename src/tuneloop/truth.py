"""What a run took against what its plan said: peak memory, processor seconds, seconds of every stage."""

from __future__ import annotations

from typing import Any

from tuneloop.record import RunFolder

GIB = 2**30
STAGES = ("baseline", "training", "evaluation")


def truth(plan: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Planned against measured, as far as the run has come. `off`: by how much the plan was too high, as a share.

    Memory is also compared without the runtime, Python and torch before any weight, as the plan has it.
    """
    found: dict[str, Any] = {"calibrated": plan.get("calibrated", "")}
    training, memory = record.get("training", {}), plan["memory"]
    if actual := training.get("peak_memory_bytes"):
        planned, runtime = memory["total_bytes"], memory["parts"].get("runtime", 0)
        found["peak_bytes"] = {
            "planned": planned, "low": memory.get("low_bytes"), "high": memory.get("high_bytes"), "measured": actual,
            "by": training.get("measured_by", ""), "off": _off(planned, actual),
            "off_above_runtime": _off(planned - runtime, actual - runtime)}
        if training.get("reserved_memory_bytes"):
            found["peak_bytes"]["reserved"] = training["reserved_memory_bytes"]
    if training.get("cpu_seconds"):
        planned = plan.get("cpu_seconds")
        share = training["steps"] / plan["steps"] if plan["steps"] else 1.0     # a run may stop early
        found["cpu_seconds"] = {
            "planned": planned, "measured": training["cpu_seconds"], "steps": training["steps"],
            "off": None if planned is None else _off(planned * share, training["cpu_seconds"])}
    taken = record.get("timings_seconds", {})
    found["seconds"] = {stage: {"planned": plan["seconds"][stage], "measured": taken[stage],
                                "off": _off(plan["seconds"][stage], taken[stage])}
                        for stage in STAGES if stage in taken and stage in plan["seconds"]}
    return found


def write_truth(folder: RunFolder) -> None:
    """Keep it in the run's record, once there is a plan."""
    if folder.has("plan.json"):
        folder.update_record(plan_truth=truth(folder.read("plan.json"), folder.read("record.json")))


def lines(found: dict[str, Any]) -> list[str]:
    """One for each figure."""
    told = []
    if peak := found.get("peak_bytes"):
        bar = f" ({peak['low'] / GIB:.2f} to {peak['high'] / GIB:.2f})" if peak.get("high") else ""
        planned = f"{peak['planned'] / GIB:.2f}{bar}"
        told.append(f"peak memory of training {peak['measured'] / GIB:.2f} GiB, planned {planned}: "
                    f"{_words(peak['off'])}, above the runtime {_words(peak['off_above_runtime'])}")
    if cpu := found.get("cpu_seconds"):
        planned = "not planned (`tuneloop plan --calibrate` measures what that takes)" if cpu["planned"] is None else \
            f"planned {cpu['planned']:,.0f}: {_words(cpu['off'])}"
        told.append(f"processor seconds of {cpu['steps']} steps {cpu['measured']:,.0f}, {planned}")
    return told + [f"{stage} {one['measured']:,.0f} s, planned {one['planned']:,.0f}: {_words(one['off'])}"
                   for stage, one in found.get("seconds", {}).items()]


def _off(planned: float, measured: float) -> float | None:
    return round(planned / measured - 1, 4) if measured > 0 else None


def _words(off: float | None) -> str:
    if off is None:
        return "nothing to compare"
    return "right" if abs(off) < 0.005 else f"{abs(off):.0%} too {'high' if off > 0 else 'low'}"
