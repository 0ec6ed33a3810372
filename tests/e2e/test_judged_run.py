"""A model as the judge, in runs and in `tuneloop eval` and `compare`: a server that judges as the test tells it to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from fake_api import last_turn, serving
from toy import labels_csv, labels_recipe, open_recipe, open_rows, resume, run, write_jsonl
from tuneloop import cli_eval
from tuneloop.errors import UserError
from tuneloop.recipe import load
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent

Call = Callable[..., tuple[int, str]]
NONSENSE = "Both are nice."


def part(shown: str, name: str) -> str:
    """What stands between a pair of tags of the judge's prompt."""
    return shown.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0]


def letters(text: str) -> int:
    return len(text.strip())


def by_length(body: dict[str, Any]) -> str:
    """Prefers the longer answer, and grades 5 what has an even number of letters, else 2. Asked anything else, repeats
    it, and says more to those called small.
    """
    shown = last_turn(body)
    if "<answer_a>" in shown:
        a, b = letters(part(shown, "answer_a")), letters(part(shown, "answer_b"))
        return f"It is longer.\nVERDICT: {'TIE' if a == b else 'A' if a > b else 'B'}"
    if "<answer>" in shown:
        return f"GRADE: {2 if letters(part(shown, 'answer')) % 2 else 5}"
    return shown + "!" * (body["model"] == "small")


class Said(Silent):
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

