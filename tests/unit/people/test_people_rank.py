"""`tuneloop rank` without a page: models that judge, runs and their certificates, the terminal, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judging import desk, goodness, judge_all, knows, rows, store, work
from rich.console import Console

from fake_api import last_turn, serving
from scripted import Scripted
from toy import tuneloop, write_jsonl
from tuneloop.errors import UserError
from tuneloop.evaluation.blind import read_judgements as read_blind
from tuneloop.evaluation.blind import read_key, read_pairs, result
from tuneloop.grading.judge import Judge
from tuneloop.people.ai import judge_all as model_judges
from tuneloop.people.blind import BlindRun
from tuneloop.people.items import Verdict, equal
from tuneloop.people.page import check_installed
from tuneloop.people.standing import standing_of
from tuneloop.people.terminal import Terminal, edited
from tuneloop.ranking import Asked, open_target
from tuneloop.record import RunFolder

# --- a model ---------------------------------------------------------------------------------------------------------


def compares(asked: str) -> str:
    """Knows which answer is better, cannot say for `Question 1?`, and follows the place for `Question 2?`."""
    if "Question 1?" in asked:
        return "Hard to say."
    if "Question 2?" in asked:
        return "VERDICT: A"
    a, b = (asked.split(f"<answer_{name}>\n")[1].split("\n")[0] for name in "ab")
    return f"VERDICT: {'A' if goodness(a) > goodness(b) else 'B'}"


def test_a_model_judges_beside_people(tmp_path: Path) -> None:
    of, kept, backend = work(tmp_path, 10), store(tmp_path), Scripted(compares, name="gpt")
    judge_all(desk(of, kept, "ann"))
    found = model_judges(of, kept, Judge(backend))
    assert (found.judged, found.before, found.unreadable) == (27, 0, 3)
    assert found.place_decided == pytest.approx(3 / 27)
    kept.look()
    said = kept.standing("gpt")
    assert {one.source for one in said} == {"model"}
    assert kept.annotators("person") == ["ann"]
    [agreed] = standing_of(len(of.items), kept).judges
    assert (agreed.judged, agreed.shared) == (27, 27)
    assert agreed.same == pytest.approx(24 / 27)        # the three ties of its place
    assert standing_of(len(of.items), kept).agreements == []
    asked = len(backend.requests)
    again = model_judges(of, kept, Judge(backend))
    assert (again.judged, again.before) == (0, 27)
    assert len(backend.requests) - asked == 6           # what it could not say, in both orders
    assert "followed the place" in "\n".join(found.lines())


def test_a_model_gives_stars(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 4, "stars"), store(tmp_path)
    found = model_judges(of, kept, Judge(Scripted(
        lambda asked: f"GRADE: {1 + goodness(asked.split('<answer>')[1].strip())}", name="gpt")))
    kept.look()
    assert found.judged == 12
    assert {one.verdict.stars for one in kept.standing("gpt")} == {2, 3, 4}
    assert json.loads(json.dumps(found.to_json()))["place_decided"] is None


def test_a_model_is_not_asked_for_everything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not asked for thumbs"):
        model_judges(work(tmp_path, 2, "thumbs"), store(tmp_path), Judge(Scripted()))
    of, kept = work(tmp_path, 2), store(tmp_path)
    judge_all(desk(of, kept, "scripted"))
    with pytest.raises(UserError, match="Somebody called 'scripted'"):
        model_judges(of, kept, Judge(Scripted()))


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create_at(tmp_path / "runs" / "mine")
    folder.file("recipe.yaml").write_text("base: b\n")
    folder.file("evaluation").mkdir()
    folder.write_lines([{"row": i, "prompt": f"Question {i}?", "answers": {"base": f"poor {i}", "tuned": f"good {i}"}}
                        for i in range(50)], "evaluation", "predictions.jsonl")
    return folder


def test_the_blind_pairs_of_a_run_become_its_win_rate(run: RunFolder) -> None:
    target = open_target("mine", run.path.parent, Asked(pairs=30))
    assert len(target.work.items) == 30
    ann, bob = target.desk("ann"), target.desk("bob")
    for at in (ann, bob):
        at._least = 0
    judge_all(ann)
    judge_all(bob, most=12)
    pairs = read_pairs(run.file("blind", "pairs.jsonl"))
    said = read_blind(run.file("blind", "judgements.jsonl"), pairs)
    assert len(said) == 30 + target.store.counts("bob", "compare")[0]
    assert sum(target.store.counts("bob", "compare")) == 12         # tests of attention among them
    assert {one.annotator for one in said} == {"ann", "bob"}
    found = result(read_key(run.file("blind", "key.json"), pairs), said)
    assert (found["wins"], found["losses"], found["verdict"]) == (30, 0, "better")
    assert found["agreement"]["same"] == 1


def test_names_of_models_are_nowhere_that_people_look(run: RunFolder) -> None:
    target = open_target(str(run.path), Path("nowhere"), Asked())
    assert all(not question.models for question in target.work.questions.values())
    first = [showing for at in [target.desk("ann")] if (showing := at.showing)]
    assert "tuned" not in repr(first).replace("good", "")


def test_undo_and_lines_written_by_hand(run: RunFolder) -> None:
    target = open_target("mine", run.path.parent, Asked(pairs=10, checks=0))
    file, pairs = run.file("blind", "judgements.jsonl"), read_pairs(run.file("blind", "pairs.jsonl"))
    write_jsonl(file, [{"pair": pairs[0].pair, "verdict": "tie", "annotator": "dan"}])
    at = target.desk("ann")
    at._least = 0
    judge_all(at, most=2)
    assert [json.loads(line)["annotator"] for line in file.read_text().splitlines()] == ["dan", "ann", "ann"]
    at.undo()
    at.undo()
    assert [json.loads(line)["annotator"] for line in file.read_text().splitlines()] == ["dan"]
    file.unlink()
    judge_all(at, most=1)
    at.undo()
    assert not file.exists()            # an empty one would be an error for the certificate


def test_what_a_killed_page_could_not_write_is_written_at_the_next_start(run: RunFolder) -> None:
    target = open_target("mine", run.path.parent, Asked(pairs=10, checks=0))
    at = desk(target.work, target.store)            # as if killed between keeping and writing
    judge_all(at, most=3)
    assert not run.has("blind", "judgements.jsonl")
    open_target("mine", run.path.parent, Asked())
    assert len(run.lines("blind", "judgements.jsonl")) == 3


def test_both_bad_is_told_apart_from_a_tie(run: RunFolder) -> None:
    target = open_target("mine", run.path.parent, Asked(pairs=10, checks=0))
    at = target.desk("ann")
    at._least = 0
    judge_all(at, lambda showing: equal(showing.answers, bad=True), most=1)
    judge_all(at, lambda showing: equal(showing.answers), most=1)
    assert [line["verdict"] for line in run.lines("blind", "judgements.jsonl")] == ["both_bad", "tie"]


def test_what_is_not_for_a_run(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="base against tuned"):
        open_target("mine", run.path.parent, Asked(ask="stars"))
    target = open_target("mine", run.path.parent, Asked(pairs=10))
    with pytest.raises(UserError, match="--export is not for the blind pairs"):
        target.export("preference", tmp_path / "o.jsonl", only=(), without=(), source="person", each=False)
    with pytest.raises(UserError, match="--judge is not for the blind pairs"):
        target.judge("gpt", None, "", Path("runs"), None)       # type: ignore[arg-type]
    with pytest.raises(UserError, match="holds 10 pairs already"):
        open_target("mine", run.path.parent, Asked(pairs=20))
    run.file("evaluation", "predictions.jsonl").unlink()
    BlindRun.of(run)                    # the pairs are there
    for file in run.file("blind").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no answers to compare yet"):
        BlindRun.of(run)


# --- the terminal ----------------------------------------------------------------------------------------------------


def typed(folder: Path, keys: str, ask: str = "compare", **answers: Any) -> tuple[Terminal, str]:
    of, kept = work(folder, 3, ask, checks=0), store(folder)        # type: ignore[arg-type]
    pressed: Iterator[str] = iter([*keys, "q"])
    console = Console(record=True, width=100, file=open("/dev/null", "w"))      # noqa: SIM115
    at = Terminal(desk(of, kept), console, lambda: next(pressed), lambda what: answers.get("line", ""),
                  lambda text: answers.get("edit"), lambda: standing_of(len(of.items), kept))
    at.run()
    return at, console.export_text()


def test_keys_in_a_terminal(tmp_path: Path) -> None:
    at, text = typed(tmp_path, "12tbu")
    said = at.desk.store.standing("ann")
    assert [one.verdict.place(one.shown) for one in said] == ["0", "1", "tie"]
    assert "0 of 9" in text
    assert "Kept: 3 of 9." in text
    assert "Question" in text
    assert "Both bad" in text


def test_answers_do_not_steer_the_terminal(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "f.jsonl", [{"prompt": "q", "completions": ["\x1b[2Jgone [bold]b[/]", "other"]}])
    target = open_target(str(tmp_path / "f.jsonl"), tmp_path, Asked())
    console = Console(record=True, width=100, file=open("/dev/null", "w"))      # noqa: SIM115
    Terminal(target.desk("ann"), console, lambda: "q", lambda what: "", lambda text: None, target.standing).run()
    assert "\ufffd[2Jgone [bold]b[/]" in console.export_text(styles=True)


def test_comments_and_edits_in_a_terminal(tmp_path: Path) -> None:
    at, text = typed(tmp_path, "c1", line="why")
    assert at.desk.store.standing("ann")[0].comment == "why"
    at, text = typed(tmp_path / "b", "e", line="2", edit="Ideal.")
    assert [one.value["text"] for one in at.desk.store.standing("ann")] == ["Ideal."]
    assert "Now judge the answers as they were" in text
    at, text = typed(tmp_path / "c", "e", line="9")
    assert "No answer was changed" in text


def test_an_order_in_a_terminal(tmp_path: Path) -> None:
    at, text = typed(tmp_path, "2\r31\r", "order")
    [said] = at.desk.store.standing("ann")
    assert said.verdict.groups == tuple((said.shown[i],) for i in (1, 2, 0))
    assert "Give every answer a place first" in text
    at, text = typed(tmp_path / "b", "21\r1", "stars")
    assert [one.verdict for one in at.desk.store.standing("ann")] == [Verdict(stars=n) for n in (2, 1, 1)]


def test_everything_judged_in_a_terminal(tmp_path: Path) -> None:
    _, text = typed(tmp_path, "1" * 9)
    assert "Everything is judged: 9 of 9." in text


def test_an_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "edit.py"
    script.write_text("import sys; p = sys.argv[1]; t = open(p).read(); open(p, 'w').write(t.replace('a', 'b'))")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    assert edited("abc\n") == "bbc"
    assert edited("xyz") is None
    monkeypatch.setenv("EDITOR", "no-such-editor")
    with pytest.raises(UserError, match="set EDITOR"):
        edited("abc")


# --- the command -----------------------------------------------------------------------------------------------------


def test_export_and_status_from_the_command_line(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "collected.jsonl", rows(30))
    target = open_target(str(file), tmp_path, Asked())
    judge_all(desk(target.work, target.store, "ann"))
    judge_all(desk(target.work, target.store, "eve"), lambda showing: equal(showing.answers))
    target.store.close()
    status = json.loads(tuneloop("rank", "collected.jsonl", "--status", "--json", cwd=tmp_path).stdout)
    assert status["at_random"] == ["eve"]
    done = tuneloop("rank", "collected.jsonl", "--export", "preference", "--out", "pairs.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pairs.jsonl holds 90 preference rows" in done.stdout
    assert "eve seems to click at random" in done.stdout
    assert "--without eve" in done.stdout
    kept = tuneloop("check", "pairs.jsonl", cwd=tmp_path)
    assert kept.returncode == 0
    assert 'each row is a pair of answers, "chosen" better than "rejected"' in kept.stdout
    again = tuneloop("rank", "collected.jsonl", "--export", "preference", "--out", "pairs.jsonl", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_model_behind_a_server_judges(tmp_path: Path, own_cache: Path) -> None:
    file = write_jsonl(tmp_path / "collected.jsonl", rows(4))
    target = open_target(str(file), tmp_path, Asked())
    judge_all(desk(target.work, target.store, "ann"))
    target.store.close()
    with serving(lambda body: compares(last_turn(body)), models=("gpt",)) as api:
        words = ("rank", "collected.jsonl", "--judge", f"{api.url}#gpt")
        done = tuneloop(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "gpt (a model) judged 9 items" in done.stdout
        assert "of the 9 that people judged too it says what most of them say on 67%" in done.stdout
        asked = len(api.seen)
        assert tuneloop(*words, "--json", cwd=tmp_path).returncode == 0
        assert len(api.seen) - asked <= 1           # is it there? Its replies are kept
    tuneloop("rank", "collected.jsonl", "--export", "preference", "--out", "p.jsonl", "--source", "model", cwd=tmp_path)
    found = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert {row["source"] for row in found} == {"model"}
    assert all(goodness(row["chosen"]) > goodness(row["rejected"]) for row in found)


@pytest.mark.parametrize(("words", "says"), [
    (["missing.jsonl"], "no file and no run missing.jsonl"), (["latest"], "There are no runs"),
    (["f.jsonl", "--ask", "feel"], "--ask is 'feel'"), (["f.jsonl", "--export", "csv"], "--export is 'csv'"),
    (["f.jsonl", "--export", "kto"], "--export needs a .jsonl file"),
    (["f.jsonl", "--out", "o.jsonl"], "without --export"),
    (["f.jsonl", "--status", "--terminal"], "are different things"),
    (["f.jsonl", "--pairs", "3"], "--pairs is for a run"),
    (["f.jsonl", "--ask", "stars", "--per-prompt", "2"], "--per-prompt counts pairs"),
    (["f.jsonl", "--export", "kto", "--out", "o.jsonl", "--only", "zoe"], "Nobody called 'zoe'"),
    (["f.jsonl", "--rubric", "r.txt"], "means nothing without --judge"), (["broken.jsonl"], "broken.jsonl line 1"),
    (["f.jsonl", "--judge", "gpt", "--rubric", "r.txt"], "r.txt cannot be read")])
def test_what_the_command_refuses(tmp_path: Path, words: list[str], says: str) -> None:
    write_jsonl(tmp_path / "f.jsonl", rows(3))
    (tmp_path / "broken.jsonl").write_text('{"prompt": "q", "completions": [1]}\n')
    done = tuneloop("rank", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr


def test_knows_is_what_the_command_is_tested_with(tmp_path: Path) -> None:
    """The best answer wins in a file that is judged by who knows."""
    of, kept = work(tmp_path, 2, checks=0), store(tmp_path)
    judge_all(desk(of, kept), knows)
    best = {of.text(said.question, said.verdict.groups[0][0]).split()[0] for said in kept.standing("ann")}
    assert best == {"good", "fair"}


def test_the_page_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(UserError, match=r"The judging page needs the package nicegui(.|\n)*tuneloop\[people\]"):
        check_installed()
