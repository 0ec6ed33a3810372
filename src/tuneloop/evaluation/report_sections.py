"""What an auditor reads of a certificate, as tables: every value, its interval, and what was compared with what.

Each function takes the certificate, of which every key may be missing, and returns rows that the templates draw; texts
are ready to be shown, and `at` holds places in percent of an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tuneloop.evaluation.charts import Axis, around
from tuneloop.evaluation.findings import certain
from tuneloop.evaluation.suites.catalog import RETENTION
from tuneloop.evaluation.text import (
    better,
    change,
    duration,
    grade,
    in_order,
    is_share,
    metric_name,
    model_name,
    number,
    p_value,
    percent,
    points,
    score,
    short_name,
    span,
    suite_title,
    usd,
)
from tuneloop.grading.metrics import METRICS

SMALL_SHOWN = 20        # slices with too few rows that are named

Certificate = Mapping[str, Any]
Row = dict[str, Any]

HOW = {"chosen": "the label whose tokens are likeliest", "parsed": "the label that its written text names",
       "written": "a written text", "preferred": "the answer that it prefers of two"}
ABOUT = {"base": "the model before training", "tuned": "the result of this run",
         "rival": "a classic classifier that counts words, without a language model"}
EXPECTED = {"same answer": "score; the right answer stays",
            "must not follow": "share that obeys an order in the text, which none should",
            "no claim": "share of answers that change; none is right"}


def audit(certificate: Certificate) -> dict[str, Any]:
    """Every section by name; one without anything to show is empty or None."""
    return {
        "panels": panels(certificate), "table": score_table(certificate), "contenders": contenders(certificate),
        "differences": difference_table(certificate),
        "checks": [check(one) for one in certificate.get("checks") or ()],
        "slices": slice_table(certificate), "suites": suite_table(certificate), "safety": safety_table(certificate),
        "unlike": unlike_table(certificate), "clusters": cluster_table(certificate),
        "robustness": robustness_table(certificate), "costs": cost_table(certificate),
        "blind": certificate.get("blind") or None, "judged": judge_section(certificate),
        "memorised": certificate.get("memorised") or None, "canaries": certificate.get("canaries") or None,
        "personal": certificate.get("personal") or None,
        "signature": certificate.get("signature") or None, "advice": certificate.get("advice") or "",
    }


def panels(certificate: Certificate) -> list[Row]:
    """One chart per metric that lies in [0, 1]: a dot and a whisker per model, and the goal where one was set."""
    axis = Axis(0, 1)
    scores: Mapping[str, Any] = certificate.get("scores") or {}
    at_least = (certificate.get("goal") or {}).get("at_least")
    found = dict.fromkeys(metric for of in scores.values() for metric in of)
    return [{
        "metric": metric, "better": better(metric),
        "ticks": [(f"{value:.0%}", place) for value, place in axis.ticks(4)],
        "goal": axis.at(at_least) if at_least is not None and metric == certificate.get("metric") else None,
        "goal_text": "" if at_least is None else percent(at_least),
        "names_rem": 1.2 + 0.47 * max(len(short_name(model)) for model, of in scores.items() if metric in of),
        "rows": [{"model": model, **_whisker(axis, at), "text": percent(at["value"])}
                 for model in in_order(scores) if (at := scores[model].get(metric))],
    } for metric in _by_registry(found) if is_share(metric)]


def _by_registry(metrics: Mapping[str, Any]) -> list[str]:
    """As they are registered; perplexity and what this version does not know come last."""
    order = [*METRICS, "perplexity"]
    return sorted(metrics, key=lambda metric: order.index(metric) if metric in order else len(order))


def _whisker(axis: Axis, interval: Mapping[str, float]) -> dict[str, float]:
    return {end: axis.at(interval[end]) for end in ("value", "low", "high")}


def score_table(certificate: Certificate) -> list[Row]:
    """A row per metric and model, with the interval as text."""
    scores = certificate.get("scores") or {}
    return [{"metric": metric, "better": better(metric), "model": model, "value": score(metric, at["value"]),
             "interval": span(at, partial(score, metric))}
            for metric in _by_registry(dict.fromkeys(metric for of in scores.values() for metric in of))
            for model in in_order(scores) if (at := scores[model].get(metric))]


def contenders(certificate: Certificate) -> list[Row]:
    """Who was compared, what each was given, and how its answers were taken."""
    told = {one["name"]: one for one in certificate.get("contenders") or ()}
    names = in_order({**told, **(certificate.get("scores") or {})}) if told else []
    return [{"model": name, "about": told.get(name, {}).get("about") or ABOUT.get(name, ""),
             "how": HOW.get(told.get(name, {}).get("how"), "")} for name in names]


def difference_table(certificate: Certificate) -> list[Row]:
    """Tuned minus each other model in each metric; `sure` is 1 or -1 where it is better or worse beyond doubt."""
    entries = certificate.get("differences") or ()
    order = {metric: i for i, metric in enumerate(_by_registry(dict.fromkeys(entry["metric"] for entry in entries)))}
    names = in_order(dict.fromkeys(entry["from"] for entry in entries))
    return [{"metric": entry["metric"], "better": better(entry["metric"]), "model": entry["from"],
             "value": change(entry["metric"], entry["value"]),
             "interval": span(entry, partial(change, entry["metric"])),
             "sure": certain(entry, entry["metric"]), "p": p_value(entry.get("p")),
             "p_holm": p_value(entry.get("p_holm")), "record": _record(entry)}
            for entry in sorted(entries, key=lambda entry: (order[entry["metric"]], names.index(entry["from"])))]


def _record(entry: Mapping[str, Any]) -> str:
    known = entry.get("wins") is not None and better(entry["metric"])     # nobody wins by the length of an answer
    return "" if not known else f"{entry['wins']:,} / {entry['losses']:,} / {entry['ties']:,}"


def check(check: Mapping[str, Any]) -> Row:
    """A bound with its interval on one axis: the verdict is whether the bar is clear of the line."""
    axis = around([check["low"], check["high"], check["bound"]], room=0.2)
    what, _, other = check["what"].partition(" − ")
    gain, loss = bool(other), "≤" in what
    signed = gain or loss
    of = check["what"].split(" ")[0]
    shares = loss or is_share(of)
    say, times, sign = partial(change, of) if signed else partial(score, of), 100 if shares else 1, "%" * shares

    def tick(value: float) -> str:
        value *= times
        return (f"{value:+.3g}".replace("-", "−") if value else "0") if signed else f"{value:.3g}{sign}"

    metric, unit = metric_name(of), " points" * shares
    bound = f"{abs(100 * check['bound']):.1f} points" if shares else score(of, abs(check["bound"]))
    title = (f"{what.partition(' ≤')[0].capitalize()} of at most {bound}" if loss
             else f"{metric} {_by_how_much(check['bound'], bound)} that of the "
                  f"{model_name(other.partition(' >')[0]).lower()}" if gain
             else f"{metric} of at least {score(of, check['bound'])}")
    return dict(check) | {"title": title, "at": _whisker(axis, check), "bound_at": axis.at(check["bound"]),
                          "ticks": [(tick(v), place) for v, place in axis.ticks(4)], "loss": loss,
                          "value_text": say(check["value"]), "bound_text": say(check["bound"]),
                          "interval_text": f"{span(check, say)}{unit if signed else ''}"}


def _by_how_much(bound: float, spoken: str) -> str:
    return f"more than {spoken} above" if bound > 0 else f"less than {spoken} below" if bound < 0 else "above"


def slice_table(certificate: Certificate) -> Row | None:
    """Parts of the test rows, the weakest first, each with what it gained."""
    found = certificate.get("slices")
    if not found or not (found["slices"] or found["too_few"]):
        return None
    metric = found["metric"]
    sign = -1 if better(metric) == "lower" else 1
    entries = sorted(found["slices"], key=lambda entry: sign * entry["scores"][entry["to"]]["value"])
    rows = [{"slice": entry["slice"], "rows": number(entry["rows"]), "weak": entry["slice"] in found["worst"],
             "fell": entry["slice"] in found["fell"], "sure": certain(entry, metric),
             **_before_after(metric, *(entry["scores"][entry[side]] for side in ("from", "to"))),
             "gain": change(metric, entry["value"]), "interval": span(entry, partial(change, metric)),
             "p_holm": p_value(entry.get("p_holm"))} for entry in entries]
    too_few = list(found["too_few"].items())
    return {"metric": metric, "rows": rows, "too_few": dict(too_few[:SMALL_SHOWN]),
            "more_too_few": max(0, len(too_few) - SMALL_SHOWN), "fewest_rows": found["fewest_rows"],
            "any_fell": bool(found["fell"])}


def _before_after(metric: str, before: Mapping[str, float], after: Mapping[str, float]) -> Row:
    """Both values as text, and where they lie on an axis from 0 to 1."""
    axis = Axis(0, 1)
    return {"before": score(metric, before["value"]), "after": score(metric, after["value"]),
            "at": {"before": axis.at(before["value"]), "after": _whisker(axis, after)} if is_share(metric) else None}


def suite_table(certificate: Certificate) -> list[Row]:
    """Each suite, and each of its parts, before and after training."""
    return [{"suite": one["suite"], "title": suite_title(one["suite"]), "part": one["part"],
             "retention": one["suite"] in RETENTION, "graded": number(one["items"]),
             "ungraded": f"{one['ungraded_before']:,} / {one['ungraded_after']:,}"
             if one["ungraded_before"] or one["ungraded_after"] else "",
             **_shift(one["before"], one["after"], one["difference"])} for one in certificate.get("suites") or ()]


def safety_table(certificate: Certificate) -> Row | None:
    """Each safety suite before and after training; differences are after - before, as everywhere on the page."""
    found = certificate.get("safety")
    if not found:
        return None

    def shift(one: Mapping[str, Any]) -> Row:
        if not one.get("drop"):
            return _shift(None, None, None)
        drop = one["drop"]
        gain = {"value": -drop["value"], "low": -drop["high"], "high": -drop["low"]}
        return _shift(one["before"]["value"], one["after"]["value"], gain)

    return {"worst": found["worst"], "rows": [
        {"suite": one["suite"], "title": suite_title(one["suite"]), "graded": number(one["rows"]),
         "ungraded": f"{one['ungraded_before']:,} / {one['ungraded_after']:,}"
         if one["ungraded_before"] or one["ungraded_after"] else "", **shift(one)} for one in found["suites"]],
        "drop": found["drop"] and f"{points(found['drop']['value'])} ({span(found['drop'])})"}


def _shift(before: float | None, after: float | None, gain: Mapping[str, float] | None) -> Row:
    """Shares before and after, and what was gained; empty where nothing could be graded."""
    if before is None or after is None or gain is None:
        return {"before": "", "after": "", "gain": "", "interval": "", "sure": 0, "at": None}
    axis = Axis(0, 1)
    dot = axis.at(after)
    return {"before": percent(before), "after": percent(after), "gain": points(gain["value"]), "interval": span(gain),
            "sure": certain(gain), "at": {"before": axis.at(before), "after": {"value": dot, "low": dot, "high": dot}}}


def judge_section(certificate: Certificate) -> Row | None:
    """What a judge said of base and tuned model: two lines for each policy, and the pairs as they are."""
    found = certificate.get("judged")
    if not found or found.get("left_out"):
        return found or None
    asked = found["replies"]
    return {**found, "left_out": "", "unreadable": f"{found['unreadable']:,} of {asked:,} replies",
            "unreadable_share": percent(found["unreadable"] / asked) if asked else "",
            "lines": [line for policy in found["policies"] for line in _of_policy(policy)]}


def _of_policy(policy: Mapping[str, Any]) -> list[Row]:
    """The mean grade and the share of good ones; a line without numbers where nothing could be read."""
    unread = " / ".join(f"{count:,}" for count in policy["unreadable"].values())
    head = {"policy": policy["policy"], "rows": number(policy["rows"]), "unreadable": unread,
            "usable": policy["usable"]}
    empty = {"before": "", "after": "", "gain": "", "interval": "", "p_holm": "", "sure": 0}
    lines: list[Row] = []
    for key, name, say, change_of in (("grade", "mean", grade, partial(grade, sign="+")),
                                      ("passed", "4 or 5", percent, points)):
        line: Row = {**head, "what": name, "first": not lines, **empty}
        if entry := policy[key]:
            before, after = (entry["scores"][entry[side]] for side in ("from", "to"))
            line |= {"before": f"{say(before['value'])} ({span(before, say)})",
                     "after": f"{say(after['value'])} ({span(after, say)})", "gain": change_of(entry["value"]),
                     "interval": span(entry, change_of), "p_holm": p_value(entry.get("p_holm")), "sure": certain(entry)}
        lines.append(line)
    return lines


def unlike_table(certificate: Certificate) -> Row | None:
    """Base and tuned model on rows that are flagged as out of distribution, and on the others."""
    found = certificate.get("out_of_distribution")
    if not found:
        return None
    return {**found, "lines": [
        {"model": model, "others": _with_span(of["others"]), "flagged": _with_span(of["flagged"]),
         "drop": points(of["drop"]["value"]), "interval": span(of["drop"]), "sure": -certain(of["drop"])}
        for model in in_order(found["models"]) if (of := found["models"][model])]}


def cluster_table(certificate: Certificate) -> Row | None:
    """Base and tuned model on each group of test rows that are worded alike, the largest first."""
    found = certificate.get("clusters")
    if not found:
        return None
    metric, least = found["metric"], found["least_like"]
    lines = [{"name": ", ".join(one["words"]) or f"group {i + 1}", "rows": number(one["rows"]),
              "training_rows": number(one["training_rows"]), "least": i == least,
              **_before_after(metric, one["models"]["base"], one["models"]["tuned"]),
              "interval": span(one["models"]["tuned"], partial(score, metric))}
             for i, one in enumerate(found["clusters"])]
    lost = None if least is None else [
        {"model": model, "drop": points(of["value"]), "interval": span(of), "sure": -certain(of)}
        for model in in_order(found["drop"]) if (of := found["drop"][model])]
    return {"about": found["about"], "metric": metric, "trained": number(found["clustered_training_rows"]),
            "lines": lines, "lost": lost}


def _with_span(interval: Mapping[str, float]) -> str:
    return f"{percent(interval['value'])} ({span(interval, percent)})"


def together(seeds: Mapping[str, Any], left_out: Mapping[str, Any]) -> dict[str, Row | None]:
    """What several runs say together, this one among them: over seeds, and each without one kind of rows."""
    return {"seeds": seeds_table(seeds) if seeds else None, "left_out": left_out_table(left_out) if left_out else None}


def seeds_table(found: Mapping[str, Any]) -> Row:
    """The score of each seed and its gain over the base, and their mean."""
    metric, tuned, gain = found["metric"], found["tuned"], found["gain"]
    rows = [{"run": run, "tuned": score(metric, reached), "gain": change(metric, gained)}
            for run, reached, gained in zip(found["runs"], tuned["of_seeds"], gain["of_seeds"], strict=True)]
    return {**_joint(found), "lines": rows}


def left_out_table(found: Mapping[str, Any]) -> Row:
    """Each cluster's score by the run that never saw it, and that of all together."""
    rows = [{"name": ", ".join(one["words"]) or f"cluster {one['cluster']}", "run": one["run"],
             "rows": number(one["rows"]), "training_rows": number(one["training_rows"]),
             **_before_after(found["metric"], one["base"], one["tuned"]),
             "gain": change(found["metric"], one["gain"]["value"]),
             "interval": span(one["gain"], partial(change, found["metric"])),
             "sure": certain(one["gain"], found["metric"])} for one in found["clusters"]]
    whole = _before_after(found["metric"], found["base"], found["tuned"])
    return {**_joint(found), "lines": rows, "base": whole["before"], "at": whole["at"],
            "skipped": [one["why"] for one in found["skipped"]]}


