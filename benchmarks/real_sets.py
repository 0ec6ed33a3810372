"""Twelve public data sets with the template that a person would write for each, rendered by tuneloop itself.

The rows stay where they are: the folder is named by --data or TUNELOOP_BENCH_DATA, and without it these rows of the
suite are left out. Measured is the training stage on the first steps of an epoch, all of them counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuneloop.data.prepare import prepare
from tuneloop.data.spec import DataSpec, Split
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.training.source import samples_of_step
from tuneloop.types import Group, Rendered

LONGEST_TOKENS = 384        # what is longer is left out, so that the padded side fits into memory
BATCH = 16
SEED = 0


@dataclass(frozen=True)
class RealSet:
    """Where a set lies in the data folder, and its part of a recipe."""

    name: str
    file: str
    prompt: str
    answer: str


SETS = (
    RealSet("film reviews, labels", "sst2/dev.jsonl",
            "Is this film review positive (1) or negative (0)?\n\n{sentence}", "{label}"),
    RealSet("banking, 77 topics", "banking77/test.jsonl",
            "Which of our support topics is this message about?\n\n{text}", "{category}"),
    RealSet("shop support, long answers", "bitext_customer_support/train.jsonl",
            "Answer the customer politely and step by step.\n\n{instruction}", "{response}"),
    RealSet("science, four choices", "arc_easy/train.jsonl", "{instruction}", "{output}"),
    RealSet("yes or no", "boolq/test.jsonl", "{instruction}", "{output}"),
    RealSet("exams, 57 subjects", "mmlu/dev.jsonl",
            "Answer this question about {subject} with the number of the right choice.\n\n{question}\n\n"
            "0. {choice0}\n1. {choice1}\n2. {choice2}\n3. {choice3}", "{answer}"),
    RealSet("maths in words", "gsm8k/test.jsonl",
            "Solve the problem step by step, and put the result after ####.\n\n{question}", "{answer}"),
    RealSet("biomedical findings", "pubmedqa/ori_pqal.jsonl",
            "Given the conclusion of a paper, answer its question with yes, no or maybe.\n\n"
            "Conclusion: {LONG_ANSWER}\n\nQuestion: {QUESTION}", "{final_decision}"),
    RealSet("patients' questions, summaries", "meqsum/meqsum.jsonl",
            "Summarise what this patient wants to know in one question.\n\n{CHQ}", "{Summary}"),
    RealSet("Python functions", "mbpp_sanitized/mbpp_sanitized_for_code_generation.jsonl",
            "Complete this Python function. Reply with its body alone.\n\n{prompt}", "{canonical_solution}"),
    RealSet("diagnosis codes", "icd10_categories/categories.jsonl",
            "Which ICD-10 category does this diagnosis belong to? Reply with the code alone.\n\n{description}",
            "{code}"),
    RealSet("general instructions, long answers", "fmt_llamafactory_demos/alpaca_en_demo.jsonl",
            "{instruction}\n\n{input}", "{output}"),
)


def render(chosen: RealSet, folder: Path, tokenizer: ChatTokenizer) -> list[Rendered]:
    """All usable rows of a set as tokens, in the file's order."""
    spec = DataSpec(train=chosen.file, prompt=chosen.prompt, answer=chosen.answer, split=Split(validation=0, test=0),
                    max_length_tokens=LONGEST_TOKENS, over_length="drop", drop_empty=True)
    return prepare(spec, folder, tokenizer, tokenizer.max_length, SEED).tokens["train"]


def steps(rows: list[Rendered], count: int) -> list[list[Group]]:
    """The first steps of an epoch, in the order that training takes."""
    return [[Group((rows[i],)) for i in samples_of_step(len(rows), BATCH, step, SEED)] for step in range(count)]
