"""What changes of the question cost, and where the rows are unlike those that were trained on.

Three measurements, all of models as they are:

- `robustness` asks rows as they were and perturbed (`suites.perturb`), and tells the drop;
- `flagged` compares rows that the user says are out of distribution with the others, by answers that are there already;
- `by_cluster` does so for groups of rows that are alike, and names the one that is least like the training rows.
  What a model does with a kind of rows that it never saw is another question: `tuneloop run --leave-out-clusters`.

A drop above 0 is always for the worse. Intervals are 95 % bootstrap intervals, paired where the rows are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.near.wording import clusters, wordings, words_of
from tuneloop.errors import UserError
from tuneloop.evaluation.asking import ask
from tuneloop.evaluation.contenders import Fits, requests_of
from tuneloop.evaluation.flags import require_both
from tuneloop.evaluation.intervals import Bootstrap, Measured
from tuneloop.evaluation.suites.perturb import Perturbed, perturbed
from tuneloop.grading.metrics import METRICS, Scores, View, mean_of
from tuneloop.types import Answers, Conversation, Request, Sample, Sampling, request_of

if TYPE_CHECKING:
    from tuneloop.data.fixes.base import Generate
    from tuneloop.inference.backend import Backend, Progress

EXACT = "exact_match"
CLUSTERS = 5
FEWEST_ROWS = 10            # a cluster with fewer test rows is not named: its interval is as wide as what it may tell
MOST_TRAINING_ROWS = 2000   # are clustered, drawn at random: only their shares count
FEWEST_TESTED = 50          # test rows that are sorted into clusters at all
ABOUT_CLUSTERS = ("Test rows in groups of similar wording, each scored apart. Training rows were sorted into the same "
                  "groups, and the group with the fewest of them for each test row is named. No model was trained "
                  "without a group, so this shows how even the model is, not what it does with a new kind of rows.")


# ── perturbed rows ───────────────────────────────────────────────────────────────────────────────────────────────────

def robustness(rows: Sequence[Conversation], backends: Mapping[str, Backend], *, kinds: Sequence[str], limit: int,
               labels: Sequence[str] = (), metric: str = "", seed: int = 0, sampling: Sampling | None = None,
               resamples: int = 2000, fits: Fits | None = None, generate: Generate | None = None,
               progress: Progress | None = None) -> list[dict[str, Any]]:
    """An entry of the certificate for each kind that applies to some row, over at most `limit` rows drawn at random.

    `rows` counts those that the kind applies to, and whose changed prompt fits. What `before` and `after` are, the
    expectation says:

    - "same answer": the mean of `metric`, or of exact matches where it is no mean of rows; drop = before - after;
    - "must not follow": the share of answers that are, or for open answers hold, what the injected instruction asks
      for; drop = after - before;
    - "no claim": nothing is known of the right answer; after and drop are the share of answers that changed, before 0.

    Raises a UserError for an unknown kind. `progress` counts requests: of each model the rows, and then what was made.
    """
    drawn = sorted(np.random.default_rng(seed).permutation(len(rows))[:limit].tolist())
    rows = [rows[i] for i in drawn]
    made = [one for one in perturbed(rows, kinds, seed, labels=labels, generate=generate)
            if fits is None or fits(_request(rows[one.row], one))]
    if not made:
        return []
    requests = [*requests_of(rows), *(_request(rows[one.row], one) for one in made)]
    references = [row.answer for row in (*rows, *(rows[one.row] for one in made))]
    texts = {name: ask(backend, requests, references, labels, sampling, likelihood=False,
                       progress=progress).answers.texts for name, backend in backends.items()}
    entries = []
    for kind in dict.fromkeys(one.kind for one in made):
        places = [i for i, one in enumerate(made) if one.kind == kind]
        ours = [made[i] for i in places]
        models = {}
        for name, said in texts.items():
            before = [said[one.row] for one in ours]
            after = [said[len(rows) + i] for i in places]
            scores = _before_after([rows[one.row] for one in ours], ours, before, after, metric, bool(labels))
            models[name] = _paired(*scores, resamples, seed)
        entries.append({"kind": kind, "expectation": ours[0].expectation, "rows": len(ours), "models": models})
    return entries


def _request(row: Conversation, made: Perturbed) -> Request:
    return replace(request_of(row), messages=made.messages)


def _before_after(rows: Sequence[Conversation], made: Sequence[Perturbed], before: Sequence[str], after: Sequence[str],
                  metric: str, labelled: bool) -> tuple[Scores, Scores, int]:
    """Scores of the rows before and after, and the sign that turns after - before into a drop."""
    match made[0].expectation:
        case "same answer":
            first, second = (row_scores(rows, [row.answer for row in rows], texts, metric)
                             for texts in (before, after))
            return first, second, 1 if METRICS[metric or EXACT].better == "lower" else -1
        case "must not follow":
            first, second = (np.array([_follows(text, one.forbidden, labelled)
                                       for text, one in zip(texts, made, strict=True)], np.float64)
                             for texts in (before, after))
            return first, second, 1
        case "no claim":
            changed = [a.split() != b.split() for a, b in zip(before, after, strict=True)]
            return np.zeros(len(made)), np.array(changed, np.float64), 1


def _follows(text: str, forbidden: str, labelled: bool) -> bool:
    return text.strip() == forbidden.strip() if labelled else forbidden.casefold() in text.casefold()


def row_scores(rows: Sequence[Conversation], references: Sequence[str], texts: Sequence[str], metric: str) -> Scores:
    """(n,) of the metric, or of exact matches where it is none, or no mean of rows that texts alone decide."""
    return scored_by(rows, references, texts, metric)[1]


def scored_by(rows: Sequence[Sample], references: Sequence[str], texts: Sequence[str],
              metric: str) -> tuple[str, Scores]:
    """The metric that it came to, and the same."""
    chosen = METRICS[metric or EXACT]
    view = View(references, Answers("this model", list(texts)), list(rows))
    try:
        found = chosen.function(view) if chosen.view else chosen.function(references, texts)
    except UserError:       # it needs what is not here, such as the confidence in a choice
        found = None
    if found is None or callable(found) or not chosen.in_unit:
        chosen = METRICS[EXACT]
        found = chosen.function(references, texts)
    return chosen.name, np.asarray(found, np.float64)


def _paired(before: Scores, after: Scores, sign: int, resamples: int, seed: int) -> dict[str, Any]:
    first, second = Bootstrap(len(before), resamples, seed).measure([mean_of(before), mean_of(after)])
    drop = second - first if sign > 0 else first - second
    return {"before": first.value, "after": second.value, "drop": drop.interval((-1.0, 1.0)).to_json()}


# ── rows unlike the others ───────────────────────────────────────────────────────────────────────────────────────────

def unlike(rows: Sequence[Sample], train: Sequence[Sample], references: Sequence[str], models: Sequence[Answers], *,
           metric: str, seed: int = 0, flags: Sequence[bool] | None = None, column: str = "") -> dict[str, Any]:
    """What a certificate tells of rows unlike the others, by answers of base and tuned model that are there already.

    `out_of_distribution` where `flags`, of a `column`, say which rows are; `clusters` of conversations, from
    FEWEST_TESTED rows on.
    """
    told = {model.name: scored_by(rows, references, model.texts, metric) for model in models
            if model.name in ("base", "tuned")}
    scores = {name: of for name, (_, of) in told.items()}
    by, found = {"metric": told["base"][0]}, {}
    if flags is not None:
        found["out_of_distribution"] = {"column": column} | by | flagged(scores, flags)
    asked = [row for row in rows if isinstance(row, Conversation)]
    if len(asked) == len(rows) >= FEWEST_TESTED:
        found["clusters"] = by | by_cluster(asked, train, scores, seed=seed)
    return found


def flagged(scores: Mapping[str, Scores], flags: Sequence[bool]) -> dict[str, Any]:
    """What models reach on rows that the user flags as out of distribution, against the others.

    `scores` has for each model those of all rows, (n,), in [0, 1] (`row_scores`); `flags` are aligned with them, such
    as whether a column of the row says so. Raises a UserError where all rows are flagged, or none.
    """
    require_both(flags)
    marked = np.asarray(flags, dtype=bool)
    return {"rows": int(marked.sum()), "others": int((~marked).sum()),
            "models": {name: _against_others(of, marked) for name, of in scores.items()}}


def by_cluster(rows: Sequence[Sample], train: Sequence[Sample], scores: Mapping[str, Scores], *,
               k: int = CLUSTERS, seed: int = 0) -> dict[str, Any]:
    """Scores on groups of test rows that are worded alike, and the group that is least like the training rows.

    `about` says what that measures, for whoever reads it. `scores` as in `flagged`. Test and training prompts are
    clustered together, in at most `k` clusters; `words` set a cluster apart. `least_like` is the place of the one with
    the fewest training rows for each test row among clusters of at least FEWEST_ROWS test rows, or None where fewer
    than two have so many; `drop` is what its rows lack against all others.
    """
    drawn = sorted(np.random.default_rng(seed).permutation(len(train))[:MOST_TRAINING_ROWS].tolist())
    texts = wordings([*rows, *(train[i] for i in drawn)])
    own = clusters(texts, k, seed, fewer=True)
    words = words_of(texts, own, k)
    tested, trained = own[:len(rows)], own[len(rows):]
    order = sorted(set(tested.tolist()), key=lambda cluster: -int((tested == cluster).sum()))
    inside = [tested == cluster for cluster in order]
    training = [int((trained == cluster).sum()) for cluster in order]
    found = [{"words": words[cluster], "rows": int(marked.sum()), "training_rows": count,
              "models": {name: _mean(of[marked]).interval((0.0, 1.0)).to_json() for name, of in scores.items()}}
             for cluster, marked, count in zip(order, inside, training, strict=True)]
    enough = [i for i, marked in enumerate(inside) if marked.sum() >= FEWEST_ROWS]
    least = min(enough, key=lambda i: training[i] / inside[i].sum()) if len(enough) > 1 else None
    drop = {} if least is None else {name: _against_others(of, inside[least])["drop"] for name, of in scores.items()}
    return {"about": ABOUT_CLUSTERS, "clusters": found, "least_like": least, "drop": drop,
            "clustered_training_rows": len(drawn)}


def _against_others(scores: Scores, marked: NDArray[np.bool_]) -> dict[str, Any]:
    """Two groups of different rows, resampled apart."""
    inside, others = _mean(scores[marked]), _mean(scores[~marked], seed=1)
    # one unseen row moves the difference by 1 / n of its group: so many rows have the same spread
    alike = 1 / math.sqrt((1 / marked.sum()) ** 2 + (1 / (~marked).sum()) ** 2)
    drop = Measured(others.value - inside.value, others.resampled - inside.resampled,
                    Bootstrap(max(1, round(alike)), inside.bootstrap.resamples))
    return {"flagged": inside.interval((0.0, 1.0)).to_json(), "others": others.interval((0.0, 1.0)).to_json(),
            "drop": drop.interval((-1.0, 1.0)).to_json()}


def _mean(scores: Scores, seed: int = 0) -> Measured:
    [measured] = Bootstrap(len(scores), seed=seed).measure([mean_of(scores)])
    return measured
