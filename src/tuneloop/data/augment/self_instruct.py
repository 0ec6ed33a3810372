"""New tasks in the manner of one's own rows: Self-Instruct, Wang et al. 2022 (arXiv 2212.10560).

As in the paper: eight tasks in the prompt, six of them people's and two of the model's own; a new instruction is kept
when its ROUGE-L with every known one is below 0.7, when it is neither too short nor too long, and when it asks for
nothing that a model of text cannot do. Deviations: one request gives instruction and answer together, so that there is
no separate step for classification tasks; other scripts than the Latin one are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

from tuneloop.data.augment import parse
from tuneloop.data.augment.overlap import Known, words
from tuneloop.data.augment.refused import Refused
from tuneloop.data.fixes.base import Generate
from tuneloop.errors import UserError
from tuneloop.types import Message

OWN, MADE = 6, 2                # tasks in the prompt
MOST_ALIKE = 0.7
FEWEST_WORDS, MOST_WORDS = 4, 150
EACH = 4                        # tasks asked for in a request
REQUESTS = 16                   # at a time, before what they gave is used in others
GIVES_UP = 3                    # rounds in a row that give nothing new
UNFIT = re.compile(r"\b(?:images?|pictures?|photos?|graphs?|charts?|diagrams?|flowcharts?|maps?|files?|draw|plot|"
                   r"videos?|audio|music|go to|visit|attached)\b", re.IGNORECASE)

PROMPT = """Here are {count} tasks with their answers, one JSON object on each line.
{examples}
Write {each} new tasks of the same kind and in the same language, each unlike all of these, with correct answers.
Reply with {each} lines, each a JSON object with the keys "instruction" and "output", and nothing else."""


@dataclass(frozen=True)
class Task:
    """An instruction and its answer. `like` is the number of the seed whose instruction is most like it."""

    instruction: str
    output: str
    like: int = 0


def self_instruct(seeds: Sequence[Task], generate: Generate, count: int, seed: int = 0,
                  labels: Collection[str] = ()) -> tuple[list[Task], Refused]:
    """Up to `count` new tasks and what was refused; fewer where the model gives nothing new any more.

    `labels` are the only answers there may be, if given. Raises UserError where there are too few seeds to show.
    """
    if len(seeds) < OWN + MADE:
        raise UserError(f"There are {len(seeds)} rows to show as examples.", wanted=f"at least {OWN + MADE}")
    rng, refused = Random(seed), Refused()
    seeds_known = Known(task.instruction for task in seeds)
    known = Known(task.instruction for task in seeds)
    made: list[Task] = []
    idle = 0
    while len(made) < count and idle < GIVES_UP:
        requests = min(REQUESTS, -(-(count - len(made)) // EACH))
        before = len(made)
        for answer in generate([_prompt(seeds, made, rng) for _ in range(requests)]):
            for task in _tasks(answer, refused):
                if why := _flaw(task, known, labels):
                    refused.add(why, task.instruction)
                elif len(made) < count:
                    known.add(task.instruction)
                    made.append(Task(task.instruction, task.output, seeds_known.most_like(task.instruction)))
        idle = 0 if len(made) > before else idle + 1
    refused.kept = len(made)
    return made, refused


def _prompt(seeds: Sequence[Task], made: Sequence[Task], rng: Random) -> tuple[Message, ...]:
    own = rng.sample(range(len(seeds)), OWN + MADE - min(MADE, len(made)))
    shown = [*(seeds[i] for i in own), *rng.sample(list(made), min(MADE, len(made)))]
    rng.shuffle(shown)
    examples = "\n".join(parse.line(instruction=task.instruction, output=task.output) for task in shown)
    return (Message("user", PROMPT.format(count=len(shown), examples=examples, each=EACH)),)


def _tasks(answer: str, refused: Refused) -> list[Task]:
    found = parse.objects(answer, "instruction", "output")
    if not found:
        refused.add("no task in the reply", answer)
    return [Task(task["instruction"], task["output"]) for task in found]


def _flaw(task: Task, known: Known, labels: Collection[str]) -> str:
    """Why a task is refused, or nothing."""
    length = len(words(task.instruction))
    if not FEWEST_WORDS <= length <= MOST_WORDS:
        return f"an instruction of fewer than {FEWEST_WORDS} or more than {MOST_WORDS} words"
    if not task.output or words(task.output) == words(task.instruction):
        return "no answer, or one that repeats the instruction"
    if labels and task.output not in labels:
        return "the answer is none of the labels"
    if not (task.instruction[0].isalnum() or task.instruction[0] in "\"'“¿¡«("):
        return "begins with a sign and not with a word"
    if UNFIT.search(task.instruction):
        return "about images, files or places, which a model of text has not got"
    if known.has_like(task.instruction, MOST_ALIKE):
        return "nearly the same as a known instruction"
    return ""
