"""Every check over every file in one pass: what is read, what is not, and the verdict that follows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from data_rows import CharacterTokenizer

from browser import WIDTHS, check_fits, needs_browser
from tuneloop.check import Subject, check
from tuneloop.data import examine as examining
from tuneloop.data.examine import Examined, Input, Reading, examine, samples_of
from tuneloop.data.findings import Finding, verdict
from tuneloop.data.fix import parse
from tuneloop.data.page import write_page
from tuneloop.data.proof import Proof
from tuneloop.data.spec import DataSpec
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Preference

TOKENIZER = cast(ChatTokenizer, CharacterTokenizer())
LEAVING = {"prompt": "Where is order 4411, which I paid last week?", "completion": "It leaves tomorrow at noon."}


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def looked_at(folder: Path, rows: list[dict[str, Any]], *checks: str, **reading: Any) -> Examined:
    return examine([Input("train", write(folder, rows))], Reading(folder, **reading), names=checks)


def told(found: Examined) -> dict[tuple[str, str], list[int]]:
    return {(f.severity, f.what): [origin.line for origin in f.places] for f in found.findings}


def test_rows_that_cannot_be_read_are_named_and_block(tmp_path: Path) -> None:
    rows = [LEAVING, {**LEAVING, "completion": " "}, LEAVING, {**LEAVING, "completion": ""}, {"prompt": "What?"}]
    found = looked_at(tmp_path, rows)
    assert told(found) == {("blocks", "2 rows cannot be read: the answer is empty"): [2, 4],
                           ("blocks", '1 row cannot be read: "completion" is missing'): [5]}
    assert found.verdict == "will not train"
    assert "mend line 2" in found.findings[0].fix
    assert (found.rows, found.files[0].rows) == (5, 5)


def test_dropped_rows_are_only_noted(tmp_path: Path) -> None:
    found = looked_at(tmp_path, [LEAVING, {**LEAVING, "completion": ""}], drop_empty=True)
    assert told(found) == {("note", "1 row left out: the answer is empty"): [2]}
    assert found.verdict == "ready"


def test_a_source_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    write(tmp_path, [LEAVING] * 3)
    found = examine([Input("train", "rows.jsonl"), Input("test", "nowhere.jsonl")], Reading(tmp_path), names=[])
    assert [(f.check, f.severity, f.what) for f in found.findings] == [
        ("reading", "blocks", "nowhere.jsonl does not exist")]
    assert [(file.part, file.kind, file.rows) for file in found.files] == [
        ("train", "JSONL", 3), ("test", "unreadable", 0)]


def test_rows_of_another_kind_than_the_objective_learns_from(tmp_path: Path) -> None:
    pair = {"prompt": "Where?", "chosen": "Here.", "rejected": "No."}
    assert looked_at(tmp_path, [pair] * 3).verdict == "ready"
    assert looked_at(tmp_path, [pair] * 3, kind=Preference).verdict == "ready"
    refused = looked_at(tmp_path, [pair] * 3, kind=Conversation)
    assert refused.verdict == "will not train"
    assert "objective=dpo" in refused.findings[0].fix


def test_sets_to_compare_with_are_read_as_they_are(tmp_path: Path) -> None:
    """Templates are for the recipe's own rows."""
    write(tmp_path, [{"text": f"the film number {i} was long", "label": "good"} for i in range(6)], "rows.jsonl")
    write(tmp_path, [{"input": "What is two and two?", "ideal": "4"}], "set.jsonl")
    found = examine([Input("train", "rows.jsonl"), Input("evaluation", "set.jsonl")],
                    Reading(tmp_path, Conversation, "{text}", "{label}"), names=[])
    assert found.findings == []
    assert [file.rows for file in found.files] == [6, 1]


def test_the_first_rows_are_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "HEAD_ROWS", 4)
    monkeypatch.setattr(examining, "CHUNK_ROWS", 3)
    damaged = {**LEAVING, "completion": "It leaves tom\ufffdrrow at noon."}
    rows = [{**LEAVING, "prompt": f"{LEAVING['prompt']} {i}"} for i in range(8)]
    name = write(tmp_path, [damaged, *rows, damaged])
    first: list[tuple[int, list[int]]] = []

    def note(count: int, findings: list[Finding]) -> None:
        first.append((count, [origin.line for finding in findings for origin in finding.places]))

    found = examine([Input("train", name)], Reading(tmp_path), names=["encoding"], first_look=note)
    assert first == [(4, [1])]
    assert [origin.line for origin in found.findings[0].places] == [1, 10]
    first.clear()
    examine([Input("train", write(tmp_path, rows[:4]))], Reading(tmp_path), names=["encoding"], first_look=note)
    assert first == []          # there is no rest to wait for


