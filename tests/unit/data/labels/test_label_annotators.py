"""How tables carry what several annotators said."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.data.labels.annotators import Annotated, annotated, level_of

Rows = list[dict[str, Any]]


@pytest.mark.parametrize(("rows", "columns"), [
    ([{"text": "a", "annotation_1": "x", "annotation_2": "y"}, {"text": "b", "annotation_1": "y", "annotation_2": "y"}],
     ("annotation_1", "annotation_2")),
    ([{"label_anna": "x", "label_ben": "y"}, {"label_anna": "y", "label_ben": None}], ("label_anna", "label_ben")),
    ([{"rater1": 1, "rater2": 2, "rater3": 1}, {"rater1": 2, "rater2": 1, "rater3": 2}],
     ("rater1", "rater2", "rater3")),
    ([{"Anna label": "x", "Ben label": "y"}, {"Anna label": "y", "Ben label": "x"}], ("Anna label", "Ben label")),
    ([{"label_1": "x", "label_2": "y", "label_id": 1}, {"label_1": "y", "label_2": "x", "label_id": 2}],
     ("label_1", "label_2"))])
def test_a_column_for_each(rows: Rows, columns: tuple[str, ...]) -> None:
    found = annotated(rows)
    assert found == Annotated("columns", columns)
    assert found.ratings(rows[0], "") == [(column, str(rows[0][column])) for column in columns]


@pytest.mark.parametrize("row", [
    {"annotation": "x", "label": "x"},                                      # nobody has a name
    {"label_id": 1, "label_name": "one"}, {"label_text": "one", "label_id": "one"},
    {"label_toxic": 1, "label_insult": 0}, {"rating_helpful": 5, "rating_honest": 5},       # several things are judged
    {"label_1": "animal", "label_2": "dog"},                                # a label and its part
    {"annotation_1": "x" * 81, "annotation_2": "x" * 81}])
def test_columns_that_are_no_annotators(row: dict[str, Any]) -> None:
    assert annotated([row, {**row, "more": 1}]) is None


def test_empty_cells_are_no_ratings() -> None:
    rows = [{"annotation_1": "x", "annotation_2": " "}, {"annotation_1": "x", "annotation_2": "x"}]
    found = annotated(rows)
    assert found is not None
    assert found.ratings(rows[0], "") == [("annotation_1", "x")]


@pytest.mark.parametrize(("row", "ratings"), [
    ({"annotations": ["x", "y"]}, [("1", "x"), ("2", "y")]),
    ({"annotations": ["x", "y"], "annotators": ["anna", "ben"]}, [("anna", "x"), ("ben", "y")]),
    ({"votes": [1, 1, 0]}, [("1", "1"), ("2", "1"), ("3", "0")]),
    ({"annotations": "[['x'], ['y', 'a']]", "anon_annotators": "['a7', 'a8']"}, [("a7", "x"), ("a8", "a + y")]),
    ({"annotations": [{"annotator_id": 3, "label": "x"}, {"annotator_id": 4, "label": "y"}]}, [("3", "x"), ("4", "y")]),
    ({"annotations": '["x", "y"]'}, [("1", "x"), ("2", "y")])])
def test_a_list_in_one_column(row: dict[str, Any], ratings: list[tuple[str, str]]) -> None:
    found = annotated([row] * 3)
    assert found is not None
    assert found.how == "list"
    assert found.ratings(row, "") == ratings


@pytest.mark.parametrize("row", [{"labels": ["x"]}, {"annotations": "[1, 2"}, {"annotations": [{"start": 1}] * 2},
                                 {"labels": [f"{'long ' * 20}", "x"]}])
def test_lists_that_are_no_ratings(row: dict[str, Any]) -> None:
    assert annotated([row] * 3) is None


def test_a_row_for_each() -> None:
    rows = [{"text": "a", "label": "x", "worker_id": 7}, {"text": "a", "label": "y", "worker_id": 8}]
    found = annotated(rows)
    assert found == Annotated("rows", who="worker_id")
    assert found.ratings(rows[0], " x ") == [("7", "x")]
    assert annotated(rows[:1]) is None              # of one annotator there is nothing to compare


def test_nothing_to_find() -> None:
    assert annotated([]) is None
    assert annotated([{"text": "a", "label": "x"}]) is None


def test_values_of_a_scale_are_compared_as_numbers() -> None:
    scale = Annotated("columns", ("rating_1", "rating_2"))
    assert level_of(scale, ["1", "5", "3"]) == ("ordinal", {"1": 1, "3": 3, "5": 5})
    assert level_of(scale, ["0.5", "1", "2"]) == ("interval", {"0.5": 0.5, "1": 1, "2": 2})
    assert level_of(scale, ["0", "1"])[0] == "nominal"
    assert level_of(scale, ["low", "mid", "high"]) == ("nominal", {"high": 0, "low": 1, "mid": 2})
    assert level_of(Annotated("columns", ("label_1", "label_2")), ["1", "2", "3"])[0] == "nominal"
