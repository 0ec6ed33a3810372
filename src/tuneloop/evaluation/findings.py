"""What a certificate says to whoever decides: a few questions, each with an answer that its interval allows.

The page, the model card and the terminal all take their words from here, so that they cannot disagree. Every key of a
certificate may be missing; a question that nothing answers is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tuneloop.evaluation.text import (
    LEADING,
    better,
    called,
    change,
    duration,
    grade,
    in_order,
    is_share,
    metric_name,
    p_value,
    percent,
    points,
    score,
    span,
    suite_title,
    usd,
)

Certificate = Mapping[str, Any]
Tone = Literal["good", "bad", "open", ""]

YES, NO, UNSURE = "Yes", "No", "Not certain"
LOSSES = {"forgetting": "forgetting", "safety": "drop in safety"}      # key -> what its check is called
SIGNIFICANT = 0.05
BLIND = ("No metric is honest about open answers: a right answer in other words scores low. A person can tell: 40 "
         "blind pairs take about ten minutes, and their win rate then stands here.")

_JUDGE = "Does a judge prefer it?"
_ASKED = {"base": "Better than the base?", "few_shot": "Better than giving examples?",
          "optimised_prompt": "Better than a better prompt?", "rival": "Better than counting words?"}
_TOPICS = {"base": "better than the base", "few_shot": "better than few-shot",
           "optimised_prompt": "better than a prompt", "rival": "better than TF-IDF"}
_BASES = {"base": "base", "few_shot": "with examples", "optimised_prompt": "with a better prompt"}
_UNTRAINED = {"few_shot": "the base with a few examples in its prompt needs no training",
              "optimised_prompt": "the base with a better prompt needs no training",
              "rival": "a TF-IDF rival trains in seconds"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A question, its answer in a word or two, and the numbers behind it."""

    key: str            # a contender's name, or people, judge, forgetting, safety, slices, memory, cost, next
    question: str
    topic: str          # the question in two or three words
    answer: str         # "" where the numbers are the answer
    tone: Tone
    text: str


def findings(certificate: Certificate) -> list[Finding]:
    """In the order in which a decision needs them; `next` is the last."""
    if not certificate.get("verdict"):
        return []
    return [*_comparisons(certificate), *_people(certificate), *_judge(certificate), *_forgetting(certificate),
            *_safety(certificate), *_slices(certificate), *_memory(certificate), *_cost(certificate),
            Finding("next", "What to do next?", "next", "", "", " ".join(next_steps(certificate)))]


def leading(certificate: Certificate) -> str:
    """The metric that the verdict is decided on."""
    return str(certificate.get("metric") or LEADING.get(certificate.get("task", ""), "accuracy"))


def compared(certificate: Certificate) -> dict[str, Mapping[str, Any]]:
    """Contender -> how tuned differs from it in the leading metric."""
    metric = leading(certificate)
    return {entry["from"]: entry for entry in certificate.get("differences") or () if entry["metric"] == metric}


def certain(interval: Mapping[str, float], metric: str = "") -> int:
    """1 where tuned is better beyond doubt, -1 where it is worse, 0 where the interval includes 0 or nobody can say."""
    sign = {"higher": 1, "lower": -1}.get(better(metric), 0) if metric else 1
    return sign * ((interval["low"] > 0) - (interval["high"] < 0))


def bound_of(certificate: Certificate, key: str) -> Mapping[str, Any] | None:
    """The check of the goal that bounds a loss."""
    return next((check for check in certificate.get("checks") or () if check["what"].startswith(LOSSES[key])), None)


def declared(certificate: Certificate, name: str) -> bool:
    """Whether the goal asked, before training, for a gain over this contender: then it needs no correction."""
    return any(f" of tuned − {name} > " in check["what"] for check in certificate.get("checks") or ())


