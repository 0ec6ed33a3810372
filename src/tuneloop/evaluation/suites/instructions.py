"""Instructions whose fulfilment a program can check, in the manner of IFEval (Zhou et al. 2023, arXiv 2311.07911).

To add a kind of check: one function under `@_check`, taking the answer without white space at its ends and what the
item gives, and its use in data/instructions.jsonl.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import Asked, Grade, ask, pick, rows
from tuneloop.inference.backend import Backend, Progress

CHECKS: dict[str, Callable[..., bool]] = {}
"""Every check by the name that items use."""

_LONGEST = 200                  # tokens; the longest right answer has about 50
_CLOSING = " \n.!?\"'”’*"      # what may follow a last word
_BULLET, _NUMBER = re.compile(r"^\s*[-*•]\s+\S"), re.compile(r"^\s*\d+[.)]\s+\S")
_COMMON = {
    "en": "the and is of to in that it for with are this you not on",
    "fr": "le la les est et un une des je dans il que pour pas avec du",
    "es": "el la los es y un una en que las con mi tiene por se del",
    "de": "der die das ist und ein eine ich nicht auf mit dem im zu den",
    "it": "il la è e un una che di non per fa tra sono con del gli",
}


class Instructions:
    """An answer scores 1 if it fulfils everything that was asked for, else 0. What it says is not judged."""

    name = "instructions"
    title = "following of checkable instructions"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        items = [Asked(row["id"], row["part"], row["prompt"], grader(row["checks"])) for row in rows(self.name)]
        return ask(backend, pick(items, limit), _LONGEST, progress)


def grader(checks: Sequence[dict[str, Any]]) -> Grade:
    """A function that grades an answer by all of `checks`. An empty answer fulfils nothing."""
    def grade(answer: str) -> tuple[float, str]:
        answer = answer.strip()
        if not answer:
            return 0.0, "empty"
        failed = [check["kind"] for check in checks
                  if not CHECKS[check["kind"]](answer, **{key: check[key] for key in check if key != "kind"})]
        return float(not failed), f"failed: {', '.join(failed)}" if failed else ""
    return grade


def _check(function: Callable[..., bool]) -> Callable[..., bool]:
    CHECKS[function.__name__] = function
    return function


@_check
def starts_with(answer: str, text: str) -> bool:
    return answer.lstrip("\"'“*").lower().startswith(text.lower())


@_check
def ends_with(answer: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text.lower())}$", answer.lower().rstrip(_CLOSING)) is not None


@_check
def bullets(answer: str, n: int) -> bool:
    return sum(bool(_BULLET.match(line)) for line in answer.splitlines()) == n


@_check
def only_bullets(answer: str) -> bool:
    return all(_BULLET.match(line) for line in answer.splitlines() if line.strip())


@_check
def numbered(answer: str, n: int) -> bool:
    """Lines numbered 1 to n, in order."""
    found = [int(line.strip().split(".")[0].split(")")[0]) for line in answer.splitlines() if _NUMBER.match(line)]
    return found == list(range(1, n + 1))


@_check
def separated(answer: str, text: str, n: int) -> bool:
    return "\n" not in answer and len([part for part in answer.rstrip(text + ".").split(text) if part.strip()]) == n


@_check
def without(answer: str, text: str) -> bool:
    return text.lower() not in answer.lower()


@_check
def without_word(answer: str, text: str) -> bool:
    return _count_of(text, answer) == 0


@_check
def without_digits(answer: str) -> bool:
    return not any(map(str.isdigit, answer))


@_check
def count(answer: str, text: str, n: int) -> bool:
    return answer.count(text) == n


@_check
def count_word(answer: str, text: str, n: int) -> bool:
    return _count_of(text, answer) == n


@_check
def least_word(answer: str, text: str, n: int) -> bool:
    return _count_of(text, answer) >= n


@_check
def includes(answer: str, words: Sequence[str]) -> bool:
    return all(_count_of(word, answer) for word in words)


@_check
def quoted(answer: str) -> bool:
    return len(answer) > 2 and answer[0] in '"“' and answer[-1] in '"”'


@_check
def upper(answer: str) -> bool:
    return answer.isupper()


@_check
def lower(answer: str) -> bool:
    return answer.islower()


@_check
def title_case(answer: str) -> bool:
    return all(word[0].isupper() for word in _words(answer))


@_check
def json_object(answer: str, words: Sequence[str]) -> bool:
    """An object with exactly these keys, and nothing around it."""
    value = _json(answer)
    return isinstance(value, dict) and set(value) == set(words)


@_check
def json_list(answer: str, n: int) -> bool:
    value = _json(answer)
    return isinstance(value, list) and len(value) == n


@_check
def sentences(answer: str, n: int) -> bool:
    """Sentences end with . ! or ? before white space or the end; a last one without such a sign counts too."""
    return len([part for part in re.split(r"[.!?]+[\"'”’)]*(?:\s+|$)", answer) if part.strip()]) == n


@_check
def at_most(answer: str, n: int) -> bool:
    return len(_words(answer)) <= n


@_check
def at_least(answer: str, n: int) -> bool:
    return len(_words(answer)) >= n


@_check
def exactly(answer: str, n: int) -> bool:
    return len(_words(answer)) == n


@_check
def paragraphs(answer: str, n: int) -> bool:
    return len([part for part in re.split(r"\n\s*\n", answer) if part.strip()]) == n


@_check
def lines(answer: str, n: int) -> bool:
    return len(answer.splitlines()) == n and all(line.strip() for line in answer.splitlines())


@_check
def choice(answer: str, words: Sequence[str]) -> bool:
    return answer.rstrip(".!").lower() in words


@_check
def digits(answer: str) -> bool:
    return answer.rstrip(".").isdecimal()


@_check
def language(answer: str, text: str) -> bool:
    """By common words: at least two of the language, and more than of any other. Coarse, but enough to tell five."""
    found = {name: sum(word.lower() in common.split() for word in _words(answer)) for name, common in _COMMON.items()}
    return found[text] >= 2 and all(found[text] > times for name, times in found.items() if name != text)


@_check
def title(answer: str) -> bool:
    return re.match(r"<<[^<>]+>>\s*\S", answer) is not None


@_check
def heading(answer: str) -> bool:
    return re.match(r"# \S.*\n+\s*[^#\s]", answer) is not None


@_check
def first_line(answer: str, text: str) -> bool:
    return answer.splitlines()[0].strip() == text


@_check
def last_line(answer: str, text: str) -> bool:
    return answer.splitlines()[-1].strip() == text


@_check
def bold(answer: str) -> bool:
    return re.search(r"\*\*[^*\s](?:[^*]*[^*\s])?\*\*", answer) is not None


@_check
def postscript(answer: str) -> bool:
    """The last line is a postscript, and another comes before it."""
    parts = [line for line in answer.splitlines() if line.strip()]
    return len(parts) > 1 and parts[-1].strip().startswith("P.S.")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)


def _count_of(word: str, text: str) -> int:
    """How often a word occurs on its own, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(word.lower())}(?!\w)", text.lower()))


def _json(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None
