"""The report and the model card, built from the run folder alone: what a stage did not write is left out.

`view` turns the folder's files into what the page shows; `report.html.j2` draws it. Texts of rows and models are
escaped by jinja's autoescape, and the page loads nothing from elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from tuneloop.evaluation import report_sections as sections
from tuneloop.evaluation import text
from tuneloop.evaluation.charts import loss_chart
from tuneloop.evaluation.findings import findings, next_steps
from tuneloop.evaluation.text import duration, file_size, in_order, number
from tuneloop.grading.metrics import METRICS
from tuneloop.models.aliases import published_name
from tuneloop.record import RunFolder, write_atomic

STAGES = ("data", "baseline", "training", "evaluation")

SEEDS, LEFT_OUT = "seeds.json", "left_out.json"     # in each of several runs: what they say together

_REPRODUCE = ("base", "method", "objective", "asked", "seeds", "data", "packing", "environment")
_ANSWERS_SHOWN = 20
_LABELS_IN_MATRIX = 12
_MOST_CONFUSIONS = 20
_WIDE_TABLE = 8         # columns


def write_report(folder: RunFolder) -> Path:
    """Write `report.html`, one self-contained page for someone who has never trained a model; return its path."""
    path = folder.file("report.html")
    write_atomic(path, _environment().get_template("report.html.j2").render(view(folder)))
    return path


def write_card(folder: RunFolder) -> Path:
    """Write `README.md`, the model card with the front matter that model hubs read; return its path."""
    record, certificate = _json(folder, "record.json"), _json(folder, "certificate.json")
    base = published_name(record.get("base", {}).get("name", "unknown"))
    kind, objective = _method(record), record.get("objective", {}).get("kind", "sft")
    front = {
        "base_model": base,
        "library_name": "transformers" if kind == "full" else "peft",
        "pipeline_tag": "text-classification" if objective == "reward" else "text-generation",
        "tags": ["tuneloop", kind, objective],
    }
    card = _environment().get_template("card.md.j2").render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        run=record.get("run", folder.path.name), base=base, kind=kind, certificate=certificate, record=record,
        prompt=record.get("recipe", {}).get("data", {}).get("prompt"), objective=objective,
        findings=findings(certificate), **sections.audit(certificate))
    path = folder.file("README.md")
    write_atomic(path, card)
    return path


def view(folder: RunFolder) -> dict[str, Any]:
    """Everything the page shows; a section whose file is missing is None or empty."""
    certificate, record, plan = (_json(folder, name) for name in ("certificate.json", "record.json", "plan.json"))
    metrics = folder.lines("metrics.jsonl")
    predictions = folder.lines("evaluation", "predictions.jsonl")
    labels = certificate.get("task") == "labels"
    chosen = labels or certificate.get("task") == "pairs"       # answers are right or wrong
    return {
        "run": record.get("run", folder.path.name),
        "facts": _facts(record, certificate),
        "certificate": certificate,
        "findings": findings(certificate),
        "steps": next_steps(certificate) if certificate else [],
        **sections.audit(certificate),
        **sections.together(_json(folder, SEEDS), _json(folder, LEFT_OUT)),
        "losses": loss_chart(metrics),
        "training": record.get("training", {}),
        "stages": _stages(record, plan),
        "resources": _resources(record, plan, metrics),
        "confusion": _confusion(predictions) if labels and predictions else None,
        "answers": _answers(predictions, certificate.get("task", "open")),
        "predictions": len(predictions),
        "objective": record.get("objective", {}).get("kind", ""),
        "wrong": _wrong(predictions) if chosen else None,
        "samples": _samples(folder.lines("samples.jsonl")),
        "data": readable(_json(folder, "data", "report.json")),
        "reproduce": readable({key: record[key] for key in _REPRODUCE if record.get(key)}),
        "recipe": yaml.safe_dump(record["recipe"], sort_keys=False, allow_unicode=True) if record.get("recipe") else "",
        "values": plan.get("values", {}),
        "plan_notes": plan.get("notes", []),
    }


def _json(folder: RunFolder, *parts: str) -> dict[str, Any]:
    return folder.read(*parts) if folder.has(*parts) else {}


def _method(record: Mapping[str, Any]) -> str:
    method = record.get("method", {})
    return str(method.get("kind", "lora") if isinstance(method, Mapping) else method)


@cache
def _environment() -> Environment:
    def source(name: str) -> str:
        folder = "tuneloop.templates" if name.endswith(".css") else "tuneloop.evaluation"
        return resources.files(folder).joinpath(name).read_text(encoding="utf-8")

    environment = Environment(loader=FunctionLoader(source), undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True, autoescape=lambda name: ".html" in str(name))
    environment.filters |= {name: getattr(text, name) for name in (
        "percent", "points", "plain", "words", "number", "duration", "file_size", "perplexity", "model_name",
        "short_name", "called", "metric_name", "colour", "usd", "p_value")}
    environment.filters |= {"shape": shape, "columns": columns, "numeric": numeric, "cell": _cell,
                            "upper_first": lambda text: text[:1].upper() + text[1:],
                            "without": lambda value, key: {k: v for k, v in value.items() if k != key}}
    return environment


def _cell(value: Any) -> str:
    """A text inside a Markdown table: on one line, and neither a border nor HTML."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def readable(value: Any) -> Any:
    """A JSON value as people read it: places as `file line n`, nothing that is empty, and wide tables on their side."""
    if isinstance(value, Mapping):
        if {"file", "line"} <= set(value) <= {"file", "line", "row"}:
            return f"{value['file']} line {value['line']}"
        found = {key: inner for key, inner in ((k, readable(v)) for k, v in value.items()) if inner not in ({}, [], "")}
        wide = columns(list(found.values())) if shape(found) == "table" else []
        if len(wide) > max(_WIDE_TABLE, len(found)):
            return {column: {key: row[column] for key, row in found.items() if column in row} for column in wide}
        return found
    return [readable(v) for v in value] if isinstance(value, list) else value