def _comparisons(certificate: Certificate) -> Iterator[Finding]:
    metric, scores, found = leading(certificate), certificate.get("scores") or {}, compared(certificate)
    for name in in_order(found):
        entry = found[name]
        sure, p = certain(entry, metric), entry.get("p_holm")
        by_chance = bool(sure) and p is not None and p > SIGNIFICANT and not declared(certificate, name)
        words: dict[tuple[int, bool], tuple[str, Tone]] = {
            (1, False): (YES, "good"), (1, True): ("Likely", "open"), (0, False): (UNSURE, "open"),
            (-1, False): ("No, worse", "bad"), (-1, True): ("Likely worse", "bad")}
        text = f"{change(metric, entry['value'])}{' points' if is_share(metric) else ''}"
        text += f" ({span(entry, partial(change, metric))})"
        both = [scores.get(model, {}).get(metric) for model in ("tuned", name)]
        if all(both):
            text += f", {score(metric, both[0]['value'])} against {score(metric, both[1]['value'])}"
        if by_chance:
            text += f"; p = {p_value(p)} once corrected for all that was compared"
        other = f"better than {called(name)}"
        yield Finding(name, _ASKED.get(name, f"B{other[1:]}?"), _TOPICS.get(name, other), *words[sure, by_chance],
                      text + ".")


def _people(certificate: Certificate) -> Iterator[Finding]:
    blind = certificate.get("blind")
    if blind:
        by_verdict: dict[str, tuple[str, Tone]] = {"better": (YES, "good"), "worse": (NO, "bad")}
        answer, tone = by_verdict.get(blind["verdict"], (UNSURE, "open"))
        rate = blind.get("win_rate")
        won = f"win rate {percent(rate['value'])} ({span(rate, percent)}), " if rate else ""
        yield Finding("people", "Do people prefer it?", "people prefer it", answer, tone,
                      f"{won}{blind['wins']:,} won and {blind['losses']:,} lost of {blind['judged']:,} blind pairs.")
    elif certificate.get("task") == "open":
        yield Finding("people", "Do people prefer it?", "people prefer it", "Not asked yet", "open", BLIND)


def _judge(certificate: Certificate) -> Iterator[Finding]:
    found = certificate.get("judged")
    if not found:
        return
    name = found["judge"]["name"]
    if found.get("left_out"):
        yield Finding("judge", _JUDGE, "a judge prefers it", "Not asked", "open",
                      f"{name} was left out: {found['left_out']}")
        return
    pairs, told = found["pairs"], []
    by_verdict: dict[str, tuple[str, Tone]] = {"better": (YES, "good"), "worse": (NO, "bad")}
    answer, tone = by_verdict.get(pairs["verdict"], (UNSURE, "open"))
    if rate := pairs["win_rate"]:
        told.append(f"win rate {percent(rate['value'])} ({span(rate, percent)})")
    told += [f"mean grade {grade(entry['value'], '+')} by {policy['policy']} ({span(entry, partial(grade, sign='+'))})"
             for policy in found["policies"] if (entry := policy["grade"])]
    if fell := [policy["policy"] for policy in found["policies"] if (entry := policy["grade"])
                and certain(entry) < 0 and entry.get("p_holm", 0) <= SIGNIFICANT]:
        answer, tone = f"Worse by {fell[0]}", "bad"
    if not (found["usable"] and pairs["usable"] and all(policy["usable"] for policy in found["policies"])):
        answer, tone = "Judge not usable", "open"
        told = [f"{found['unreadable']:,} of {found['replies']:,} replies have no clear verdict"]
    yield Finding("judge", _JUDGE, "a judge prefers it", answer, tone,
                  f"The opinion of {name}, a model and no person: {'; '.join(told) or 'no pair has a winner'}.")


def _loss(certificate: Certificate, key: str, loss: Mapping[str, float], no_loss: str) -> tuple[str, Tone]:
    """A word for a loss: by the bound of the goal, or without one by whether it is beyond doubt."""
    check = bound_of(certificate, key)
    some: tuple[str, Tone] = ("Some is lost", "bad")
    if check and check["verdict"] == "met":
        return f"Within {_number(check['bound'])} points", "good"
    if check and check["verdict"] == "not met":
        return "Too much", "bad"
    if check:
        return some if loss["low"] > 0 else (UNSURE, "open")
    return some if loss["low"] > 0 else (no_loss, "good") if loss["high"] <= 0 else (UNSURE, "open")


def _number(share: float) -> str:
    return f"{100 * share:.3g}"


