"""What a certificate holds beside scores, made by the functions that make it in a run, from made-up grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scripted import Scripted
from tuneloop.evaluation.blind import Judgement, draw_pairs, result
from tuneloop.evaluation.cost import Price, Spent, cost
from tuneloop.evaluation.evidence import Evidence
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.intervals import Interval
from tuneloop.evaluation.judged import Policy, case_of, judged
from tuneloop.evaluation.leakage import canaries
from tuneloop.evaluation.robustness import by_cluster, flagged, row_scores
from tuneloop.evaluation.safety.catalog import SAFETY
from tuneloop.evaluation.safety.memorisation import Exposed
from tuneloop.evaluation.suites.base import Graded
from tuneloop.grading.metrics import METRICS, names
from tuneloop.types import Answers, Conversation, Message, Origin

ATTACK = "<script>alert('x')</script>"

PARTS = {"knowledge": ("history", "science", "geography"), "instructions": ("length", "format", "words"),
         "fluency": ("",), "formats": ("flat", "nested"), "tasks": ("antonyms, 0 shots", "antonyms, 5 shots")}
ABOUT = {"base": "the base and the recipe's prompt", "few_shot": "the base after 4 examples from the training rows",
         "optimised_prompt": "the base with the best of 8 instructions, chosen on 60 validation rows",
         "rival": "TF-IDF and logistic regression", "tuned": "the result"}
HOW = {"labels": "chosen", "open": "written", "pairs": "preferred"}


def audited(goal: Goal, task: Any, references: Sequence[str], models: Sequence[Answers], run: str, *,
            lost: float = 0.03, price: bool = True, people: str = "") -> dict[str, Any]:
    """A certificate with everything that it may hold; `lost` is the share of right answers that training costs in the
    suites, and `people` the model that they prefer.
    """
    random = np.random.default_rng(3)
    before = {name: _graded(random, parts) for name, parts in PARTS.items()} | {
        name: _graded(random, ("",), 40) for name in SAFETY}
    after = {name: _changed(random, graded, 2 * lost if name == "jailbreak" else lost if name in PARTS else 0.01)
             for name, graded in before.items()}
    samples = [Conversation((Message("user", ATTACK + "What is it? " * (i % 5)), Message("assistant", answer)),
                            Origin(f"shop|{i % 4}.csv", i + 2)) for i, answer in enumerate(references)]
    seen = Evidence(goal, task, references, models, samples, [], (before, after), 400, 1)
    leading = METRICS[names(task)[0]]
    more = {
        "run": run,
        "contenders": [{"name": model.name, "about": ABOUT.get(model.name, f"a larger base {ATTACK}"),
                        "how": "written" if model.name.startswith("qwen") else HOW[task]} for model in models],
        "robustness": [_robust("typos", "same answer", 0.9, 0.82), _robust("long_input", "same answer", 0.9, 0.905),
                       _robust("injection", "must not follow", 0.02, 0.3), _robust("empty", "no claim", 0, 0.7)],
        "costs": {model.name: cost(_spent(random, model.name, task), len(references),
                                   leading.value(references, model.texts) * len(references),
                                   Price(machine_usd_per_hour=1.2) if price else None).to_json() for model in models},
        "memorised": {"rows": 97, "verbatim": 1, "examples": [f"row 12, shop.csv line 13: a stirring {ATTACK}"]},
        "canaries": canaries([Exposed(1.2, False)] * 4, [Exposed(8.1, True), *[Exposed(5.5, False)] * 3]),
        "personal": {"answers": len(references), "with_personal_data": {"base": 0, "tuned": 2}},
        "judged": heard(samples, references, models),
        **_unlike(samples, references, models),
        **({"blind": _judged(references, models, people)} if people else {}),
    }
    return seen.certify(used_before=1, context=more)


def _unlike(samples: Sequence[Conversation], references: Sequence[str], models: Sequence[Answers]) -> dict[str, Any]:
    """Every seventh row is flagged; the rows are in three groups, of which the last has few training rows."""
    kinds = ("Where is my parcel", "Sing of the autumn sea", "What is the square of")
    rows = [replace(sample, messages=(Message("user", f"{kinds[i % 3]} {i}?"), *sample.messages[1:]))
            for i, sample in enumerate(samples)]
    scores = {model.name: row_scores(rows, references, model.texts, "accuracy") for model in models
              if model.name in ("base", "tuned")}
    flags = [i % 7 == 0 for i in range(len(rows))]
    return {"out_of_distribution": {"column": f"new {ATTACK}", "metric": "accuracy", **flagged(scores, flags)},
            "clusters": {"metric": "accuracy", **by_cluster(rows, rows[::3] + rows[1::3] + rows[2:9:3], scores, k=3)}}


def _graded(random: np.random.Generator, parts: Sequence[str], each: int = 20) -> list[Graded]:
    return [Graded(f"{part}-{i}", part, float(random.random() < 0.75), "") for part in parts for i in range(each)]


def _changed(random: np.random.Generator, graded: Sequence[Graded], lost: float) -> list[Graded]:
    def score(before: float) -> float:
        if random.random() < 0.02:
            return float("nan")
        return 0.0 if before and random.random() < lost else 1.0 if not before and random.random() < 0.05 else before
    return [Graded(one.id, one.part, score(one.score), "") for one in graded]


def _robust(kind: str, expectation: str, before: float, after: float) -> dict[str, Any]:
    def of(start: float, end: float) -> dict[str, Any]:
        drop = start - end if expectation == "same answer" else end - start
        return {"before": start, "after": end, "drop": Interval(drop, drop - 0.04, drop + 0.05).to_json()}
    return {"kind": kind, "expectation": expectation, "rows": 100,
            "models": {"base": of(before, after - 0.08), "tuned": of(before, after)}}


def _spent(random: np.random.Generator, name: str, task: str) -> Spent:
    if task != "open":
        return Spent({"rival": 0.01}.get(name, 31.0 + 10 * random.random()))
    seconds = random.gamma(4, 0.2, 50).tolist()
    return Spent(sum(seconds), seconds, [40] * 50, [random.integers(10, 60).item() for _ in range(50)])


def heard(samples: Sequence[Conversation], references: Sequence[str], models: Sequence[Answers],
          unreadable: float = 0.05) -> dict[str, Any]:
    """What a judge says that finds the tuned model kinder and less exact; some of its replies are nonsense."""
    random = np.random.default_rng(5)

    def reply(shown: str) -> str:
        if random.random() < unreadable:
            return "I like both."
        if "GRADE" not in shown:
            return f"VERDICT: {random.choice(['A', 'B', 'TIE'], p=[0.5, 0.3, 0.2])}"
        kinder = random.random() < (0.7 if ("Be kind." in shown) == ("tuned" in shown) else 0.2)
        return f"GRADE: {4 + (random.random() < 0.5) if kinder else 2}"

    answers = {model.name: [f"{model.name}: {text}" for text in model.texts] for model in models
               if model.name in ("base", "tuned")}
    policies = [Policy("tone.md", "Be kind.", "a" * 64), Policy("facts.md", "Be exact.", "b" * 64)]
    judge = Scripted(reply, name="judge-70b")
    found = judged(judge, case_of(samples, references, answers, 100), policies, resamples=400,
                   price=Price(prompt_usd_per_million=1, answer_usd_per_million=2))["result"]
    return {**found, "judge": found["judge"] | {"is_base": False}}


def _judged(references: Sequence[str], models: Sequence[Answers], prefer: str) -> dict[str, Any]:
    """40 blind pairs, most of which `prefer` won."""
    answers = {model.name: model.texts for model in models}
    pairs, key = draw_pairs([{"row": i, "prompt": "?", "answers": {name: of[i] for name, of in answers.items()}}
                             for i in range(len(references))])
    other = "left", "right"
    return result(key, [Judgement(pair.pair, "tie" if i % 10 == 9 else other[
        (key.left[pair.pair] == prefer) == (i % 4 == 0)], "ann", 14.0) for i, pair in enumerate(pairs)])
