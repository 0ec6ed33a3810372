"""Write the fingerprints of public evaluation sets: `python tools/fingerprints.py FOLDER`.

FOLDER holds the sets as JSON lines, plain or gzipped, under the names below. What is written are hashes of questions
and where the questions come from, and no row; `tuneloop check` looks for them in training rows. Nothing depends on
where this runs: the same files give the same fingerprints.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.data.near.fingerprints import BUILT_IN, EvaluationSet, prints_of, save

HASHES = 4              # of each question at most
Question = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Source:
    """A set, its file in FOLDER, and what of a row is the question."""

    name: str
    title: str
    file: str
    question: Question
    licence: str
    source: str


def between(begin: str, end: str, column: str = "instruction") -> Question:
    """The part of a text between two others."""
    pattern = re.compile(re.escape(begin) + "(.*?)" + re.escape(end), re.DOTALL)

    def question(row: dict[str, Any]) -> str:
        found = pattern.search(row[column])
        if found is None:
            raise SystemExit(f"not as expected: {row[column][:200]!r}")
        return found[1]

    return question


def column(*names: str) -> Question:
    return lambda row: " ".join(row[name] for name in names)


SOURCES = [
    Source("gsm8k", "GSM8K (test)", "gsm8k/test.jsonl", column("question"), "MIT", "openai/grade-school-math"),
    Source("mmlu", "MMLU (test)", "mmlu/test.jsonl.gz", column("question"), "MIT", "hendrycks/test"),
    Source("arc_easy", "ARC-Easy (test)", "arc_easy/test.jsonl",
           between("Please choose the correct answer to the question: ", "\n\nAnswer1"), "CC BY-SA 4.0",
           "allenai/ai2_arc, as in AGI-Edgerunners/LLM-Adapters"),
    Source("boolq", "BoolQ (validation)", "boolq/test.jsonl", between("question: ", "\n\nAnswer format"),
           "CC BY-SA 3.0", "google-research-datasets/boolean-questions, as in AGI-Edgerunners/LLM-Adapters"),
    Source("humaneval", "HumanEval", "humaneval/HumanEval.jsonl", column("prompt"), "MIT", "openai/human-eval"),
    Source("mbpp", "MBPP (sanitized)", "mbpp_sanitized/mbpp_sanitized_for_code_generation.jsonl",
           between("'''", "'''", "prompt"), "CC BY 4.0", "google-research/mbpp, as in microsoft/CodeT"),
    Source("ifeval", "IFEval", "ifeval/input_data.jsonl", column("prompt"), "Apache-2.0",
           "google-research/instruction_following_eval"),
    Source("svamp", "SVAMP", "svamp/SVAMP.jsonl", column("Body", "Question"), "MIT", "arkilpatel/SVAMP"),
    Source("pubmedqa", "PubMedQA (labelled)", "pubmedqa/ori_pqal.jsonl", column("QUESTION"), "MIT",
           "pubmedqa/pubmedqa"),
    Source("sst2", "SST-2 (test)", "sst2/test.jsonl", column("sentence"), "none stated",
           "Stanford Sentiment Treebank, as in clairett/pytorch-sentiment-classification"),
    Source("banking77", "Banking77 (test)", "banking77/test.jsonl", column("text"), "CC BY 4.0",
           "PolyAI-LDN/task-specific-datasets"),
    Source("xstest", "XSTest", "xstest/xstest_prompts.jsonl", column("prompt"), "CC BY 4.0", "paul-rottger/xstest"),
]


def rows_of(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sets = []
    for one in SOURCES:
        questions = [one.question(row) for row in rows_of(Path(sys.argv[1]) / one.file)]
        prints = prints_of(questions, shared_by=1, most=HASHES)
        print(f"{one.title}: {len(questions):,} questions, {len(set(prints.row_of.tolist())):,} of them can be found, "
              f"{len(prints.hashes):,} hashes")
        sets.append((EvaluationSet(one.name, one.title, len(questions), one.licence, one.source), prints))
    BUILT_IN.parent.mkdir(exist_ok=True)
    save(BUILT_IN, sets)
    print(f"{BUILT_IN}: {BUILT_IN.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
