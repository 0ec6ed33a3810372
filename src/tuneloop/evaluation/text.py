"""How the report writes numbers and names; an unknown value is an empty string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tuneloop.evaluation.safety.catalog import SAFETY
from tuneloop.evaluation.suites.catalog import SUITES, suite
from tuneloop.grading.metrics import METRICS

MODELS = {"base": "Base model", "few_shot": "Base with examples", "optimised_prompt": "Base with a better prompt",
          "rival": "TF-IDF rival", "tuned": "Tuned model"}
SHORT = {"base": "Base", "few_shot": "Few-shot", "optimised_prompt": "Best prompt", "rival": "TF-IDF", "tuned": "Tuned"}
METRIC_LABELS = {"accuracy": "Accuracy", "macro_f1": "Macro-F1", "rouge_l": "ROUGE-L", "exact_match": "Exact match",
                 "preference_accuracy": "Preference accuracy", "perplexity": "Perplexity", "token_f1": "Token F1",
                 "rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "bleu": "BLEU", "chrf": "chrF", "micro_f1": "Micro-F1",
                 "ece": "Calibration error", "json_valid": "Valid JSON", "json_schema": "JSON of the schema",
                 "bits_per_byte": "Bits per byte", "new_tokens": "Tokens per answer", "stop_rate": "Answers that end"}
LEADING = {"labels": "accuracy", "open": "rouge_l", "pairs": "preference_accuracy"}

_LONGEST, _LONGEST_IN_CHARTS = 30, 17        # characters of a name
_ORDER = ("base", "few_shot", "optimised_prompt", "rival")


def in_order(models: Iterable[str]) -> list[str]:
    """The base and what is made of it without training, then rivals as they were named, and tuned at the end."""
    def place(name: str) -> int:
        return _ORDER.index(name) if name in _ORDER else len(_ORDER) + (name == "tuned")
    return sorted(models, key=place)


def model_name(name: str) -> str:
    """As sentences call it; a model that the user named keeps its name."""
    return MODELS.get(name, name)


def called(name: str) -> str:
    """As tables call it."""
    return _cut(SHORT.get(name, name), _LONGEST)


def short_name(name: str) -> str:
    """As charts call it."""
    return _cut(SHORT.get(name, name), _LONGEST_IN_CHARTS)


def _cut(name: str, longest: int) -> str:
    """The beginning of a long name, or the end of a path or an address, where they differ."""
    if len(name) <= longest:
        return name
    return "…" + name[1 - longest:] if "/" in name else name[:longest - 1] + "…"


def colour(name: str) -> str:
    """The style of a model's marks; all that the user named share one."""
    return name.replace("_", "-") if name in MODELS else "other"


def metric_name(name: str) -> str:
    """As people write it."""
    return METRIC_LABELS.get(name, words(name).capitalize())


def suite_title(name: str) -> str:
    """What a suite measures, for people; the name of one that this version does not know."""
    if name in SAFETY:
        return SAFETY[name].title
    if name in SUITES:
        title = suite(name).title
        return title[:1].upper() + title[1:]
    return name


def better(metric: str) -> str:
    """Whether higher or lower is better; nothing where neither is."""
    return "lower" if metric == "perplexity" else (METRICS[metric].better or "") if metric in METRICS else "higher"


def is_share(metric: str) -> bool:
    """Whether it is told in percent, and its differences in points."""
    return metric != "perplexity" and (metric not in METRICS or METRICS[metric].in_unit)


def score(metric: str, value: float) -> str:
    """A metric's value with its unit."""
    return percent(value) if is_share(metric) else perplexity(value)


def change(metric: str, value: float) -> str:
    """A difference of a metric's values with its sign; in percentage points for shares."""
    return points(value) if is_share(metric) else perplexity(value, "+")


def p_value(p: float | None) -> str:
    """Three decimals."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def usd(value: float) -> str:
    """Three digits, or cents from ten dollars on."""
    return f"${value:,.2f}" if value >= 10 or not value else f"${value:#.3g}" if value >= 0.001 else "< $0.001"


def percent(share: float) -> str:
    """0.835 as 83.5%."""
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−") if share else "0.0"


def span(interval: Mapping[str, float], say: Callable[[float], str] = points) -> str:
    """Both ends of an interval."""
    return f"{say(interval['low'])} to {say(interval['high'])}"


def perplexity(value: float, sign: str = "") -> str:
    """Two decimals, or none above 100; `sign` is + for a difference."""
    return f"{value:{sign},.{2 if abs(value) < 100 else 0}f}".replace("-", "−")


def grade(value: float, sign: str = "") -> str:
    """A judge's mean grade to two decimals; `sign` is + for a difference."""
    return f"{value:{sign}.2f}".replace("-", "−")


def number(value: float | None) -> str:
    """With thousands apart; fractions to four digits."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) or abs(value) >= 10_000 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def file_size(size: float | None) -> str:
    """Bytes in decimal units."""
    if size is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def words(name: str) -> str:
    """A key as words, without the unit that `plain` writes with the value; what is no key (a file name) stays."""
    if not name.isidentifier():
        return name
    for unit in ("_seconds", "_bytes"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def plain(value: Any, key: str = "") -> str:
    """A JSON scalar, or a flat list, for people; `key` tells the unit."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key.endswith("_bytes"):
            return file_size(value)
        if key.endswith("_seconds"):
            return duration(value)
        return number(value)
    if isinstance(value, list):
        return ", ".join(plain(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    return str(value)