def shape(value: Any) -> str:
    """How the page draws a JSON value: `text`, `list`, `table` (rows of one kind), `map`, or `items` (anything)."""
    def flat(inner: Any) -> bool:
        return not isinstance(inner, Mapping) and not (isinstance(inner, list) and not all(map(flat, inner)))

    def is_table(rows: Sequence[Any]) -> bool:
        return (len(rows) > 0 and all(isinstance(r, Mapping) and all(map(flat, r.values())) for r in rows)
                and len(set.intersection(*(set(r) for r in rows))) > 0)

    if isinstance(value, Mapping):
        return "table" if len(value) > 1 and is_table(list(value.values())) else "map"
    if isinstance(value, list):
        return "list" if flat(value) else "table" if is_table(value) else "items"
    return "text"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key of the rows of a table, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def numeric(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether a column of a table holds numbers alone."""
    return all(isinstance(row.get(column, 0), int | float) for row in rows)


def _facts(record: Mapping[str, Any], certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    base = record.get("base", {})
    facts = [("Base model", str(base.get("name", ""))),
             ("Method", _method(record) if record.get("method") else ""),
             ("Objective", str(record.get("objective", {}).get("kind", ""))),
             ("Test rows", number(certificate.get("test_rows")) if certificate else ""),
             ("Trained for", duration(record.get("timings_seconds", {}).get("training")))]
    return [(name, value) for name, value in facts if value]


def _stages(record: Mapping[str, Any], plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Seconds per stage, planned and measured, and each stage's share of the whole."""
    took, planned = record.get("timings_seconds", {}), plan.get("seconds", {})
    total = sum(took.values()) or 1.0
    names = [*STAGES, *(name for name in took if name not in STAGES)]
    return [{"stage": name, "seconds": took[name], "planned": planned.get(name), "share": 100 * took[name] / total}
            for name in names if name in took]


def _resources(record: Mapping[str, Any], plan: Mapping[str, Any],
               metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, value and a remark, for what is known."""
    training = record.get("training", {})
    speeds = [line["tokens_per_second"] for line in metrics if line.get("tokens_per_second")]
    planned = plan.get("memory", {}).get("total_bytes")
    trainable, of = record.get("trainable_parameters"), record.get("base", {}).get("parameters")
    found = [
        ("Whole run", duration(sum(record.get("timings_seconds", {}).values()) or None), ""),
        ("Peak memory", file_size(training.get("peak_memory_bytes")),
         f"planned {file_size(planned)}" if planned else ""),
        ("Tokens trained on", number(training.get("tokens")), ""),
        ("Speed", f"{number(round(median(speeds)))} tokens/s" if speeds else "", "median of the steps"),
        ("Optimizer steps", number(training.get("steps")), "stopped early" if training.get("stopped_early") else ""),
        ("Trained parameters", number(trainable), f"{trainable / of:.2%} of the base" if trainable and of else ""),
    ]
    return [entry for entry in found if entry[1]]


def _confusion(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Matrices of reference against answer for few labels; for many, what tuned confuses most."""
    models = [m for m in ("base", "tuned") if m in predictions[0]["answers"]]
    counts = {m: Counter((p["reference"].strip(), p["answers"][m].strip()) for p in predictions) for m in models}
    labels = sorted({label for count in counts.values() for pair in count for label in pair})
    if len(labels) > _LABELS_IN_MATRIX:
        wrong = Counter({pair: n for pair, n in counts[models[-1]].items() if pair[0] != pair[1]})
        return {"labels": labels, "models": models, "matrices": None,
                "top": [{"reference": r, "answer": a, "counts": [counts[m][r, a] for m in models]}
                        for (r, a), _ in wrong.most_common(_MOST_CONFUSIONS)]}
    totals = Counter(p["reference"].strip() for p in predictions)
    return {"labels": labels, "models": models, "top": None, "matrices": {
        m: [{"label": r, "cells": [{"count": counts[m][r, a], "right": r == a,
                                    "share": round(100 * counts[m][r, a] / max(1, totals[r]))} for a in labels]}
            for r in labels] for m in models}}


def _answers(predictions: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """The rows that tuned got most wrong come first; in equal measure, those that the base got right."""
    metric = METRICS["rouge_l" if task == "open" else "accuracy"]

    def grade(row: Mapping[str, Any], model: str) -> float:
        return metric.value([row["reference"]], [row["answers"].get(model, "")])

    graded = [(grade(row, "tuned"), -grade(row, "base"), row) for row in predictions]
    graded.sort(key=lambda entry: entry[:2])
    return [{**row, "answers": {model: row["answers"][model] for model in in_order(row["answers"])},
             "marks": {model: _mark(grade(row, model), task) for model in row["answers"]}}
            for _, _, row in graded[:_ANSWERS_SHOWN]]


def _wrong(predictions: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["answers"].get("tuned", "").strip() != row["reference"].strip() for row in predictions)


def _mark(score: float, task: str) -> dict[str, str]:
    right, wrong = ("the chosen one", "the rejected one") if task == "pairs" else ("right", "wrong")
    if task != "open":
        return {"kind": "right", "text": right} if score else {"kind": "wrong", "text": wrong}
    kind = "right" if score >= 0.99 else "wrong" if score < 0.5 else "part"
    return {"kind": kind, "text": f"ROUGE-L {score:.2f}"}


def _samples(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers on the fixed validation prompts, by prompt and step."""
    prompts: dict[str, dict[str, Any]] = {}
    for line in lines:
        entry = prompts.setdefault(line["prompt"], {"prompt": line["prompt"], "reference": line.get("reference", ""),
                                                    "answers": {}})
        entry["answers"][line["step"]] = re.sub(r"\s+\Z", "", line["answer"])
    return list(prompts.values())