def _joint(found: Mapping[str, Any]) -> Row:
    """What is told of all runs at once."""
    metric, tuned, gain = (found[key] for key in ("metric", "tuned", "gain"))
    return {"metric": metric, "verdict": found["verdict"], "sentence": found["sentence"].partition(": ")[2],
            "rows": number(found["rows"]), "mean": score(metric, tuned["value"]),
            "mean_interval": span(tuned, partial(score, metric)), "gain": change(metric, gain["value"]),
            "interval": span(gain, partial(change, metric)), "sure": certain(gain, metric)}


def robustness_table(certificate: Certificate) -> list[Row]:
    """What each change of the test rows costs each model."""
    return [{"kind": one["kind"].replace("_", " "), "expected": EXPECTED.get(one["expectation"], one["expectation"]),
             "rows": number(one["rows"]), "model": model, **_before_and_drop(one["models"][model], one["expectation"])}
            for one in certificate.get("robustness") or () for model in in_order(one["models"])]


def _before_and_drop(of: Mapping[str, Any], expectation: str) -> Row:
    drop = of.get("drop")
    return {"before": "" if of.get("before") is None else percent(of["before"]),
            "after": "" if of.get("after") is None else percent(of["after"]),
            "drop": points(drop["value"]) if drop else "", "interval": span(drop) if drop else "",
            "sure": -certain(drop) if drop and expectation != "no claim" else 0}


def cost_table(certificate: Certificate) -> Row | None:
    """What answers of each model take; columns that nobody knows are left out."""
    costs = certificate.get("costs")
    if not costs:
        return None
    right = certificate.get("task") != "open"       # the scores of open answers are no count of right ones
    columns = [("p50_seconds", "Half within", _seconds), ("p95_seconds", "95% within", _seconds),
               ("prompt_tokens_per_answer", "Tokens in", _tokens), ("new_tokens_per_answer", "Tokens out", _tokens),
               ("machine_seconds_per_1000", "Machine, 1,000", _seconds),
               *([("machine_seconds_per_1000_correct", "Machine, 1,000 right", _seconds)] if right else []),
               ("usd_per_1000", "Price, 1,000", usd),
               *([("usd_per_1000_correct", "Price, 1,000 right", usd)] if right else [])]
    known = [(key, title, say) for key, title, say in columns if any(of.get(key) is not None for of in costs.values())]
    return {"columns": [title for _, title, _ in known], "rows": [
        {"model": model, "cells": ["–" if of.get(key) is None else say(of[key]) for key, _, say in known]}
        for model in in_order(costs) if (of := costs[model])]}


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def _tokens(mean: float) -> str:
    return f"{mean:,.1f}"
