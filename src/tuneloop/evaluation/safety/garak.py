"""garak, a scanner with thousands of attacks, in an environment of its own: how to call it, and what it reports.

It forces versions of transformers and others that do not go with tuneloop's, so it is neither imported nor installed
here: `python` is the interpreter of the environment that has it (`pip install garak` there). The model is asked through
a server behind the OpenAI API, such as vLLM, llama.cpp or Ollama.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError
from tuneloop.evaluation.blind import exact_interval
from tuneloop.evaluation.intervals import LEVEL, Interval

SCHEMA_VERSION = 1
KEY = "OPENAICOMPATIBLE_API_KEY"
"""The variable in the environment of the call that has the server's key; garak wants one even where none is needed."""

REPORT = ".report.jsonl"            # what garak puts behind the prefix of a report's name
_STDERR = 2
_INDEPENDENT = ("Intervals take answers for independent. The prompts of a probe are variations of a few, so the true "
                "ones are wider.")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind the OpenAI API."""

    url: str                # with /v1 at its end
    model: str


@dataclass(frozen=True, slots=True)
class Attacked:
    """How many answers to one probe's attacks passed one detector, which looks for what should not be said."""

    probe: str
    detector: str
    passed: int
    judged: int             # answers that the detector could judge

    @property
    def rate(self) -> Interval | None:
        """The share that passed, with its exact 95 % interval; None where nothing could be judged."""
        return exact_interval(self.passed, self.judged) if self.judged else None

    def to_json(self) -> dict[str, Any]:
        rate = self.rate
        return {"probe": self.probe, "detector": self.detector, "passed": self.passed, "judged": self.judged,
                "rate": rate.to_json() if rate else None}


def garak_command(endpoint: Endpoint, probes: Sequence[str], report: Path, *, python: str = "python",
                  generations: int = 1, seed: int = 0) -> list[str]:
    """The command that asks the model all prompts of `probes` and writes `report`.report.jsonl; `report` is absolute.

    garak stops answers at # and ; unless told otherwise, which would cut lists and code: it is told. Its exit code says
    little: with a probe that it does not know it is 0, and nothing is asked. For garak 0.15.1 and later.
    """
    if not probes:
        raise UserError("No garak probe is named.", wanted="such as dan.Ablation_Dan_11_0, encoding.InjectBase64",
                        fix=f"{python} -m garak --list_probes shows them")
    options = {"openai": {"OpenAICompatible": {"uri": endpoint.url, "stop": [], "temperature": 0.0}}}
    return [python, "-m", "garak", "--target_type", "openai.OpenAICompatible", "--target_name", endpoint.model,
            "--generator_options", json.dumps(options), "--spec", ",".join(map(_selector, probes)),
            "--generations", str(generations), "--seed", str(seed), "--report_prefix", str(report)]


def run_garak(endpoint: Endpoint, probes: Sequence[str], folder: Path, *, python: str = "python", key: str = "",
              seed: int = 0) -> dict[str, Any]:
    """What garak found, with its report in `folder`. Whatever it says meanwhile goes to this process's stderr.

    Raises a UserError where it cannot be run, fails, or reports nothing.
    """
    prefix = folder.absolute() / "garak"
    command = garak_command(endpoint, probes, prefix, python=python, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        code = subprocess.run(command, env=os.environ | {KEY: key or "none"}, stdout=_STDERR, check=False).returncode
    except OSError as error:
        raise UserError(f"{python} cannot be run: {error.strerror or error}.", fix="name it with --garak-python",
                        wanted="the Python of an environment that has garak") from None
    if code:
        raise UserError(f"garak failed with exit code {code}; what it said stands above.", fix="where it is missing, "
                        f"name the Python of an environment that has it with --garak-python; this was {python}")
    found = read_garak(prefix.with_name(prefix.name + REPORT))
    return {"schema_version": SCHEMA_VERSION, "model": endpoint.model, "url": endpoint.url, "confidence": LEVEL,
            "probes": [one.to_json() for one in found],
            "notes": [_INDEPENDENT, *(f"garak reports nothing of {name}: is there such a probe?" for name in probes
                                      if not any(_is_of(one, name) for one in found))]}


def read_garak(report: Path) -> list[Attacked]:
    """What a report says of each probe and detector, in its order.

    Raises a UserError for a report without results: no probe was known, or the run broke off.
    """
    try:
        lines = report.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The report of garak cannot be read: {error}.", fix="look at what garak printed: a probe that "
                        "it does not know, or a server that it cannot reach, ends it") from None
    found = [_attacked(entry, f"{report} line {number}") for number, line in enumerate(lines, 1)
             if (entry := _entry(line, f"{report} line {number}")).get("entry_type") == "eval"]
    if not found:
        raise UserError(f"{report} has no result.", wanted="an entry of type eval for each probe",
                        fix="check the names of the probes: python -m garak --list_probes")
    return found


def _selector(name: str) -> str:
    """As garak's --spec has it: `probes.` stands before a probe or a family; `tag:…` and what is left out are as given.
    """
    return name if ":" in name or name.startswith(("probes.", "-")) else f"probes.{name}"


def _is_of(one: Attacked, name: str) -> bool:
    """Whether a result is of what was asked for: a probe, or a family of them. What selects otherwise says nothing."""
    name = _selector(name).removeprefix("probes.")
    return ":" in name or name.startswith("-") or name in ("all", "*", one.probe) or one.probe.startswith(f"{name}.")


def _entry(line: str, where: str) -> dict[str, object]:
    try:
        entry = json.loads(line) if line.strip() else {}
    except json.JSONDecodeError:
        raise UserError(f"{where} is not JSON.", wanted="a report that garak finished",
                        fix="run garak again") from None
    return entry if isinstance(entry, dict) else {}


def _attacked(entry: dict[str, object], where: str) -> Attacked:
    passed, judged = entry.get("passed"), entry.get("total_evaluated", entry.get("total"))
    if not isinstance(passed, int) or not isinstance(judged, int) or not 0 <= passed <= judged:
        raise UserError(f"{where} has no counts that fit.", wanted="passed and total_evaluated (once: total)")
    return Attacked(str(entry.get("probe", "")), str(entry.get("detector", "")), passed, judged)
