"""Writes docs/findings.md: what `tuneloop check` finds in public data sets. `python tools/findings.py FOLDER`.

FOLDER holds the sets as plain files; they are not part of the project, and no row of theirs is written down: places
and counts alone.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tuneloop.check import Subject, check
from tuneloop.data.examine import Examined
from tuneloop.data.spec import DataSpec
from tuneloop.demo import fetch_rows

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHOWN_FINDINGS = 12


@dataclass(frozen=True)
class Public:
    """A public set: its title, its files below FOLDER, and templates where its columns need them."""

    title: str
    train: str
    test: str | None = None
    against: tuple[str, ...] = ()
    prompt: str | None = None
    answer: str | None = None


DEMO = "demo"
SETS = [
    Public("The demo's own film reviews (Rotten Tomatoes), against SST-2", DEMO,
           against=("sst2/dev.jsonl", "sst2/test.jsonl"), prompt="{text}", answer="{label}"),
    Public("SST-2, film reviews", "sst2/train.jsonl", "sst2/test.jsonl", prompt="{sentence}", answer="{label}"),
    Public("Banking77, customers' questions to a bank", "banking77/train.jsonl", "banking77/test.jsonl",
           prompt="{text}", answer="{category}"),
    Public("Bitext customer support", "bitext_customer_support/train.jsonl", prompt="{instruction}",
           answer="{response}"),
    Public("GSM8K, maths in words", "gsm8k/train.jsonl", "gsm8k/test.jsonl"),
    Public("ARC easy", "arc_easy/train.jsonl", "arc_easy/test.jsonl"),
    Public("BoolQ", "boolq/train.jsonl", "boolq/test.jsonl"),
    Public("Alpaca, a sample of 999 rows", "fmt_llamafactory_demos/alpaca_en_demo.jsonl"),
    Public("Glaive tool calls, a sample", "fmt_llamafactory_demos/glaive_toolcall_en_demo.jsonl"),
    Public("ShareGPT dummy conversations (FastChat)", "fmt_sharegpt_fastchat/dummy_conversation.jsonl"),
    Public("OpenAI cookbook, toy chats", "fmt_openai_chat_cookbook/toy_chat_fine_tuning.jsonl"),
    Public("OpenAI cookbook, drone commands", "fmt_openai_chat_cookbook/drone_training_first5.jsonl"),
    Public("HH-RLHF harmless, pairs", "hh_rlhf_harmless_test/harmless_base_test.jsonl"),
    Public("MeQSum, patients' questions", "meqsum/meqsum.jsonl", prompt="{CHQ}", answer="{Summary}"),
    Public("WikiText-2", "wikitext2/valid.jsonl", "wikitext2/test.jsonl"),
]


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    version = subprocess.run(["git", "log", "-1", "--format=%as"], capture_output=True, text=True, check=True)
    pages = [INTRODUCTION.format(date=version.stdout.strip())]
    for public in SETS:
        print(public.title, flush=True)
        pages.append(section(public, looked_at(public, folder)).replace(f"{folder}/", ""))
    (DOCS / "findings.md").write_text("\n".join(pages), encoding="utf-8")


def looked_at(public: Public, folder: Path) -> Examined:
    """Every check but those that need a base. Files are named as below FOLDER."""
    demo = fetch_rows() if public.train == DEMO else None
    data = DataSpec(train=str(demo) if demo else public.train, test=public.test, prompt=public.prompt,
                    answer=public.answer, evaluation_sets=tuple(public.against))
    if demo:
        data = data.model_copy(update={"evaluation_sets": tuple(str(folder / name) for name in public.against)})
    return check(Subject(data, folder, shown={"train": demo.name if demo else public.train}))


def section(public: Public, found: Examined) -> str:
    files = "; ".join(f"{file.part}: `{Path(file.file).name}`, {file.rows:,} rows" for file in found.files)
    lines = [f"## {public.title}", "", f"**{found.verdict}**. {files}.", ""]
    for finding in found.findings[:SHOWN_FINDINGS]:
        where = "; ".join(str(finding.places).split("; ")[:3])
        lines.append(f"- *{finding.check}* ({finding.severity}): {finding.what}{': ' + where if where else ''}")
    if len(found.findings) > SHOWN_FINDINGS:
        lines.append(f"- and {len(found.findings) - SHOWN_FINDINGS} more")
    return "\n".join(lines) + "\n"


INTRODUCTION = """# What `check` finds in public data

Made by `python tools/findings.py FOLDER` on {date}; FOLDER held the sets as published, as JSONL. Places name the line;
texts of rows are left out, since licences differ. "Fix first" and "will not train" are what `tuneloop check` says.

Not every note is right: short film reviews full of names are taken for Spanish or Portuguese, placeholders of Bitext
are meant to be filled in by whoever uses it, and a label that is "likely wrong" may be an odd sentence. They are there
to be looked at.
"""

if __name__ == "__main__":
    main()
