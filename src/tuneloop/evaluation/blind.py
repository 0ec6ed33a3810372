"""Blind pairs: a person compares two models' answers without knowing whose is whose, for answers no metric judges.

Files. Pairs, JSONL: {"pair", "prompt", "left", "right"}. Key, JSON, kept from whoever judges: which model is on the
left of each pair. Judgements, JSONL: {"pair", "verdict", "annotator", "seconds"}, a line for each pair and annotator.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from tuneloop.data.labels.agreement import cohen_kappa, krippendorff_alpha, share_that_agrees
from tuneloop.data.read import Row, read_table
from tuneloop.errors import UserError, raise_all
from tuneloop.evaluation.intervals import LEVEL, Bootstrap, Interval
from tuneloop.grading.metrics import mean_of
from tuneloop.record import RunFolder, read_json, write_atomic, write_json

Verdict = Literal["left", "right", "tie", "both_bad"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
SCHEMA_VERSION = 1
RESAMPLES = 2000
FOLDER, PAIRS, KEY, JUDGEMENTS = "blind", "pairs.jsonl", "key.json", "judgements.jsonl"      # in a run

_Line = TypeVar("_Line")


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with two answers, as it is shown."""

    pair: str
    prompt: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Key:
    """Whose answers the pairs hold. Whoever judges must not see it."""

    models: tuple[str, str]         # wins are those of the second
    left: dict[str, str]            # pair -> the model whose answer is on the left
    rows: dict[str, int]            # pair -> the number of its test row
    test_rows: int
    same_answers: int               # test rows that both models answer alike: there is nothing to judge
    pairs_hash: str                 # of the pairs that this key opens


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one person said of one pair."""

    pair: str
    verdict: Verdict
    annotator: str
    seconds: float | None = None
    line: int = field(default=0, compare=False)     # in its file


def draw_pairs(predictions: Sequence[Mapping[str, Any]], n: int = 40, seed: int = 0,
               models: tuple[str, str] = ("base", "tuned")) -> tuple[list[Pair], Key]:
    """`n` test rows at random, of those that the models answer differently, in random order, with each model on the
    left half of the time. `predictions` are the lines of a run's predictions.jsonl.
    """
    for model in models:
        if any(model not in row["answers"] for row in predictions):
            raise UserError(f"There are no answers of {model} to compare.",
                            wanted=f"answers of {' and '.join(models)} to every test row")
    differ = [row for row in predictions if not _alike(*(row["answers"][model] for model in models))]
    if not differ:
        raise UserError(f"Both models answer all {len(predictions):,} test rows alike, so there is nothing to judge.")
    random = np.random.default_rng(seed)
    drawn = [differ[i] for i in random.permutation(len(differ))[:n]]
    first_left = random.permutation(np.arange(len(drawn)) % 2 == 0)
    pairs, left, rows = [], {}, {}
    for number, (row, is_first) in enumerate(zip(drawn, first_left.tolist(), strict=True), 1):
        name = f"p{number:0{len(str(len(drawn)))}}"
        on_left, on_right = models if is_first else models[::-1]
        pairs.append(Pair(name, row["prompt"], row["answers"][on_left], row["answers"][on_right]))
        left[name], rows[name] = on_left, int(row["row"])
    return pairs, Key(models, left, rows, len(predictions), len(predictions) - len(differ), _hash(pairs))


def _alike(first: str, second: str) -> bool:
    """Whether a reader sees the same."""
    return first.split() == second.split()


def _hash(pairs: Sequence[Pair]) -> str:
    return hashlib.sha256(json.dumps([asdict(pair) for pair in pairs], sort_keys=True).encode()).hexdigest()


# --- files -----------------------------------------------------------------------------------------------------------


def write_pairs(pairs: Sequence[Pair], key: Key, pairs_file: Path, key_file: Path) -> None:
    """What is judged, and apart from it the key."""
    write_atomic(pairs_file, _lines([asdict(pair) for pair in pairs]))
    write_json(key_file, {"schema_version": SCHEMA_VERSION, **asdict(key)})


def write_judgements(judgements: Sequence[Judgement], file: Path) -> None:
    """A line for each."""
    write_atomic(file, _lines([{k: v for k, v in asdict(one).items() if k != "line"} for one in judgements]))


def _lines(values: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def ask_for(folder: RunFolder, n: int, seed: int = 0) -> list[Pair]:
    """Draw pairs of a run's base and tuned model and write them, with their key, into its `blind` folder. Raises a
    UserError where there are some already, since judgements may be under way.
    """
    if folder.has(FOLDER, PAIRS):
        raise UserError(f"{folder.file(FOLDER, PAIRS)} exists already.",
                        fix=f"have it judged, or remove {folder.file(FOLDER)} to draw others")
    predictions = list(folder.lines("evaluation", "predictions.jsonl"))
    if not predictions:
        raise UserError(f"{folder.path} has no answers to compare yet.",
                        fix=f"finish it: tuneloop run --resume {folder.path}")
    pairs, key = draw_pairs(predictions, n, seed)
    folder.file(FOLDER).mkdir(exist_ok=True)
    write_pairs(pairs, key, folder.file(FOLDER, PAIRS), folder.file(FOLDER, KEY))
    return pairs


def judged_in(folder: RunFolder) -> dict[str, Any] | None:
    """What people said of a run's pairs, from its `blind` folder; None where nobody has said anything yet."""
    if not folder.has(FOLDER, JUDGEMENTS):
        return None
    pairs = read_pairs(folder.file(FOLDER, PAIRS))
    return result(read_key(folder.file(FOLDER, KEY), pairs), read_judgements(folder.file(FOLDER, JUDGEMENTS), pairs))


