"""One cluster of rows left out of training, and what columns say of the test rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from data_rows import CharacterTokenizer, chat

from tuneloop.data.leave_out import Cluster, leave_out, share_of, takes_all, too_small
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.spec import DataSpec, LeaveOut
from tuneloop.data.versions.seen import UNUSED
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation

TOKENIZER = cast(ChatTokenizer, CharacterTokenizer())
PARCEL, VERSE = "Where is my parcel with the tracking number {}?", "Write {} rhyming verses about the autumn sea"


def rows(text: str, first: int, count: int) -> list[Conversation]:
    return [chat(text.format(i), "yes", line=i) for i in range(first, first + count)]


KEPT = {"train": rows(PARCEL, 0, 30) + rows(VERSE, 100, 8), "validation": rows(VERSE, 110, 2) + rows(PARCEL, 40, 4),
        "test": rows(PARCEL, 50, 12) + rows(VERSE, 120, 11)}


def asked(kept: Sequence[Conversation]) -> set[str]:
    return {"parcel" if "parcel" in row.prompt[-1].content else "verse" for row in kept}


def test_a_cluster_is_tested_on_and_not_trained_on() -> None:
    """By hand: 46 parcels make cluster 0, and 21 verses cluster 1."""
    kept, out, found = leave_out(KEPT, LeaveOut(clusters=2, cluster=1), 0)
    assert [(one.cluster, one.train, one.validation, one.test) for one in found] == [(0, 30, 4, 12), (1, 8, 2, 11)]
    assert "parcel" in found[0].words
    assert "verses" in found[1].words
    assert kept == {"train": KEPT["train"][:30], "validation": KEPT["validation"][2:], "test": KEPT["test"][12:]}
    assert {origin.line for origin in out} == {*range(100, 108), 110, 111, *range(50, 62)}
    first, *_ = leave_out(KEPT, LeaveOut(clusters=2, cluster=0), 0)
    assert {part: asked(of) for part, of in first.items()} == {"train": {"verse"}, "validation": {"verse"},
                                                                "test": {"parcel"}}


def test_all_runs_see_the_same_clusters_in_any_order() -> None:
    both = [leave_out(KEPT, LeaveOut(clusters=2, cluster=i), 3) for i in (0, 1)]
    assert both[0][2] == both[1][2]
    tested = [row for kept, _, _ in both for row in kept["test"]]
    assert len(tested) == len(KEPT["test"])
    assert set(tested) == set(KEPT["test"])
    turned = {part: of[::-1] for part, of in KEPT.items()}
    kept, _, found = leave_out(turned, LeaveOut(clusters=2, cluster=1), 3)
    assert found == both[1][2]
    assert {part: of[::-1] for part, of in kept.items()} == both[1][0]


def test_clusters_can_be_counted_without_leaving_one_out() -> None:
    kept, out, found = leave_out(KEPT, LeaveOut(clusters=2), 0)
    assert (kept, out, len(found)) == (KEPT, [], 2)


def test_a_cluster_that_says_little_is_refused() -> None:
    few = KEPT | {"test": rows(PARCEL, 50, 12) + rows(VERSE, 120, 9)}
    with pytest.raises(UserError, match=r"cluster 1 \(.*verses.*\): it has 9 test rows, fewer than 10"):
        leave_out(few, LeaveOut(clusters=2, cluster=1), 0)
    lone = KEPT | {"train": rows(PARCEL, 0, 30)}
    with pytest.raises(UserError, match="all training rows are in it"):
        leave_out(lone, LeaveOut(clusters=2, cluster=0), 0)
    assert too_small(Cluster(0, [], 5, 0, 1)) == "it has 1 test row, fewer than 10"
    assert Cluster(3, [], 5, 0, 1).name == "cluster 3"
    assert not takes_all(Cluster(0, [], 5, 0, 1), [Cluster(0, [], 5, 0, 1), Cluster(1, [], 1, 0, 1)])
    with pytest.raises(UserError, match="different texts"):
        leave_out({part: rows(VERSE, 0, 1) for part in KEPT}, LeaveOut(clusters=2, cluster=1), 0)


@pytest.mark.parametrize(("wanted", "shares"), [(None, [None, None, None]), (100, [None, None, None]),
                                                (20, [12, 7, 1]), (4, [3, 1, 1])])
def test_few_test_rows_are_shared_by_the_clusters(wanted: int | None, shares: list[int | None]) -> None:
    """By hand, the largest remainder: of 100 rows 60, 35 and 5; and 1 at least of each."""
    found = [Cluster(i, [], 9, 9, count) for i, count in enumerate([60, 35, 5])]
    assert [share_of(wanted, found, i) for i in range(3)] == shares


def test_a_cluster_is_one_that_there_is() -> None:
    with pytest.raises(ValueError, match="a cluster from 0 to 3"):
        LeaveOut(clusters=4, cluster=4)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        LeaveOut(clusters=1)


# ── from files ───────────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ["apple", "harbour", "violin", "granite", "meadow", "lantern", "copper", "thistle", "walnut", "saddle"]


def written(folder: Path, count: int = 60, name: str = "train.jsonl") -> list[dict[str, Any]]:
    """Rows of two kinds with a column of each kind of value."""
    made = [{"prompt": f"{'Where is my parcel' if i % 2 else 'Sing of the sea'} {NAMES[i % 10]} {i * i}?",
             "completion": f"It is {i}.", "kind": "parcel" if i % 2 else "", "where": {"page": i % 3}}
            for i in range(count)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in made))
    return made


def prepared(folder: Path, wanted: dict[str, str] | None = None, **spec: Any) -> Rows:
    return prepare(DataSpec.model_validate({"train": "train.jsonl", **spec}), folder, TOKENIZER, None, 0, wanted=wanted)


def test_a_recipe_leaves_a_cluster_out(tmp_path: Path) -> None:
    written(tmp_path)
    whole = prepared(tmp_path, split={"test": 0.5})
    parts = [prepared(tmp_path, split={"test": 0.5, "leave_out": {"clusters": 2, "cluster": i}}) for i in (0, 1)]
    assert {row for part in parts for row in part.test} == set(whole.test)
    for i, part in enumerate(parts):
        [left] = {"parcel" in row.prompt[-1].content for row in part.test}
        assert {"parcel" in row.prompt[-1].content for row in part.train} == {not left}
        assert part.report.removed["left_out"].count == len(part.seen[UNUSED]) > 0
        assert sum(map(len, (part.train, part.validation, part.test))) == 60 - len(part.seen[UNUSED])
        assert any(line.startswith("rows left out, as data.split.leave_out asks") for line in part.report.lines())
        assert [one.cluster for one in part.report.clusters] == [0, 1]
        assert part.report.clusters[i].test == len(part.test)
    assert not whole.report.clusters


@pytest.mark.parametrize("own_test", [False, True])
def test_columns_say_something_of_each_test_row(own_test: bool, tmp_path: Path) -> None:
    written(tmp_path)
    spec = {"test": "test.jsonl"} if own_test else {}
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(
        {"prompt": f"{name} now?", "completion": "no", "kind": name, "where": 1}) + "\n" for name in NAMES))
    rows = prepared(tmp_path, {"kind": "evaluation.slices", "where": "evaluation.slices"}, **spec)
    assert len(rows.columns["kind"]) == len(rows.columns["where"]) == len(rows.test)
    for row, kind, where in zip(rows.test, rows.columns["kind"], rows.columns["where"], strict=True):
        said = row.prompt[-1].content
        assert kind == (said.split()[0] if own_test else "parcel" if "parcel" in said else "")
        assert where in ([1] if own_test else ['{"page": 0}', '{"page": 1}', '{"page": 2}'])


def test_columns_that_are_missing_are_refused_together(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, {"kinds": "evaluation.slices", "ood": "evaluation.out_of_distribution"})
    assert 'evaluation.slices names the column "kinds", which train.jsonl does not have.' in caught.value.text
    assert 'evaluation.out_of_distribution names the column "ood"' in caught.value.text
    assert "one of: prompt, completion, kind, where" in caught.value.text
