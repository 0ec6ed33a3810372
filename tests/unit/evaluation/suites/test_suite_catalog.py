"""Suites by name and from files; what changed from before to after, and the one number of forgetting."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.catalog import (
    RETENTION,
    SUITES,
    before_after,
    forgetting,
    run_suites,
    suite,
    suite_from_file,
)
from tuneloop.evaluation.suites.lmeval import Bench

NAN = math.nan


def graded(*scores: float, part: str = "p", start: int = 0) -> list[Graded]:
    return [Graded(f"{part}{start + n}", part, score, "") for n, score in enumerate(scores)]


def test_suites_run_by_name_each_once() -> None:
    found = run_suites(Scripted(lambda _: "yes"), ["fluency", "instructions", "fluency"], limit=5)
    assert {name: len(items) for name, items in found.items()} == {"fluency": 5, "instructions": 5}
    assert set(RETENTION) < set(SUITES)


def test_an_unknown_suite_is_refused_before_anything_runs() -> None:
    backend = Scripted()
    with pytest.raises(UserError, match=r"no suite called fluensy[\s\S]*did you mean fluency"):
        run_suites(backend, ["instructions", "fluensy"])
    assert not backend.requests


def test_a_task_of_lm_eval_is_a_suite() -> None:
    found = suite("lm-eval:arc_easy")
    assert isinstance(found, Bench)
    assert found.name == "lm-eval:arc_easy"


def test_the_catalog_needs_no_heavy_library() -> None:
    code = ("import sys, tuneloop.evaluation.suites.catalog, tuneloop.evaluation.suites.perturb; "
            "print(*sorted({'torch', 'transformers', 'jsonschema', 'sklearn', 'lm_eval'} & sys.modules.keys()))")
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_changes_by_hand() -> None:
    before = {"knowledge": [*graded(1, 1, 0, NAN), *graded(1, 0, part="q")]}
    after = {"knowledge": [*graded(1, 0, NAN, 1), *graded(0, 0, part="q")]}
    whole, p, q = before_after(before, after)
    assert (whole.suite, whole.part, p.part, q.part) == ("knowledge", "", "p", "q")
    assert (whole.items, whole.ungraded_before, whole.ungraded_after) == (4, 1, 1)
    assert (whole.before, whole.after) == (3 / 4, 1 / 4)        # p0 p1 q0 q1
    assert whole.difference is not None
    assert whole.difference.value == -1 / 2
    assert whole.difference.low < -1 / 2 < whole.difference.high
    assert (p.items, p.before, p.after) == (2, 1, 1 / 2)
    assert (q.items, q.before, q.after) == (2, 1 / 2, 0)
    assert json.loads(json.dumps(whole.to_json()))["difference"]["value"] == -1 / 2


def test_what_nobody_could_grade_has_no_difference() -> None:
    [row] = before_after({"x": graded(NAN, 1)}, {"x": graded(1, NAN)})
    assert (row.before, row.after, row.difference, row.items) == (None, None, None, 0)
    assert (row.ungraded_before, row.ungraded_after) == (1, 1)


def test_a_suite_of_one_part_has_one_row_and_only_shared_suites_are_told() -> None:
    assert [row.suite for row in before_after({"x": graded(1), "y": graded(1)}, {"x": graded(1)})] == ["x"]


def test_two_grades_of_one_answer_are_one_item() -> None:
    """Else the interval would be as narrow as if twice as many questions had been asked."""
    scores = np.random.default_rng(0).integers(2, size=60).tolist()
    single = [Graded(f"a{n}", "v", score, "") for n, score in enumerate(scores)]
    twice = [Graded(f"a{n}#{k}", k, score, "") for n, score in enumerate(scores) for k in "vs"]
    none = [[Graded(item.id, item.part, 0.0, "") for item in of] for of in (single, twice)]
    [one], [two, *_] = before_after({"x": none[0]}, {"x": single}), before_after({"x": none[1]}, {"x": twice})
    assert two.items == one.items == 60
    assert two.difference == one.difference


def test_different_items_cannot_be_compared() -> None:
    for after in (graded(1), graded(1, 1, start=1), [*graded(1), *graded(1)]):
        with pytest.raises(ValueError, match="items of x"):
            before_after({"x": graded(1, 1)}, {"x": after})


def test_forgetting_is_the_mean_drop_of_the_suites() -> None:
    before = {"knowledge": graded(1, 1, 1, 1), "instructions": graded(1, 0), "fluency": graded(0.5, 0.6),
              "tasks": graded(1)}
    after = {"knowledge": graded(1, 1, 1, 0), "instructions": graded(0, 0), "fluency": graded(0.6, 0.6),
             "tasks": graded(0)}
    found = forgetting(before, after)
    assert found is not None
    assert found.by_suite == pytest.approx({"knowledge": 1 / 4, "instructions": 1 / 2, "fluency": -0.05})
    assert found.drop.value == pytest.approx((1 / 4 + 1 / 2 - 0.05) / 3)
    assert found.items == 8
    assert found.drop.low < found.drop.value < found.drop.high
    assert json.loads(json.dumps(found.to_json()))["by_suite"]["knowledge"] == 1 / 4


def test_forgetting_is_unknown_where_nothing_was_graded() -> None:
    assert forgetting({}, {}) is None
    assert forgetting({"knowledge": graded(NAN)}, {"knowledge": graded(1)}) is None
    only = forgetting({"fluency": graded(0.5, 0.5)}, {"fluency": graded(0.4, 0.4)})
    assert only is not None
    assert (only.drop.low, only.drop.high) == pytest.approx((0.1, 0.1))


def test_the_same_model_twice_forgets_nothing_within_the_rule_of_three() -> None:
    """Two suites of 150 and 60 rights with no change: one unseen item of either is 1/300 and 1/120 of the mean, as one
    of 1 / sqrt(1/300^2 + 1/120^2) = 111 rows; the difference of two Poisson(1) has its 97.5 % quantile at 3."""
    same = {"knowledge": graded(*[1.0] * 150), "instructions": graded(*[0.0] * 60)}
    found = forgetting(same, same)
    assert found is not None
    assert (found.drop.low, found.drop.value, found.drop.high) == pytest.approx((-3 / 111, 0, 3 / 111), abs=1e-9)


def test_the_least_forgetting_that_can_be_proven_is_the_one_of_the_docs() -> None:
    same = run_suites(Scripted(lambda _: "A.", likes=lambda _, answer: -float(len(answer))), RETENTION)
    found = forgetting(same, same)
    assert found is not None
    assert f"0 ± {found.drop.high:.3f}" == "0 ± 0.014"
    assert "0 ± 0.014" in (Path(__file__).parents[4] / "docs" / "suites.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_interval_of_forgetting_covers_the_true_drop() -> None:
    random, covered, times = np.random.default_rng(5), 0, 400
    for seed in range(times):
        before, after = {}, {}
        for name, n in (("knowledge", 150), ("instructions", 78)):
            old = random.random(n) < 0.7
            new = np.where(old, random.random(n) > 0.15, random.random(n) < 0.05)      # drop 0.7 * 0.15 - 0.3 * 0.05
            before[name], after[name] = graded(*old.astype(float)), graded(*new.astype(float))
        old = random.uniform(0.4, 0.6, 40)
        before["fluency"], after["fluency"] = graded(*old), graded(*(old - 0.03 + random.normal(0, 0.03, 40)))
        found = forgetting(before, after, resamples=500, seed=seed)
        assert found is not None
        covered += found.drop.low <= (0.09 + 0.09 + 0.03) / 3 <= found.drop.high
    assert 0.93 <= covered / times <= 0.99      # the unseen items only ever widen it


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_local_file_is_a_suite(tmp_path: Path) -> None:
    file = lines(tmp_path / "own.jsonl",
                 {"id": "first", "part": "choice", "question": "2 + 2?", "choices": ["4", "5"], "answer": "4"}, "",
                 {"prompt": "Say hello", "answer": "hello  there", "match": "exact"},
                 {"prompt": "Say hello", "answer": "THERE", "match": "contains"},
                 {"prompt": "Say hello", "answer": "^h.*e$", "match": "regex"},
                 {"prompt": "Say hello", "answer": "Hello there"})
    found = suite(str(file)).run(Scripted(lambda _: " hello there ".strip(), likes=lambda _, answer: -float(answer)))
    assert [(item.id, item.part, item.score) for item in found] == [
        ("first", "choice", 1.0), ("line 3", "", 1.0), ("line 4", "", 1.0), ("line 5", "", 1.0), ("line 6", "", 0.0)]
    assert len(suite_from_file(file).run(Scripted(), limit=2)) == 2
    assert run_suites(Scripted(), [str(file)]).keys() == {str(file)}


@pytest.mark.parametrize(("row", "message"), [
    ("{nope", "line 2: it is not JSON"),
    ([1], "line 2: it holds a list"),
    ({"text": "x"}, "line 2: it has neither a question nor a prompt"),
    ({"question": "?", "answer": "a"}, "line 2: choices is not a list"),
    ({"question": "?", "choices": ["a", "a"], "answer": "a"}, "line 2: choices is not a list of different texts"),
    ({"question": "?", "choices": ["a"], "answer": "a"}, "wanted: two texts or more"),
    ({"question": "?", "choices": ["a", "b"], "answer": "c"}, "line 2: the answer 'c' is none of the choices"),
    ({"question": " ", "choices": ["a", "b"], "answer": "a"}, "line 2: question is ' '"),
    ({"prompt": "?"}, "line 2: answer is missing"),
    ({"prompt": "?", "answer": 4}, "line 2: answer is 4"),
    ({"prompt": "?", "answer": "a", "match": "fuzzy"}, "line 2: match is 'fuzzy'[\\s\\S]*exact, contains, regex"),
    ({"prompt": "?", "answer": "(", "match": "regex"}, "line 2: the answer is no regular expression"),
    ({"prompt": "?", "answer": "a", "id": "line 1"}, "line 2: the id 'line 1' occurs before"),
])
def test_a_wrong_line_of_a_local_file_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        suite_from_file(lines(tmp_path / "own.jsonl", {"prompt": "?", "answer": "a"}, row))


def test_all_wrong_lines_are_told_at_once_and_a_file_must_hold_something(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1[\s\S]*line 3"):
        suite_from_file(lines(tmp_path / "own.jsonl", "{", {"prompt": "?", "answer": "a"}, "["))
    with pytest.raises(UserError, match="holds no item"):
        suite_from_file(lines(tmp_path / "own.jsonl", ""))
    with pytest.raises(UserError, match="cannot be read"):
        suite_from_file(tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "ä"}'.encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        suite_from_file(tmp_path / "latin.jsonl")
