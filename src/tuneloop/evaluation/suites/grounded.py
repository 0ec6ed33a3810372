"""Questions about a given text: does the model answer from it, and does it say so where the text has no answer?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import Asked, Grade, ask, pick, rows
from tuneloop.inference.backend import Backend, Progress

ANSWERABLE, UNANSWERABLE = "answerable", "unanswerable"
ABSTAINED, RIGHT, OTHER, UNSUPPORTED = "abstained", "right", "another answer", "unsupported claim"
PROMPT = """Answer from the text alone. If the text does not say, answer "I don't know".

Text: {context}

Question: {question}"""

_LONGEST = 80       # tokens: an answer is a few words
_ABSTAINS = re.compile(r"""
    \b(?: (?:do|does|did)(?:\ not|n't)\ (?:know|say|state|tell|mention|specify|provide|give|contain|include|indicate)
        | (?:is|are|was|were)(?:\ not|n't)\ (?:\w+\ )?
          (?:known|said|stated|given|mentioned|specified|provided|included|in\ the\ text|clear|available|possible)
        | (?:can|could)(?:\ ?not|n't)\ (?:be\ )?(?:\w+\ )?
          (?:answered|answer|know|tell|determined|determine|say|find|found)
        | not\ (?:mentioned|stated|specified|given|provided|known|enough\ information|in\ the\ text)
        | no\ (?:information|mention|answer|details?)
        | unknown | unanswerable | unclear | unable\ to | not\ sure | n/a )
    (?!\w)""", re.VERBOSE)


class Grounded:
    """Invented passages, each with a question that it answers and one that it does not.

    An answerable question scores 1 if the answer holds one of the reference answers and does not abstain; the other
    kind if it abstains. Everything else said there is a claim that the text does not support.
    """

    name = "grounded"
    title = "answers from a given text, and none where it has none"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        items = [Asked(row["id"], row["part"], PROMPT.format(context=row["context"], question=row["question"]),
                       grader(row["answers"])) for row in rows(self.name)]
        return ask(backend, pick(items, limit), _LONGEST, progress)


def rates(graded: Sequence[Graded]) -> dict[str, float]:
    """Shares of the questions of each kind: unsupported claims and abstentions where the text has no answer, and right
    answers and needless abstentions where it has one. A kind that was not asked is left out.
    """
    shares: dict[str, float] = {}
    for part, names in ((UNANSWERABLE, {"unsupported_claims": UNSUPPORTED, "abstentions": ABSTAINED}),
                        (ANSWERABLE, {"right_answers": RIGHT, "needless_abstentions": ABSTAINED})):
        of = [item for item in graded if item.part == part]
        shares |= {name: sum(item.why.startswith(seen) for item in of) / len(of) for name, seen in names.items() if of}
    return shares


def abstains(answer: str) -> bool:
    """Whether an answer says that it cannot be given, by common phrases of English. An empty one says nothing, and so
    claims nothing either.
    """
    return not answer.strip() or _ABSTAINS.search(answer.lower().replace("’", "'")) is not None


def grader(answers: Sequence[str]) -> Grade:
    """A function that grades an answer by the reference answers; none where the text holds no answer."""
    def grade(answer: str) -> tuple[float, str]:
        if abstains(answer):
            return float(not answers), ABSTAINED
        if not answers:
            return 0.0, UNSUPPORTED
        said = answer.lower()
        found = any(re.search(rf"(?<!\w){re.escape(known.lower())}(?!\d)", said) for known in answers)
        return (1.0, RIGHT) if found else (0.0, OTHER)
    return grade
