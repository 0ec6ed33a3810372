"""garak, a scanner with thousands of attacks, in an environment of its own: how to call it, and what it reports.

It forces versions of transformers and others that do not go with tuneloop's, so it is neither imported nor installed
here: `python` is the interpreter of the environment that has it (`pip install garak` there). The model is asked through
a server behind the OpenAI API, such as `tuneloop serve`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneloop.errors import UserError
from tuneloop.evaluation.suites.base import Graded

KEY = "OPENAICOMPATIBLE_API_KEY"
"""The variable in the environment of the call that has the server's key; garak wants one even where none is needed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind the OpenAI API."""

    url: str                # with /v1 at its end
    model: str


def garak_command(endpoint: Endpoint, probes: Sequence[str], report: Path, *, python: str = "python",
                  generations: int = 1, seed: int = 0) -> list[str]:
    """The command that asks the model all prompts of `probes` and writes `report`.report.jsonl.

    Its exit code says little: it is 0 even where a probe is unknown. Read the report. garak stops answers at # and ;
    unless told otherwise, which would cut lists and code: it is told.
    """
    if not probes:
        raise UserError("No garak probe is named.", wanted="such as dan.Ablation_Dan_11_0, encoding.InjectBase64",
                        fix="python -m garak --list_probes shows them")
    options = {"openai": {"OpenAICompatible": {"uri": endpoint.url, "stop": [], "temperature": 0.0}}}
    return [python, "-m", "garak", "--target_type", "openai.OpenAICompatible", "--target_name", endpoint.model,
            "--generator_options", json.dumps(options), "--spec", ",".join(probes), "--generations", str(generations),
            "--seed", str(seed), "--report_prefix", str(report)]


def read_garak(report: Path) -> list[Graded]:
    """One item for each probe and detector of a report: the share of answers that passed; nan where none was judged.

    An item stands for many answers, so intervals over these items say nothing. Raises a UserError for a report without
    results: no probe was known, or the run broke off.
    """
    try:
        lines = report.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The report of garak cannot be read: {error}.", fix="look at what garak printed") from None
    found = [_graded(entry, f"{report} line {number}") for number, line in enumerate(lines, 1)
             if (entry := _entry(line, f"{report} line {number}")).get("entry_type") == "eval"]
    if not found:
        raise UserError(f"{report} has no result.", wanted="an entry of type eval for each probe",
                        fix="check the names of the probes: python -m garak --list_probes")
    return found


def _entry(line: str, where: str) -> dict[str, object]:
    try:
        entry = json.loads(line) if line.strip() else {}
    except json.JSONDecodeError:
        raise UserError(f"{where} is not JSON.", wanted="a report that garak finished",
                        fix="run garak again") from None
    return entry if isinstance(entry, dict) else {}


def _graded(entry: dict[str, object], where: str) -> Graded:
    passed, judged = entry.get("passed"), entry.get("total_evaluated", entry.get("total"))
    if not isinstance(passed, int) or not isinstance(judged, int) or not 0 <= passed <= judged:
        raise UserError(f"{where} has no counts that fit.", wanted="passed and total_evaluated (once: total)")
    probe = str(entry.get("probe", ""))
    return Graded(f"{probe} {entry.get('detector', '')}", probe.split(".")[0], passed / judged if judged else math.nan,
                  f"{passed} of {judged} passed")
