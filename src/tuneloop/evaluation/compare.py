"""Is one model better than another on the same rows? Paired intervals, permutation p-values and Holm's correction.

n rows, M models, R resamples. The answers of all models lie in one stack: that of model m to row i is its place
m * n + i. A slice, a model, and a mixture of two models' answers are all choices of places, so that one factory of
statistics serves them all, also where a metric is no mean of rows (macro-F1, BLEU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.evaluation.intervals import Bootstrap, Interval
from tuneloop.grading.metrics import Metric, Scores, Statistic, View, mean_of, perplexity
from tuneloop.types import Answers, Ints

Bools = NDArray[np.bool_]
PERMUTATIONS = 9999
"""With the observed order they make 10,000, so that no p-value is below 1/10,000 where not all orders are tried."""

MOST_NATS = 700.0
"""For each token of a reference; a model that gives less than exp(-700) to one is broken."""

_CHUNK_BYTES = 16_000_000


@dataclass(frozen=True)
class Stack:
    """One metric of several models' answers to the same rows."""

    metric: str
    models: tuple[str, ...]
    rows: int
    over: Callable[[Ints], Statistic]           # the metric of the answers at these places of the stack
    same: NDArray[Any]                          # (M * n,) equal where exchanging two answers changes nothing
    within: tuple[float, float] | None = (0.0, 1.0)
    higher_is_better: bool = True

    def places(self, model: str, rows: Ints) -> Ints:
        """Where the model's answers to these rows lie."""
        return rows + self.models.index(model) * self.rows

    @property
    def range_of_differences(self) -> tuple[float, float] | None:
        """What a difference of two models cannot leave."""
        return self.within and (self.within[0] - self.within[1], self.within[1] - self.within[0])


def stack_of_answers(metric: Metric, views: Sequence[View]) -> Stack:
    """A metric of what several models answered; all views are of the same rows, each with one model's answers."""
    models = [view.answers for view in views]
    whole = View([text for view in views for text in view.references],
                 joined(models, ", ".join(model.name for model in models)),
                 [sample for view in views for sample in view.samples], views[0].options)
    measured = metric.function(whole) if metric.view else metric.function(whole.references, whole.answers.texts)
    names, rows = tuple(view.answers.name for view in views), len(views[0].references)
    if callable(measured):
        return Stack(metric.name, names, rows, lambda places: metric.of(_at(whole, places)),
                     _numbered(whole.answers, metric.view), metric.within, metric.better != "lower")
    return Stack(metric.name, names, rows, _mean_over(measured), measured, metric.within, metric.better != "lower")


_OF_ROWS = ("texts", "nll", "tokens", "stopped", "confidence", "new_tokens", "rewards")
"""What a metric may look at in Answers."""


def joined(answers: Sequence[Answers], name: str) -> Answers:
    """One after the other, by one name; without what some of them lack."""
    parts = {what: [getattr(one, what) for one in answers] for what in _OF_ROWS}
    return Answers(name, **{what: [value for part in of for value in part] for what, of in parts.items()
                            if None not in of})


def _at(view: View, places: Ints) -> View:
    chosen = places.tolist()
    answers = {name: [of[i] for i in chosen] for name in _OF_ROWS if (of := getattr(view.answers, name)) is not None}
    return View([view.references[i] for i in chosen], Answers(view.answers.name, **answers),
                [view.samples[i] for i in chosen] if view.samples else (), view.options)


def _numbered(answers: Answers, wholly: bool) -> Ints:
    """A number for each answer, the same for answers that are the same: their texts, or all that is known of them."""
    known = [of for name in _OF_ROWS if (of := getattr(answers, name)) is not None]
    keys = list(zip(*known, strict=True)) if wholly else answers.texts
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def stack_of_scores(metric: str, scores: Mapping[str, Scores], within: tuple[float, float] | None = (0.0, 1.0),
                    higher_is_better: bool = True) -> Stack:
    """Scores of rows that are known already, (n,) for each model; the metric is their mean."""
    every = np.concatenate([np.asarray(of, np.float64) for of in scores.values()])
    rows = len(every) // len(scores)
    return Stack(metric, tuple(scores), rows, _mean_over(every), every, within, higher_is_better)


def has_perplexity(model: Answers) -> bool:
    """Whether every reference is likely enough that the perplexity of any resample is a number: exp(710) is none."""
    if model.nll is None or model.tokens is None:
        return False
    nll = np.asarray(model.nll, np.float64)
    return bool(np.isfinite(nll).all() and (nll < MOST_NATS * np.asarray(model.tokens)).all())


def stack_of_perplexity(models: Sequence[Answers]) -> Stack:
    """The perplexity of the references; every model must have it. Lower is better, and it has no end."""
    nll = np.concatenate([np.asarray(m.nll, np.float64) for m in models])
    tokens = np.concatenate([np.asarray(m.tokens, np.int64) for m in models])
    return Stack("perplexity", tuple(m.name for m in models), len(nll) // len(models),
                 lambda places: perplexity(nll[places].tolist(), tokens[places].tolist()),
                 np.unique(np.stack([nll, tokens]), axis=1, return_inverse=True)[1].ravel(), None, False)