def commands(found: Examined) -> list[str]:
    return [finding.fix for finding in found.findings if finding.check == "duplicates"]


def test_a_fix_names_the_source_as_one_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [LEAVING, LEAVING, {"prompt": "Who?", "completion": "Me."}]
    assert commands(looked_at(tmp_path, rows, "duplicates")) == [
        f"tuneloop data fix {tmp_path}/rows.jsonl deduplicate"]
    monkeypatch.chdir(tmp_path)
    assert commands(looked_at(Path(), rows, "duplicates")) == ["tuneloop data fix rows.jsonl deduplicate"]
    monkeypatch.chdir(tmp_path.parent)      # a recipe's paths count from its folder
    assert commands(looked_at(tmp_path, rows, "duplicates")) == [
        f"tuneloop data fix {tmp_path.name}/rows.jsonl deduplicate"]


def test_rows_that_two_files_of_a_folder_share_are_mended_in_the_folder(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my rows").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / "my rows", [LEAVING], name)
    monkeypatch.chdir(tmp_path)
    found = examine([Input("train", "my rows")], Reading(), names=["duplicates"])
    assert str(found.findings[0].places) == "my rows/b.jsonl line 1"
    assert commands(found) == ["tuneloop data fix 'my rows' deduplicate"]


def test_a_fix_of_all_rows_together_names_the_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ["good"] * 95 + ["bad"] * 5
    write(tmp_path, [{"text": f"film {i}", "label": label} for i, label in enumerate(labels)])
    monkeypatch.chdir(tmp_path)
    found = examine([Input("evaluation", "rows.jsonl"), Input("train", "rows.jsonl")],
                    Reading(prompt="{text}", answer="{label}"), names=["balance"])
    assert [(len(f.places), f.fix[f.fix.index("tuneloop"):]) for f in found.findings if "tuneloop" in f.fix] == [
        (0, "tuneloop data fix rows.jsonl balance")]


def test_the_rows_are_looked_at_as_the_fixes_of_the_recipe_leave_them(tmp_path: Path) -> None:
    rows = [LEAVING, LEAVING, {"prompt": "Who?", "completion": "Ann, ann@mail.org."}]
    write(tmp_path, rows, "set.jsonl")
    fixes = [parse("deduplicate"), parse({"kind": "redact", "kinds": ["email"]})]
    found = examine([Input("evaluation", "set.jsonl"), Input("train", write(tmp_path, rows))],
                    Reading(tmp_path, fixes=fixes), names=["duplicates", "personal"])
    assert (found.findings, found.verdict) == ([], "ready")
    assert [file.notes for file in found.files] == [
        [], ["data.fix deduplicate: 3 rows → 2", 'data.fix redact kinds=["email"]: 2 rows']]
    assert [file.rows for file in found.files] == [3, 3]


def test_check_applies_the_fixes_that_a_run_applies_before_its_split(tmp_path: Path) -> None:
    write(tmp_path, [LEAVING, LEAVING])
    spec = DataSpec(train="rows.jsonl", fix=(parse("deduplicate"), parse("augment")))
    found = check(Subject(spec, tmp_path), names=["duplicates"])
    assert (found.files[0].notes, found.verdict) == (["data.fix deduplicate: 2 rows → 1"], "ready")


def test_a_fix_that_cannot_be_applied_is_a_finding(tmp_path: Path) -> None:
    rows = [{"prompt": f"Film {i}?", "completion": "good" if i else "bad"} for i in range(20)]
    found = looked_at(tmp_path, rows, fixes=[parse("balance")])
    assert [(f.check, f.severity, f.what) for f in found.findings] == [
        ("reading", "blocks", "balance: “bad” has only 1 row, to which others would be cut")]


def test_rows_that_no_objective_learns_from_are_told(tmp_path: Path) -> None:
    assert told(looked_at(tmp_path, [{"text": f"The bridge number {i} is old."} for i in range(3)])) == {
        ("note", "3 rows hold plain texts, from which no objective learns"): [1, 2, 3]}
    assert told(looked_at(tmp_path, [{"input": "Two and two?", "ideal": "4"}])) == {
        ("note", "1 row holds evaluation samples, from which no objective learns"): [1]}
    assert looked_at(tmp_path, [LEAVING]).findings == []


def test_json_holds_every_place(tmp_path: Path) -> None:
    found = looked_at(tmp_path, [{**LEAVING, "completion": ""}] * 7).to_json()
    assert found["verdict"] == "will not train"
    assert found["findings"][0]["places"] == [{"file": "rows.jsonl", "lines": [1, 2, 3, 4, 5, 6, 7]}]
    assert json.loads(json.dumps(found)) == found


def test_the_worst_finding_decides() -> None:
    def finding(severity: Any) -> Finding:
        return Finding("check", severity, "", "")

    assert verdict([]) == verdict([finding("note")]) == "ready"
    assert verdict([finding("note"), finding("fix")]) == "fix first"
    assert verdict([finding("fix"), finding("blocks"), finding("note")]) == "will not train"


def test_samples_of_a_source(tmp_path: Path) -> None:
    write(tmp_path, [LEAVING, {**LEAVING, "completion": ""}, LEAVING])
    with pytest.raises(UserError, match=r"the answer is empty: rows.jsonl line 2"):
        list(samples_of("rows.jsonl", Reading(tmp_path)))
    unread = Counter[str]()
    kept = list(samples_of("rows.jsonl", Reading(tmp_path), unread))
    assert [sample.origin.line for sample in kept] == [1, 3]
    assert unread == {"the answer is empty": 1}


# --- the proof -------------------------------------------------------------------------------------------------------

def proven(folder: Path, rows: list[dict[str, Any]], limit: int | None = None, **options: Any) -> Examined:
    return examine([Input("train", write(folder, rows))], Reading(folder), names=[],
                   more=lambda: {"proof": Proof(TOKENIZER, limit, **options)})


def test_the_proof_counts_tokens(tmp_path: Path) -> None:
    """One token a character and one for each special; the answer's end of turn carries loss too."""
    found = proven(tmp_path, [{"prompt": "abc", "completion": "de"}, {"prompt": "ab", "completion": "cdef"}])
    assert found.findings == []
    counted = found.facts["loss_mask"]
    assert counted["supervised_per_row"] == {"min": 3, "median": 3, "p95": 5, "max": 5}
    assert counted["rows"] == 2
    assert counted["supervised_percent"] == round(100 * 8 / counted["tokens"], 1)


def test_rows_that_are_too_long_block_unless_they_are_dropped(tmp_path: Path) -> None:
    rows = [{"prompt": "abc", "completion": "de"}, {"prompt": "abc", "completion": "x" * 90}]
    blocked = proven(tmp_path, rows, 50)
    assert told(blocked) == {("blocks", "1 row longer than 50 tokens; an answer is never cut"): [2]}
    assert "it would lose" in blocked.findings[0].examples[0]
    assert told(proven(tmp_path, rows, 50, drops_long=True)) == {
        ("note", "1 row longer than 50 tokens left out, as data.over_length asks"): [2]}


def test_special_tokens_inside_texts(tmp_path: Path) -> None:
    asked = {"prompt": "What does <end> mean?", "completion": "The end of a turn."}
    found = proven(tmp_path, [LEAVING, asked, {**asked, "completion": "It is <end>."}])
    assert [(f.severity, f.kind, [o.line for o in f.places]) for f in found.findings] == [
        ("blocks", "render", [3]), ("fix", "special", [2, 3])]


def test_rows_of_which_almost_nothing_carries_loss(tmp_path: Path) -> None:
    found = proven(tmp_path, [{"prompt": "a" * 900, "completion": "b"}, LEAVING])
    assert [(f.severity, f.kind, [o.line for o in f.places]) for f in found.findings] == [("note", "mostly read", [1])]


class Folding(CharacterTokenizer):
    """A tokenizer that knows no capital letters outside ASCII."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return super().encode([text.replace("É", "e") for text in texts])


def test_questions_that_the_tokenizer_changes(tmp_path: Path) -> None:
    name = write(tmp_path, [LEAVING, {**LEAVING, "prompt": "Where is the CAFÉ?"}])
    found = examine([Input("train", name)], Reading(tmp_path), names=[],
                    more=lambda: {"proof": Proof(cast(ChatTokenizer, Folding()), None)})
    assert [(f.severity, f.kind, [o.line for o in f.places]) for f in found.findings] == [("note", "altered", [2])]


# --- the page --------------------------------------------------------------------------------------------------------

def test_the_page_is_self_contained_and_escapes_texts(tmp_path: Path) -> None:
    evil = {**LEAVING, "completion": "<script>alert(1)</script> tom\ufffdrrow"}
    found = looked_at(tmp_path, [evil, evil, {**LEAVING, "completion": ""}], "encoding", "duplicates")
    write_page(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in ("Will not train", "What stops training", "Fix first", "rows.jsonl line 3", "the answer is empty"):
        assert shown in page
    assert "<script" not in page
    assert "alert(1)" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(tmp_path: Path, width: int) -> None:
    rows = [{**LEAVING, "prompt": f"{i} {'verylongword' * 40}"} for i in range(40)]
    found = looked_at(tmp_path, [*rows, rows[0], {**LEAVING, "completion": "Sure. " * 400}, {"prompt": "x" * 300}],
                      "duplicates", "degenerate", "lengths", "diversity", "balance")
    write_page(found, tmp_path / "report.html")
    check_fits(tmp_path / "report.html", width, tmp_path)
