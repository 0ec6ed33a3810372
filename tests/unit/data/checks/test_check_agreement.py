"""How far annotators agree, in each way that rows carry their ratings."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from checked_rows import SHARED, Found, answers, found, lines, qa

from tuneloop.data.checks.agreement import Check
from tuneloop.data.examine import Input, Reading, examine
from tuneloop.types import Sample

XSTEST = "xstest/completions_gpt4_gpteval.jsonl"
CROWS = "crows_pairs/crows_pairs_anonymized.jsonl"


def in_columns(*rated: str) -> tuple[Check, Found]:
    """A row for each text, a column for each of its letters."""
    check = Check()
    values = [{f"annotation_{who}": letter for who, letter in enumerate(row, 1)} for row in rated]
    return check, found(check, answers(*["-"] * len(rated)), values=values)


def test_two_annotators_who_agree_well() -> None:
    check, seen = in_columns(*["aa", "bb"] * 10, "ab")
    [finding] = seen.values()
    # Scott's way over 42 ratings, 21 of each letter: expected 2 * 21 * 21 / (42 * 41), observed 1 / 21
    alpha = 1 - (1 / 21) / (2 * 21 * 21 / (42 * 41))
    assert finding.what == ("Of 2 annotators, two say the same of an item in 95% of cases, over 21 items; "
                            f"Krippendorff's alpha is {alpha:.2f} (0 is chance, 1 full agreement): they agree well")
    assert (finding.severity, lines(finding)) == ("note", [21])
    assert finding.examples == ["line 21: annotation_1 “a”, annotation_2 “b”"]
    facts = check.facts()["agreement"]
    assert (facts["items"], facts["annotators"], facts["level"]) == (21, 2, "nominal")
    assert facts["alpha"] == round(alpha, 3)
    assert facts["pairs"] == [{"first": "annotation_1", "second": "annotation_2", "items": 21, "same": 0.952,
                               "kappa": pytest.approx(0.905, abs=0.001)}]


@pytest.mark.parametrize(("rated", "severity", "verdict"), [
    (["aa", "bb"] * 10, "note", "they agree well"),
    (["aa", "bb"] * 8 + ["ab", "ba"], "note", "they agree fairly"),
    (["aa", "bb"] * 7 + ["ab", "ba"] * 2, "fix", "they agree too little"),
    (["aa", "bb", "ab", "ba"] * 5, "fix", "they hardly agree more than by chance")])
def test_bands(rated: list[str], severity: str, verdict: str) -> None:
    _, seen = in_columns(*rated)
    assert seen["alpha"].severity == severity
    assert verdict in seen["alpha"].what


def test_an_annotator_far_below_the_others() -> None:
    draw = random.Random(0)
    rated = ["".join([letter] * 3 + [draw.choice("ab")]) for letter in "ab" * 20]
    _, seen = in_columns(*rated)
    assert seen["annotators"].what.startswith("1 annotator says what most others say much less often")
    assert seen["annotators"].examples[0].startswith("annotation_4: ")


def test_rows_that_repeat_a_prompt_for_every_annotator() -> None:
    rows: list[Sample] = []
    values: list[dict[str, Any]] = []
    for item in range(12):
        for who in ("anna", "ben"):
            label = "no" if (item, who) == (4, "ben") else "yes" if item % 2 else "no" if item % 4 else "maybe"
            rows.append(qa(f"question {item}", label, len(rows) + 1))
            values.append({"text": f"question {item}", "label": label, "annotator": who})
    finding = found(Check(), rows, values=values)["alpha"]
    assert "over 12 items" in finding.what
    assert lines(finding) == [9, 10]                # both rows of the fifth question
    assert finding.examples == ["line 9: anna “maybe”, ben “no”"]


@pytest.mark.parametrize("values", [
    [{"text": "a", "label": "x"}] * 20, [{"annotation_1": "x", "annotation_2": "x"}] * 20,
    [{"annotation_1": letter, "annotation_2": letter} for letter in "abababab"]])
def test_one_annotator_one_label_or_few_items_tell_nothing(values: list[dict[str, Any]]) -> None:
    assert found(Check(), answers(*["x"] * len(values)), values=values) == {}


def test_ratings_of_a_scale_count_by_their_distance() -> None:
    def alpha(second: str) -> float:
        check = Check()
        values = [{"rating_1": a, "rating_2": b} for a, b in zip("1234512345", second, strict=True)]
        found(check, [qa("Q", "A", line) for line in range(1, 11)], values=values)
        facts = check.facts()["agreement"]
        assert facts["level"] == "ordinal"
        return float(facts["alpha"])

    assert alpha("2234512345") > alpha("5234512345")


@pytest.mark.skipif(not (SHARED / XSTEST).exists(), reason="public sets are not here")
def test_the_rows_of_a_public_set_that_its_authors_call_disputed() -> None:
    with (SHARED / XSTEST).open(encoding="utf-8") as file:
        disputed = [line for line, row in enumerate(map(json.loads, file), 1) if row["agreement"] != "True"]
    reading = Reading(SHARED, prompt="{prompt}", answer="{final_label}")
    examined = examine([Input("train", XSTEST)], reading, names=["agreement"])
    [finding] = examined.findings
    assert lines(finding) == disputed
    assert finding.what.endswith("they agree well")
    metrics = pytest.importorskip("sklearn.metrics")
    with (SHARED / XSTEST).open(encoding="utf-8") as file:
        rated = [(row["annotation_1"], row["annotation_2"]) for row in map(json.loads, file)]
    [pair] = examined.facts["agreement"]["pairs"]
    assert pair["kappa"] == round(metrics.cohen_kappa_score(*zip(*rated, strict=True)), 3)


@pytest.mark.skipif(not (SHARED / CROWS).exists(), reason="public sets are not here")
def test_lists_of_many_annotators_in_a_public_set() -> None:
    reading = Reading(SHARED, prompt="{sent_more}", answer="{bias_type}")
    examined = examine([Input("train", CROWS)], reading, names=["agreement"])
    assert examined.facts["agreement"]["annotators"] > 200
    assert {finding.kind for finding in examined.findings} == {"alpha", "annotators"}


def test_evaluation_sets_are_not_looked_at() -> None:
    values = [{"annotation_1": letter, "annotation_2": letter} for letter in "ab" * 10]
    assert found(Check(), [qa("Q", "A", line) for line in range(20)], "evaluation", values) == {}