def _mean_over(scores: Scores) -> Callable[[Ints], Statistic]:
    return lambda places: mean_of(scores[places])


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two models differ in one metric on some rows. Wins are rows on which `second` alone is better.

    `p` is two-sided, and `p_holm` corrected for everything that was compared together.
    """

    metric: str
    slice: str                  # "" for all rows
    first: str
    second: str
    rows: int
    scores: tuple[Interval, Interval]
    gain: Interval              # second - first
    wins: int
    losses: int
    ties: int
    p: float
    p_holm: float

    def to_json(self) -> dict[str, Any]:
        """As certificates hold differences: the gain, and what both models reached."""
        before, after = (score.to_json() for score in self.scores)
        return {"metric": self.metric, "slice": self.slice, "from": self.first, "to": self.second, "rows": self.rows,
                **self.gain.to_json(), "scores": {self.first: before, self.second: after}, "wins": self.wins,
                "losses": self.losses, "ties": self.ties, "p": self.p, "p_holm": self.p_holm}


def compare(stacks: Sequence[Stack], pairs: Sequence[tuple[str, str]], slices: Mapping[str, Ints] | None = None, *,
            resamples: int = 2000, permutations: int = PERMUTATIONS, seed: int = 0) -> list[Comparison]:
    """Every metric of `stacks` for every pair of models (from, to) on every slice, as one family for Holm's correction.

    `slices` are row numbers by name; without any, all rows are compared under the name "".
    """
    if slices is None:
        slices = {"": np.arange(stacks[0].rows)} if stacks else {}
    found = [_compared(stack, first, second, name, rows, resamples, permutations, seed)
             for (name, rows), stack, (first, second) in product(slices.items(), stacks, pairs)]
    corrected = holm([one["p"] for one in found])
    return [Comparison(**one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def _compared(stack: Stack, first: str, second: str, name: str, rows: Ints, resamples: int, permutations: int,
              seed: int) -> dict[str, Any]:
    a, b = stack.places(first, rows), stack.places(second, rows)
    before, after = Bootstrap(len(rows), resamples, seed).measure([stack.over(a), stack.over(b)])
    wins, losses, ties = wins_losses_ties(_alone(stack.over(a), len(rows)), _alone(stack.over(b), len(rows)),
                                          stack.higher_is_better)
    return {"metric": stack.metric, "slice": name, "first": first, "second": second, "rows": len(rows),
            "scores": (before.interval(stack.within), after.interval(stack.within)),
            "gain": (after - before).interval(stack.range_of_differences),
            "wins": wins, "losses": losses, "ties": ties,
            "p": permutation_p(stack.over(np.concatenate([a, b])), stack.same[a] != stack.same[b],
                               permutations=permutations, seed=seed)}


def wins_losses_ties(first: Scores, second: Scores, higher_is_better: bool = True) -> tuple[int, int, int]:
    """On how many rows the second model is better, worse, and the same; (n,) scores of rows."""
    better = (second - first) * (1 if higher_is_better else -1)
    wins, losses = int((better > 1e-12).sum()), int((better < -1e-12).sum())
    return wins, losses, len(better) - wins - losses


def _alone(statistic: Statistic, rows: int) -> Scores:
    """The metric of each row alone, (n,)."""
    step = max(1, _CHUNK_BYTES // (8 * rows))
    return np.concatenate([statistic(np.eye(min(step, rows - start), rows, start)) for start in range(0, rows, step)])


def permutation_p(both: Statistic, differ: Bools, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Two-sided p-value of the hypothesis that it does not matter which model gave which of a row's two answers.

    `both` is the metric over the 2n answers, those of the first model before those of the second, and `differ` (n,)
    says in which rows an exchange changes anything. The two answers of every row are exchanged or not: all ways where
    they are at most `permutations`, else so many at random, of which with the observed one
    p = (1 + as extreme) / (1 + permutations) (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39). For means
    this is Fisher's sign-flip test (Good 2005, Permutation, Parametric and Bootstrap Tests, section 3.7); for two
    models' texts, approximate randomisation (Noreen 1989; Riezler and Maxwell 2005).
    """
    rows, places = len(differ), np.flatnonzero(differ)
    if not len(places):
        return 1.0
    observed = abs(_difference(both, np.zeros((1, rows), bool))[0])
    # float sums of the same terms in another order must still count as equally extreme; nan counts, too
    bound = observed * (1 - 1e-9) - 1e-12
    extreme = tried = 0
    is_exact = 2 ** min(len(places) - 1, 60) <= permutations
    step = max(1, _CHUNK_BYTES // (32 * rows))
    for flips in _all_flips(len(places), step) if is_exact else _random_flips(len(places), permutations, step, seed):
        swapped = np.zeros((len(flips), rows), bool)
        swapped[:, places] = flips
        extreme += int((~(abs(_difference(both, swapped)) < bound)).sum())
        tried += len(flips)
    return extreme / tried if is_exact else (1 + extreme) / (1 + tried)


def _difference(both: Statistic, swapped: Bools) -> Scores:
    """Second minus first after exchanging answers, (R, n) -> (R,)."""
    second = np.concatenate([swapped, ~swapped], axis=1).astype(np.float64)
    return both(second) - both(1 - second)


def _all_flips(count: int, step: int) -> Iterator[Bools]:
    """Every way, up to exchanging all: that only turns the sign, which a two-sided test does not see."""
    for start in range(0, 2 ** (count - 1), step):
        number = np.arange(start, min(start + step, 2 ** (count - 1)))
        yield number[:, None] >> np.arange(count) & 1 == 1


def _random_flips(count: int, ways: int, step: int, seed: int) -> Iterator[Bools]:
    random = np.random.default_rng([seed, 2])
    for start in range(0, ways, step):
        yield random.random((min(step, ways - start), count)) < 0.5      # the same in chunks of any size


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: rejecting those of at most 5 % makes any false rejection 5 % likely.

    The k-th smallest of m is multiplied by m - k + 1, and is never less than a smaller one's (Holm 1979, Scand. J.
    Stat. 6, 65-70). It holds however the tests depend on each other.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]