def read_pairs(file: Path) -> list[Pair]:
    """Raises a UserError that names every line in error."""
    pairs = _read(file, _pair)
    raise_all([UserError(f"{file} holds {name} {count} times.", wanted="each pair once")
               for name, count in Counter(pair.pair for pair in pairs).items() if count > 1])
    return pairs


def read_key(file: Path, pairs: Sequence[Pair]) -> Key:
    """The key of these pairs. Raises a UserError if it is that of others, or if the pairs were edited since."""
    found = read_json(file)
    try:
        key = Key(tuple(found["models"]), dict(found["left"]), dict(found["rows"]), found["test_rows"],
                  found["same_answers"], found["pairs_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is no key of blind pairs: {error!r}.", fix="draw the pairs again") from error
    if key.pairs_hash != _hash(pairs):
        raise UserError(f"{file} is not the key of these pairs: they are others, or were changed since they were made.",
                        fix="use the two files that were written together")
    return key


def read_judgements(file: Path, pairs: Sequence[Pair]) -> list[Judgement]:
    """What people said of `pairs`. Raises a UserError that names every line in error."""
    known = {pair.pair for pair in pairs}
    judgements = _read(file, lambda row, where: _judgement(row, where, known))
    problems, first = [], dict[tuple[str, str], int]()
    for one in judgements:
        said = first.setdefault((one.annotator, one.pair), one.line)
        if said != one.line:
            problems.append(UserError(f"{file} line {one.line}: {one.annotator} judged {one.pair} again, first on line "
                                      f"{said}.", fix="delete one of the two lines"))
    raise_all(problems)
    return judgements


def _read(file: Path, parse: Callable[[Row, str], _Line]) -> list[_Line]:
    found, problems = [], []
    for row in read_table(file.name, file.parent, str(file)).rows:
        try:
            found.append(parse(row, f"{file} line {row.line}"))
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    return found


def _pair(row: Row, where: str) -> Pair:
    return Pair(**{name: _text(row, name, where) for name in ("pair", "prompt", "left", "right")})


def _judgement(row: Row, where: str, known: set[str]) -> Judgement:
    pair, verdict, annotator = (_text(row, name, where) for name in ("pair", "verdict", "annotator"))
    if pair not in known:
        raise UserError(f"{where}: there is no pair {pair!r}.", wanted="the name of a pair in the file of pairs")
    if verdict not in VERDICTS:
        raise UserError(f"{where}: the verdict is {verdict!r}.", wanted=" | ".join(VERDICTS))
    if not annotator.strip():
        raise UserError(f"{where}: it does not say who judged.", wanted="annotator, a name or initials")
    seconds = row.values.get("seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)
                                or not 0 <= seconds < math.inf):
        raise UserError(f"{where}: seconds is {seconds!r}.", wanted="a number of at least 0, or none")
    return Judgement(pair, verdict, annotator.strip(), seconds, row.line)


def _text(row: Row, name: str, where: str) -> str:
    value = row.values.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} is {'missing' if value is None else repr(value)}.", wanted="text")
    return value


# --- statistics ------------------------------------------------------------------------------------------------------


