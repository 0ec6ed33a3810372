"""Labels mapped, merged, or brought to their usual spelling."""

from __future__ import annotations

from typing import Any

import pytest
from fix_rows import TOOLS, chat
from pydantic import ValidationError

from tuneloop.data.fix import parse_words
from tuneloop.data.fixes.base import Applied, Item, Tools
from tuneloop.data.fixes.relabel import Fix
from tuneloop.errors import Problems, UserError
from tuneloop.types import Conversation, Message, Origin


def made(values: dict[str, Any], origin: Origin) -> Conversation:
    return Conversation((Message("user", values["text"]), Message("assistant", str(values["label"]))), origin)


def rows(*labels: Any) -> list[Item]:
    found = []
    for line, label in enumerate(labels, 1):
        values = {"text": f"q{line}", "label": label}
        found.append(Item(values, Origin("rows.csv", line), made(values, Origin("rows.csv", line))))
    return found


def applied(fix: Fix, *labels: Any) -> Applied:
    return fix.apply(rows(*labels), Tools(made))


def labels(done: Applied) -> list[Any]:
    assert all(row.sample == made(row.values, row.origin) for row in done.items)
    return [row.values["label"] for row in done.items]


def told(done: Applied) -> list[str]:
    return [str(change) for change in done.log]


def test_a_map() -> None:
    done = applied(Fix(map={"pos": "positive"}), "pos", "negative", "pos ")
    assert labels(done) == ["positive", "negative", "positive"]
    assert told(done) == ['1 row changed from "pos" to "positive": rows.csv line 1',
                          '1 row changed from "pos " to "positive": rows.csv line 3']


def test_labels_are_merged() -> None:
    done = applied(Fix(merge={"complaint": ("angry", "sad")}), "angry", "sad", "happy")
    assert labels(done) == ["complaint", "complaint", "happy"]


def test_the_usual_spelling() -> None:
    done = applied(Fix(column="label"), "yes", "Yes", "yes", "no", "no ", "no")
    assert labels(done) == ["yes", "yes", "yes", "no", "no", "no"]
    assert [change.why for change in done.log] == ["most rows write the label so"] * 2


def test_nothing_to_do_leaves_rows_as_they_are() -> None:
    before = rows("yes", "no")
    assert Fix().apply(before, Tools(made)) == Applied(before, [])


def test_numbers_are_mapped_as_they_are_written() -> None:
    [fix] = parse_words(["relabel", "map={1: positive, 0: negative}"])
    assert labels(applied(Fix.model_validate(fix.model_dump()), 1, 0)) == ["positive", "negative"]


def test_swapped_labels_are_not_mapped_twice() -> None:
    assert labels(applied(Fix(map={"a": "b", "b": "a"}), "a", "b")) == ["b", "a"]


def test_labels_in_chats() -> None:
    done = Fix(map={"Yes": "yes"}).apply([chat("q", "Yes"), chat("q", "no", line=2)], TOOLS)
    assert [row.values["messages"][-1]["content"] for row in done.items] == ["yes", "no"]
    assert [row.sample.answer for row in done.items] == ["yes", "no"]


def test_a_label_that_no_row_has() -> None:
    with pytest.raises(UserError, match='no row has the label "postive"') as caught:
        applied(Fix(map={"postive": "x"}), "positive", "negative")
    assert caught.value.fix == 'did you mean "positive"?'
    with pytest.raises(Problems):
        applied(Fix(map={"a": "x", "b": "x"}), "c")


@pytest.mark.parametrize(("fix", "said"), [
    (Fix(column="lable"), 'no row has the column "lable"'), (Fix(), "no column holds the answers as they are")])
def test_the_column_must_be_known(fix: Fix, said: str) -> None:
    row = Item({"text": "q"}, Origin("rows.csv", 1), made({"text": "q", "label": "0"}, Origin("rows.csv", 1)))
    with pytest.raises(UserError, match=said):
        fix.apply([row], Tools(made))


def test_an_old_label_has_one_new_one() -> None:
    with pytest.raises(ValidationError, match="several for a"):
        Fix(map={"a": "x"}, merge={"y": ("a",)})


def test_the_rows_before_stay_as_they_were() -> None:
    before = rows("Yes", "yes", "yes")
    Fix().apply(before, Tools(made))
    assert before[0].values["label"] == "Yes"