def _lost(certificate: Certificate, key: str, loss: Mapping[str, float], where: str) -> str:
    word = "lost" if loss["value"] > 0 else "gained" if loss["value"] < 0 else "lost or gained"
    text = f"{points(abs(loss['value'])).lstrip('+')} points {word} (interval of the loss {span(loss)}){where}"
    check = bound_of(certificate, key)
    if check and check["verdict"] == "undecided":
        text += f"; whether it is within {_number(check['bound'])} points is not certain"
    return text + "."


def _forgetting(certificate: Certificate) -> Iterator[Finding]:
    found = certificate.get("forgetting")
    if found:
        answer, tone = _loss(certificate, "forgetting", found["drop"], "Nothing is lost")
        yield Finding("forgetting", "Did it forget anything?", "forgetting", answer, tone,
                      _lost(certificate, "forgetting", found["drop"],
                            f" on {found['items']:,} items of {_listed(found['by_suite'])}"))


def _listed(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else str(last)


def _safety(certificate: Certificate) -> Iterator[Finding]:
    found = certificate.get("safety")
    if found and found.get("drop"):
        answer, tone = _loss(certificate, "safety", found["drop"], "Nothing is lost")
        count = sum(1 for suite in found["suites"] if suite.get("drop"))
        most = "most" if found["drop"]["value"] >= 0 else "least"
        where = f", the {most} of {count} suites: " if count > 1 else " in the one suite: "
        yield Finding("safety", "As safe as the base?", "safety", answer, tone,
                      _lost(certificate, "safety", found["drop"], where + suite_title(found["worst"]).lower()))
    elif found:
        yield Finding("safety", "As safe as the base?", "safety", "Not measured", "open",
                      "No answer could be judged before and after training.")


def _slices(certificate: Certificate) -> Iterator[Finding]:
    found = certificate.get("slices")
    entries = {entry["slice"]: entry for entry in (found or {}).get("slices", ())}
    if not found or not found.get("worst"):
        return
    metric, name = found["metric"], found["worst"][0]
    entry = entries[name]
    now = entry["scores"][entry["to"]]
    fell = len(found["fell"])
    text = (f"{name}, {metric_name(metric)} {score(metric, now['value'])} "
            f"({span(now, partial(score, metric))}) on {entry['rows']:,} rows.")
    if fell:
        text += f" Worse than the base in: {', '.join(found['fell'][:3])}{' and others' if fell > 3 else ''}."
    answer = f"Worse in {fell} part{'s' if fell > 1 else ''}" if fell else ""
    yield Finding("slices", "Where is it weakest?", "weakest", answer, "bad" if fell else "", text)


def _memory(certificate: Certificate) -> Iterator[Finding]:
    found, personal = certificate.get("memorised"), (certificate.get("personal") or {}).get("with_personal_data", {})
    more, planted = personal.get("tuned", 0) > personal.get("base", 0), certificate.get("canaries")
    if not found and not personal and not planted:
        return
    told = []
    if found:
        told.append(f"{found['verbatim']:,} of {found['rows']:,} training rows came out word for word" if found["rows"]
                    else "no training row is long enough to try")
    if planted:
        told.append(f"{planted['extracted']['after']:,} of {planted['canaries']:,} planted secrets were said, exposure "
                    f"{planted['exposure']['after']:.1f} bits (chance {planted['exposure']['chance']:.1f})")
    if personal:
        told.append(f"{personal.get('tuned', 0):,} answers hold personal data (base {personal.get('base', 0):,})")
    some = bool(found and found["verbatim"]) or bool(planted and planted["extracted"]["after"])
    told_of: tuple[str, Tone] = ("Not measured", "open")
    if some or more:
        told_of = ("Some" if some else "More personal data", "bad")
    elif planted and planted["beyond_chance"]:
        told_of = ("It may know planted secrets", "open")
    elif personal.get("tuned"):
        told_of = ("No more personal data than the base", "good")
    elif personal or planted or (found and found["rows"]):
        told_of = ("None found", "good")
    text = "; ".join(told)
    yield Finding("memory", "Does it give rows away?", "memory", *told_of,
                  f"{text[:1].upper()}{text[1:]}.")


def _cost(certificate: Certificate) -> Iterator[Finding]:
    costs = certificate.get("costs") or {}
    if "tuned" not in costs:
        return
    # the scores of open answers are no count of right ones
    per = "" if certificate.get("task") == "open" else "_correct"
    tuned, answers = costs["tuned"], "1,000 right answers" if per else "1,000 answers"
    for key, say in ((f"usd_per_1000{per}", usd), (f"machine_seconds_per_1000{per}", duration)):
        if tuned.get(key) is not None:
            others = [f"{what} {say(costs[name][key])}" for name, what in _BASES.items()
                      if name in costs and costs[name].get(key) is not None]
            machine = "" if say is usd else " of the machine"
            text = f"{say(tuned[key])}{machine} for {answers}" + (f" ({', '.join(others)})" if others else "")
            yield Finding("cost", "What does it cost?", "cost", "", "", text + ".")
            return
    if per and tuned["correct"] == 0:
        yield Finding("cost", "What does it cost?", "cost", "", "", "No answer was right, so no price of one is known.")


# ── what to do next ──────────────────────────────────────────────────────────────────────────────────────────────────

def next_steps(certificate: Certificate) -> list[str]:
    """One to four sentences; the most urgent comes first."""
    verdict, metric, found = certificate["verdict"], leading(certificate), compared(certificate)
    if "base" in found and certain(found["base"], metric) < 0:
        return ["Do not use this model: it is worse than the base.",
                "Read the answers that it got wrong before training again."]
    return list({"not met": _after_not_met, "undecided": _after_undecided}.get(verdict, _after_met)(certificate))


def _after_not_met(certificate: Certificate) -> Iterator[str]:
    missed = [check["what"] for check in certificate.get("checks") or () if check["verdict"] == "not met"]
    yield "Do not ship it as it is."
    if any(what.startswith(LOSSES["forgetting"]) for what in missed):
        yield "Forget less: tuneloop mend offers a smaller scale, general rows, a pull to the base or a lower rate."
    if any(what.startswith(LOSSES["safety"]) for what in missed):
        yield "Read what the worst safety suite answers, and add training rows that decline such requests."
    if any(not what.startswith(tuple(LOSSES.values())) for what in missed):
        yield "Read the worst answers: they show whether better rows, more rows or a larger base is what is missing."


def _after_undecided(certificate: Certificate) -> Iterator[str]:
    checks = certificate.get("checks") or ()
    if not checks:
        yield "Say in the recipe what success means (goal.at_least or goal.better_than_base_by), and start a new run."
        return
    more = [check["more_rows"] for check in checks if check["verdict"] == "undecided" and check.get("more_rows")]
    losses = [what for what in LOSSES.values() if any(
        check["verdict"] == "undecided" and check["what"].startswith(what) for check in checks)]
    yield "The goal is not decided yet."
    if more:
        yield f"Judge it on about {max(more):,} more test rows: if the value stays, that settles it."
    ungraded = [suite_title(suite["suite"]) for suite in (certificate.get("safety") or {}).get("suites", ())
                if LOSSES["safety"] in losses and not suite.get("drop")]
    if ungraded:
        yield f"Read what it answers there, since nothing of it could be graded: {_listed(ungraded).lower()}."
    elif losses:
        yield f"More questions would settle the {' and the '.join(losses)}: give further suites as files or of lm-eval."


def _after_met(certificate: Certificate) -> Iterator[str]:
    metric = leading(certificate)
    rivals = [name for name, entry in compared(certificate).items()
              if name in _UNTRAINED and certain(entry, metric) <= 0]
    blind = certificate.get("blind")
    if blind and blind["verdict"] != "better":
        yield "People do not clearly prefer its answers: find out why before you ship it."
    elif not blind and certificate.get("task") == "open":
        yield "Have 40 blind pairs judged before you ship it (tuneloop rank RUN)."
    for name in rivals[:2]:
        sure = "and does better" if certain(compared(certificate)[name], metric) < 0 else (
            "and it is not certain that this model does better")
        yield f"Think of the simpler way first: {_UNTRAINED[name]}, {sure}."
    if any(finding.tone == "bad" for finding in (*_forgetting(certificate), *_safety(certificate))):
        yield "Something was lost in training: decide whether that matters where the model will be used."
    if any(finding.tone == "bad" for finding in _memory(certificate)):
        yield "Look at what it gives away before others may use it."
    if (certificate.get("slices") or {}).get("fell"):
        yield "Do not use it yet where it became worse."
    yield "It is shown for rows like the test rows only: watch it on those that it meets in use."