def test_a_run_with_a_judge_and_a_policy(tmp_path: Path, tiny_llama: Path, own_cache: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number again from the kept answers; a resumed run asks nothing, from wherever it is resumed."""
    (tmp_path / "style.md").write_text("Have an even number of letters.")
    folder = RunFolder(tmp_path / "run")
    with serving(by_length, models=("large",)) as api:
        recipe = open_recipe(tmp_path, tiny_llama, evaluation={
            "max_new_tokens": 8, "judge": {"url": api.url, "model": "large", "price": {
                "prompt_usd_per_million": 1, "answer_usd_per_million": 2}}, "policies": ["style.md"], "judged_rows": 3})
        certificate = run(recipe, folder.path)
        asked = len(api.seen)
        folder.file("evaluation", "judged.json").unlink()       # as where the run was cut off before it was written
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = resume(load(folder.file("recipe.yaml")), folder.path)
        assert len(api.seen) == asked
    again["judged"]["cost"].pop("machine_seconds")
    found = certificate["judged"]
    found["cost"].pop("machine_seconds")
    assert again["judged"] == found
    assert resume(recipe, folder.path)["judged"]["pairs"] == found["pairs"]     # the server is gone by now
    kept = folder.read("evaluation", "judged.json")["rows"]
    lines = folder.lines("evaluation", "predictions.jsonl")
    answers = [[lines[row["row"]]["answers"][name] for name in ("base", "tuned")] for row in kept]
    assert (len(kept), found["rows"], found["unreadable"], found["usable"]) == (3, 3, 0, True)
    [policy] = found["policies"]
    graded = [[2 if letters(text) % 2 else 5 for text in of] for of in answers]
    assert [list(row["grades"]["style.md"].values()) for row in kept] == graded
    assert policy["grade"]["value"] == pytest.approx(sum(after - before for before, after in graded) / 3)
    assert policy["passed"]["scores"]["tuned"]["value"] == pytest.approx(sum(after == 5 for _, after in graded) / 3)
    pairs, longer = found["pairs"], [letters(after) - letters(before) for before, after in answers]
    same = sum(before.split() == after.split() for before, after in answers)
    assert (pairs["wins"], pairs["losses"]) == (sum(d > 0 for d in longer), sum(d < 0 for d in longer))
    assert (pairs["same_answers"], pairs["replies"]) == (same, 2 * (3 - same))
    assert found["cost"]["usd"] == pytest.approx(
        (found["cost"]["prompt_tokens"] + 2 * found["cost"]["new_tokens"]) / 1e6)
    assert found["judge"] == {"name": "large", "identity": f"remote:{api.url}#large", "url": api.url, "is_base": False}
    assert folder.read("record.json")["policies"] == {"style.md": policy["sha256"]}
    html = folder.file("report.html").read_text(encoding="utf-8")
    assert "This is a model's opinion, not a person's." in html
    assert "not usable" not in html
    (tmp_path / "style.md").write_text("Have an odd number of letters.")
    with pytest.raises(UserError, match=r"evaluation.policies have changed"):
        resume(recipe, folder.path)


def test_a_base_that_judges_itself_in_nonsense(tmp_path: Path, tiny_llama: Path) -> None:
    """A random model says nothing that can be read: that is counted and told, and the verdict is what it was."""
    recipe = open_recipe(tmp_path, tiny_llama, evaluation={"max_new_tokens": 4, "judge": str(tiny_llama),
                                                           "judged_rows": 1})
    certificate = run(recipe, tmp_path / "run")
    found = certificate["judged"]
    assert found["unreadable"] == found["replies"] >= 2
    assert (found["usable"], found["judge"]["is_base"], found["judge"]["name"]) == (False, True, tiny_llama.name)
    assert [policy["policy"] for policy in found["policies"]] == ["helpful"]
    assert found["policies"][0]["grade"] is None
    assert certificate["verdict"] in ("met", "not met", "undecided")
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "This judge is not usable" in html
    assert "The judge is the base itself" in html


def test_a_judge_that_is_not_there_costs_no_run(tmp_path: Path, tiny_llama: Path) -> None:
    """It is said before training and after it; a resumed run tries again."""
    recipe = open_recipe(tmp_path, tiny_llama, evaluation={
        "max_new_tokens": 4, "judged_rows": 2, "judge": {"url": "http://127.0.0.1:9/v1", "model": "large"}})
    said = Said()
    certificate = run(recipe, tmp_path / "run", watch=said)
    assert certificate["judged"]["judge"] == {"name": "large"}
    assert "cannot be reached" in certificate["judged"]["left_out"]
    told = [line for line in said.said if line.startswith("The judge")]
    assert [line.split(".")[0] for line in told] == [
        "The judge cannot be asked now, and will be tried again after training", "The judge is left out"]
    assert "was to judge the answers and did not" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "run" / "evaluation" / "judged.json").exists()


def test_a_judge_takes_no_more_time_than_there_is(tmp_path: Path, tiny_llama: Path) -> None:
    with serving(by_length, models=("large",)) as api:
        recipe = open_recipe(tmp_path, tiny_llama, evaluation={
            "max_new_tokens": 4, "minutes": 1e-9, "judge": {"url": api.url, "model": "large"}})
        certificate = run(recipe, tmp_path / "run")
        assert api.seen == []
    assert certificate["judged"]["left_out"] == "evaluation.minutes were over."


@pytest.mark.parametrize(("evaluation", "said"), [
    ({"policies": ["style.md"]}, "nobody judges by them"),
    ({"judge": "x", "policies": ["none.md"]}, "none.md cannot be read"),
    ({"judge": "x", "policies": ["empty.md"]}, "empty.md is empty"),
    ({"judge": "x", "judged_rows": 0}, "judged_rows"),
    ({"judge": {"url": "http://h/v1", "modle": "x"}}, "evaluation.judge")])
def test_what_is_wrong_is_refused_before_anything_is_loaded(evaluation: dict[str, Any], said: str, tmp_path: Path,
                                                            tiny_llama: Path) -> None:
    (tmp_path / "style.md").write_text("Be kind.")
    (tmp_path / "empty.md").write_text("\n")
    with pytest.raises(UserError) as caught:
        run(open_recipe(tmp_path, tiny_llama, evaluation=evaluation), tmp_path / "run", until="check")
    assert said in caught.value.text
    assert not (tmp_path / "run" / "record.json").exists()


def test_labels_need_no_judge(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, evaluation={"judge": "x"})
    with pytest.raises(UserError, match="labels, which are right or wrong without a judge"):
        run(recipe, tmp_path / "run", until="check")


# ── tuneloop eval and tuneloop compare ───────────────────────────────────────────────────────────────────────────────

@pytest.fixture
def call(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch,
         capfd: pytest.CaptureFixture[str]) -> Call:
    """Both commands in this process and in `tmp_path`, with a cache of their own: exit code, and what is said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    write_jsonl(tmp_path / "rows.jsonl", open_rows(12))
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("eval")(cli_eval.judge_models)
    app.command("compare")(cli_eval.judge_models)

    def run_words(*words: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tuneloop", *map(str, words)])
        capfd.readouterr()
        try:
            app()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        except UserError as error:
            return error.exit_code, error.text
        shown = capfd.readouterr()
        return code, shown.out + shown.err

    return run_words


def kept(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "rows.jsonl").read_text().splitlines()]


def test_eval_grades_the_answers_of_a_model(call: Call) -> None:
    """The server repeats the question, so the grade follows from how many letters that has."""
    grades = [2 if letters(row["prompt"]) % 2 else 5 for row in open_rows(12)]
    assert len(set(grades)) == 2
    with serving(by_length, models=("large", "echo")) as api:
        words = ("eval", f"{api.url}#echo", "--on", "rows.jsonl", "--judge", f"{api.url}#large")
        code, shown = call(*words, "--json", "--out", "out")
        assert code == 0, shown
        asked = len(api.seen)
        assert asked == 2 * 12
        code, text = call(*words)
        assert (code, len(api.seen)) == (0, asked)
    found = json.loads(shown)["judged"]
    assert found["judge"]["identity"] == f"remote:{api.url}#large"
    assert (found["by"], found["grades"]["rows"], found["grades"]["unreadable"]) == ("helpful", 12, 0)
    assert found["grades"]["grade"]["value"] == pytest.approx(sum(grades) / 12)
    assert found["grades"]["passed"]["value"] == pytest.approx(grades.count(5) / 12)
    assert [line["judged"]["grade"] for line in kept("out")] == grades
    assert f"judge large by helpful: mean grade {sum(grades) / 12:.2f} of 5 (" in text
    assert "0 of 12 replies could not be read" in text
    assert "a model's opinion, not a person's" in text


def test_compare_has_pairs_judged_in_both_orders(call: Call) -> None:
    """Whoever is called small says one letter more, and the judge likes it longer; equal lengths are a tie."""
    Path("rubric.md").write_text("The longer answer is better.")
    with serving(by_length, models=("large", "small", "echo", "other")) as api:
        code, shown = call("compare", f"{api.url}#echo", f"{api.url}#small", f"{api.url}#other", "--on", "rows.jsonl",
                           "--judge", f"{api.url}#large", "--rubric", "rubric.md", "--json", "--out", "out")
    assert code == 0, shown
    found = json.loads(shown)["judged"]
    assert found["by"] == "rubric.md"
    by_models = {tuple(pair["models"]): pair for pair in found["pairs"]}
    assert set(by_models) == {("echo", "small"), ("echo", "other"), ("small", "other")}
    won, same, lost = by_models["echo", "small"], by_models["echo", "other"], by_models["small", "other"]
    assert (won["wins"], won["losses"], won["position_bias"], won["replies"]) == (12, 0, 0, 24)
    assert won["win_rate"] == pytest.approx({"value": 1, "low": 0.025 ** (1 / 12), "high": 1})
    assert (lost["wins"], lost["losses"]) == (0, 12)
    assert (same["same_answers"], same["replies"], same["win_rate"]) == (12, 0, None)
    assert [[one["winner"] for one in line["judged"]] for line in kept("out")] == [
        ["small", "same answer", "small"]] * 12
    assert all("VERDICT" in reply for reply in kept("out")[0]["judged"][0]["replies"])
    judged = [last_turn(body) for _, _, body in api.seen if body["model"] == "large"]
    assert len(judged) == 24        # other says what echo says, so its pairs have been judged
    assert all("The longer answer is better." in text for text in judged)


def test_a_judge_that_goes_by_the_place_decides_nothing(call: Call) -> None:
    def first(body: dict[str, Any]) -> str:
        return "VERDICT: A" if body["model"] == "large" else by_length(body)

    with serving(first, models=("large", "small", "echo")) as api:
        code, shown = call("compare", f"{api.url}#echo", f"{api.url}#small", "--on", "rows.jsonl", "--judge",
                           f"{api.url}#large")
    assert code == 0, shown
    assert "no pair has a winner, 0 won, 0 lost and 12 tied of 12 pairs; the place decided 100.0% of them" in shown


@pytest.mark.parametrize("command", ["eval", "compare"])
def test_a_judge_of_nonsense_is_told_and_the_exit_code_stays(call: Call, command: str) -> None:
    def nonsense(body: dict[str, Any]) -> str:
        return NONSENSE if body["model"] == "large" else by_length(body)

    with serving(nonsense, models=("large", "small", "echo")) as api:
        models = [f"{api.url}#{name}" for name in ("echo", "small")[:2 if command == "compare" else 1]]
        code, shown = call(command, *models, "--on", "rows.jsonl", "--judge", f"{api.url}#large", "--out", "out")
    assert code == 0, shown
    replies = 24 if command == "compare" else 12
    assert f"{replies} of {replies} replies could not be read, so this judge is not usable" in shown
    said = kept("out")[0]["judged"]
    assert said == ([{"from": "echo", "to": "small", "winner": None, "replies": [NONSENSE] * 2}]
                    if command == "compare" else {"grade": None, "reply": NONSENSE})


def test_a_model_that_judges_itself_is_told(call: Call) -> None:
    with serving(by_length, models=("large",)) as api:
        code, shown = call("eval", f"{api.url}#large", "--on", "rows.jsonl", "--judge", f"{api.url}#large", "--json")
    assert code == 0, shown
    assert "large judges its own answers." in json.loads(shown)["judged"]["notes"]


@pytest.mark.parametrize(("words", "why"), [
    (("--judge", "http://127.0.0.1:9/v1#large"), "cannot be reached"),
    (("--judge", "nonsense"), "Unknown base 'nonsense'"),
    (("--judge", "JUDGE", "--rubric", "none.md"), "none.md cannot be read"),
    (("--judge", "JUDGE", "--judge-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
    (("--rubric", "rows.jsonl"), "--rubric is for a judge"),
    (("--judge-key-env", "NO_SUCH_KEY"), "--judge-key-env is for a judge"),
    (("--judge", "JUDGE", "--on", "rows.csv", "--prompt", "{text}", "--answer", "{label}"), "right or wrong"),
    (("--judge", "JUDGE", "--on", "pairs.jsonl"), "pairs of answers")])
@pytest.mark.parametrize("command", ["eval", "compare"])
def test_bad_input_is_said_before_a_model_is_asked(call: Call, command: str, words: tuple[str, ...], why: str) -> None:
    Path("rows.csv").write_text(labels_csv(20))
    write_jsonl(Path("pairs.jsonl"), [{"prompt": f"{i}?", "chosen": "Yes.", "rejected": "No."} for i in range(5)])
    with serving(by_length, models=("large", "small", "echo")) as api:
        models = [f"{api.url}#{name}" for name in ("echo", "small")[:2 if command == "compare" else 1]]
        on = () if "--on" in words else ("--on", "rows.jsonl")
        code, shown = call(command, *models, *on, *(f"{api.url}#large" if word == "JUDGE" else word for word in words))
        assert api.seen == []
    assert (code, why in shown) == (2, True), shown