def result(key: Key, judgements: Sequence[Judgement], seed: int = 0) -> dict[str, Any]:
    """What the judgements say about the second model, for the certificate.

    `win_rate` is that of the pairs with a winner, with the exact interval; where several people judged a pair, the
    model that more of them prefer has won it. In `ties_as_half` every pair counts, with the mean of its judgements:
    1 for the second model, 0 for the first, 1/2 for a tie or two bad answers, with a bootstrap interval over pairs.
    """
    said: defaultdict[str, list[str]] = defaultdict(list)
    for one in judgements:
        said[one.pair].append(_preferred(key, one))
    if not said:
        raise UserError("No pair was judged yet.", fix="judge the pairs, then read them again")
    first, second = key.models
    scores = np.array([np.mean([{first: 0.0, second: 1.0}.get(what, 0.5) for what in of]) for of in said.values()])
    wins, losses = int((scores > 0.5).sum()), int((scores < 0.5).sum())
    rate = exact_interval(wins, wins + losses) if wins + losses else None
    [halves] = Bootstrap(len(scores), RESAMPLES, seed).measure([mean_of(scores)])
    counts = Counter(what for of in said.values() for what in of)
    decided = "undecided" if rate is None or rate.low <= 0.5 <= rate.high else "better" if rate.low > 0.5 else "worse"
    seconds = [one.seconds for one in judgements if one.seconds is not None]
    sides = Counter(one.verdict for one in judgements)
    return {
        "models": list(key.models), "pairs": len(key.left), "judged": len(said), "judgements": len(judgements),
        "test_rows": key.test_rows, "same_answers": key.same_answers,
        "verdicts": {what: counts[what] for what in (second, first, "tie", "both_bad")},
        "wins": wins, "losses": losses, "undecided_pairs": len(said) - wins - losses,
        "win_rate": rate and rate.to_json(), "ties_as_half": halves.interval((0.0, 1.0)).to_json(),
        "verdict": decided, "left": sides["left"], "right": sides["right"],
        "annotators": sorted({one.annotator for one in judgements}), "agreement": agreement(key, judgements),
        "minutes": sum(seconds) / 60 if seconds else None,
        "sentence": _sentence(second, wins, losses, len(said), rate),
    }


def _preferred(key: Key, judgement: Judgement) -> str:
    """The model that a person preferred, or tie, or both_bad."""
    if judgement.verdict not in ("left", "right"):
        return judgement.verdict
    left = key.left[judgement.pair]
    return left if judgement.verdict == "left" else key.models[left == key.models[0]]


def _sentence(model: str, wins: int, losses: int, judged: int, rate: Interval | None) -> str:
    if rate is None:
        return f"In none of {judged:,} blind pairs was one answer preferred."
    return (f"People preferred {model} in {wins:,} of {wins + losses:,} blind pairs with a winner ({rate.value:.0%}, "
            f"{LEVEL:.0%} interval {rate.low:.0%} to {rate.high:.0%}); {judged - wins - losses:,} had none.")


def agreement(key: Key, judgements: Sequence[Judgement]) -> dict[str, Any] | None:
    """How far people agree on the pairs that several judged; None where there are none.

    `same` is the share of pairs of judgements that are equal. Beyond chance: Cohen's kappa for two people, and
    Krippendorff's alpha for any number, also where not everybody judged every pair. (Where everybody did, it is
    Fleiss' kappa K as 1 - (1 - K) * (1 - 1/N) for N judgements.) None where nobody ever varied.
    """
    people = {name: i for i, name in enumerate(dict.fromkeys(one.annotator for one in judgements))}
    places = {name: i for i, name in enumerate(key.left)}
    codes = {what: i for i, what in enumerate((*key.models, "tie", "both_bad"))}
    items = np.array([places[one.pair] for one in judgements], np.int64)
    values = np.array([codes[_preferred(key, one)] for one in judgements], np.int64)
    shared = int((np.bincount(items) > 1).sum())
    if not shared:
        return None
    kappa = math.nan
    if len(people) == 2:
        who = np.array([people[one.annotator] for one in judgements])
        mine, theirs = (dict(zip(items[who == i].tolist(), values[who == i].tolist(), strict=True)) for i in (0, 1))
        both = sorted(mine.keys() & theirs.keys())
        kappa = cohen_kappa(np.array([mine[i] for i in both]), np.array([theirs[i] for i in both]))
    return {"pairs": shared, "same": share_that_agrees(items, values), "cohen_kappa": _or_none(kappa),
            "krippendorff_alpha": _or_none(krippendorff_alpha(items, values))}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def exact_interval(successes: int, trials: int) -> Interval:
    """A share with its exact 95 % interval, Clopper and Pearson 1934 (Biometrika 26, 404-413).

    Each end is passed in at most 2.5 % of cases whatever the true share is, so it is rather too wide; Wilson's is
    nearer to 95 % on average, but names a winner of equal models too often at some numbers (3.3 % on a side at 11).
    """
    return Interval(successes / trials, _lower_end(successes, trials), 1 - _lower_end(trials - successes, trials))


def _lower_end(successes: int, trials: int) -> float:
    """The share with which so many or more successes have probability 2.5 %, by bisection."""
    if not successes:
        return 0.0
    count = range(successes, trials + 1)
    ways = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in count])
    hits = np.arange(successes, trials + 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        tail = np.exp(ways + hits * math.log(share) + (trials - hits) * math.log1p(-share)).sum()
        low, high = (share, high) if tail < (1 - LEVEL) / 2 else (low, share)
    return low
