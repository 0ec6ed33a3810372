"""Rows that are mended, mixed, made up and kept together on their way to the parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from data_rows import CharacterTokenizer

from tuneloop.data.augment.apart import AUGMENTED_FROM, digest_of
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.spec import DataSpec
from tuneloop.data.versions.rows import Identity, row_hash
from tuneloop.data.versions.seen import UNUSED
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Rollout

TOKENIZER = cast(ChatTokenizer, CharacterTokenizer())
WORDS = [
    "apple", "harbour", "violin", "granite", "meadow", "lantern", "copper", "thistle", "walnut", "saddle",
    "pepper", "anchor", "velvet", "marble", "juniper", "falcon", "ribbon", "cactus",
]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "train.jsonl") -> list[dict[str, Any]]:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def different(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of which no two ask nearly the same."""
    return [{"prompt": f"{WORDS[i % 18]} {WORDS[(i * 5 + i // 18) % 18]} {i * i}?", "completion": f"It is {i}."}
            for i in range(start, start + count)]


def prepared(folder: Path, **spec: Any) -> Rows:
    return prepare(DataSpec.model_validate({"train": "train.jsonl", **spec}), folder, TOKENIZER, None, 0)


def asked(rows: list[Any]) -> set[str]:
    return {row.prompt[-1].content for row in rows}


def test_rows_that_ask_nearly_the_same_are_on_one_side(tmp_path: Path) -> None:
    rows = different(40)
    copies = [{**row, "prompt": row["prompt"] + " ", "completion": f"{row['completion']} Really."} for row in rows[:8]]
    nearly = [{**row, "prompt": f"The long question about how the whole {row['prompt'][:9]} matter was settled {end}"}
              for row in rows[:10] for end in ("then", "then.")]
    write(tmp_path, [*rows, *copies, *nearly])
    found = prepared(tmp_path, split={"test": 0.3})
    for stem in {row["prompt"].strip(".").removesuffix("then") for row in nearly}:
        sides = {part for part in ("train", "validation", "test") for text in asked(getattr(found, part))
                 if text.startswith(stem)}
        assert len(sides) == 1, stem


def test_rows_of_one_group_are_on_one_side(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "customer": i % 9} for i, row in enumerate(different(45))])
    found = prepared(tmp_path, split={"test": 10, "group": "customer"})
    customers = [{row.origin.line % 9 for row in getattr(found, part)} for part in ("train", "validation", "test")]
    assert sum(map(len, customers)) == 9
    assert len(found.test) == 10
    with pytest.raises(UserError, match=r'names the column "client", which train\.jsonl does not have'):
        prepared(tmp_path, split={"group": "client"})


def test_the_newest_rows_are_held_out(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "when": f"2026-01-{(i * 7) % 30 + 1:02}"} for i, row in enumerate(different(30))])
    found = prepared(tmp_path, split={"test": 6, "validation": 3, "time": "when"})
    days = [[((row.origin.line - 1) * 7) % 30 for row in getattr(found, part)] for part in
            ("train", "validation", "test")]
    assert sorted(days[2]) == [24, 25, 26, 27, 28, 29]
    assert sorted(days[1]) == [21, 22, 23]
    assert max(days[0]) == 20


def test_fixes_apply_as_rows_are_read(tmp_path: Path) -> None:
    rows = different(20)
    rows[3]["prompt"] += " Write to anna.meier@firma-beispiel.de."
    write(tmp_path, rows)
    found = prepared(tmp_path, fix=[{"kind": "redact", "kinds": ["email"]}])
    everything = asked([*found.train, *found.validation, *found.test])
    assert not any("@" in text for text in everything)
    assert any("[EMAIL" in text for text in everything)
    assert [step["fix"]["kind"] for step in found.report.mended] == ["redact"]
    assert any("mended by redact" in line for line in found.report.lines())


def test_fixes_for_training_alone_change_no_other_row(tmp_path: Path) -> None:
    write(tmp_path, different(30))
    plain, more = prepared(tmp_path), prepared(tmp_path, fix=[{"kind": "augment", "by": ["typos"], "rate": 0.5}])
    assert (more.test, more.validation) == (plain.test, plain.validation)
    assert len(more.train) > len(plain.train)
    assert asked(more.train) > asked(plain.train)


def test_made_up_rows_train_only_where_their_original_does(tmp_path: Path) -> None:
    rows = different(30)
    made = [{"prompt": f"{row['prompt']} (said differently)", "completion": row["completion"],
             AUGMENTED_FROM: digest_of(row)} for row in rows]
    write(tmp_path, [*rows, *made])
    found = prepared(tmp_path)
    assert not any("said differently" in text for text in asked([*found.validation, *found.test]))
    trained = asked(found.train)
    for row in rows:
        assert (row["prompt"] in trained) == (f"{row['prompt']} (said differently)" in trained)
    assert found.report.removed["made_up"].count == len(found.validation) + len(found.test)


def test_rows_of_other_sources_are_mixed_into_training(tmp_path: Path) -> None:
    own = write(tmp_path, different(40))
    general = write(tmp_path, [{"prompt": f"General matter {i} of {WORDS[i % 18]}?", "completion": "Yes."}
                               for i in range(30)], "general.jsonl")
    plain = prepared(tmp_path)
    held_out = next(iter(asked(plain.test)))
    write(tmp_path, [*general, {"prompt": held_out, "completion": "A leak."}], "general.jsonl")
    found = prepared(tmp_path, mix=[{"from": "general.jsonl", "weight": 0.3}])
    assert (found.test, found.validation) == (plain.test, plain.validation)
    mixed = [row for row in found.train if row.origin.file == "general.jsonl"]
    assert len(plain.train) == len(own) * 7 // 10
    assert len(mixed) + found.report.removed["leaks"].count == 12      # 0.3 of 28 + 12
    assert held_out not in asked(found.train)
    assert "30 % of the training rows" in found.report.mixed[0]


def test_rows_of_other_sources_that_nearly_ask_what_is_held_out_are_left_out(tmp_path: Path) -> None:
    rows = [{**row, "prompt": f"How was the whole matter of {row['prompt']} settled in the end by the council of {end}"}
            for row, end in zip(different(40), WORDS * 3, strict=False)]
    write(tmp_path, rows)
    write(tmp_path, [{**row, "prompt": row["prompt"] + "?"} for row in rows], "more.jsonl")
    found = prepared(tmp_path, mix=[{"from": "more.jsonl", "weight": 0.5}])
    held_out = asked([*found.validation, *found.test])
    mixed = asked([row for row in found.train if row.origin.file == "more.jsonl"])
    assert {text.removesuffix("?") for text in mixed} & held_out == set()
    assert len(mixed) + found.report.removed["leaks"].count == 28
    assert mixed


def test_rows_of_other_sources_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "completion": ("good", "bad ")[i % 2]} for i, row in enumerate(different(40))])
    write(tmp_path, [{"prompt": f"Why {WORDS[i]}?", "completion": f"Because of {i}."} for i in range(18)], "more.jsonl")
    found = prepared(tmp_path, mix=[{"from": "more.jsonl", "weight": 0.2}])
    assert (found.task, found.labels) == ("labels", ["bad", "good"])
    assert found.report.labels["train"] == {"bad": 14, "good": 14}
    assert (len(found.train), found.report.split["train"], found.report.warnings) == (35, 35, [])


def test_labels_are_as_clean_in_rows_that_are_made_up(tmp_path: Path) -> None:
    rows = [{**row, "completion": ("good", "bad ")[i % 2]} for i, row in enumerate(different(40))]
    made = [{**row, "prompt": f"Please: {row['prompt']}", AUGMENTED_FROM: digest_of(row)} for row in rows]
    write(tmp_path, [*rows, *made])
    found = prepared(tmp_path, fix=[{"kind": "augment", "by": ["casing"]}])
    assert found.labels == ["bad", "good"]
    assert found.report.labels["train"] == {"bad": 42, "good": 42}


def test_fixes_in_a_recipe_know_its_base(tmp_path: Path) -> None:
    rows = different(20)
    rows[2]["completion"] = "It ends <end> too early."
    write(tmp_path, rows)
    found = prepared(tmp_path, fix=[{"kind": "drop", "checks": ["proof"]}, {"kind": "split_long", "max_tokens": 50}])
    assert sum(found.report.split.values()) == 19
    assert [origin.line for origin in found.seen[UNUSED]] == [3]


def test_rows_cut_from_one_are_on_one_side(tmp_path: Path) -> None:
    write(tmp_path, [{"messages": [{"role": role, "content": f"{row[key]} {WORDS[row_at]}"} for row_at in range(3)
                                   for role, key in (("user", "prompt"), ("assistant", "completion"))]}
                     for row in different(30)])
    found = prepared(tmp_path, fix=[{"kind": "split_long", "max_characters": 60}])
    sides = [{row.origin.line for row in getattr(found, part)} for part in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 30
    assert sum(found.report.split.values()) > 60


def test_sampled_answers_that_are_mixed_in_are_put_together(tmp_path: Path) -> None:
    def sampled(start: int) -> list[dict[str, Any]]:
        return [{**row, "reward": reward} for row in different(18, start) for reward in (0, 1)]

    write(tmp_path, sampled(0))
    write(tmp_path, sampled(40), "more.jsonl")
    found = prepare(DataSpec.model_validate({"train": "train.jsonl", "mix": [{"from": "more.jsonl", "weight": 0.8}]}),
                    tmp_path, TOKENIZER, None, 0, Rollout)
    mixed = [row for row in found.train if row.origin.file == "more.jsonl"]
    assert [sorted(row.rewards) for row in mixed] == [[0.0, 1.0]] * 18
    assert all(len(group.branches) == 2 for group in found.groups["train"])


def test_groups_may_be_named_by_lists(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "customer": [i % 20]} for i, row in enumerate(different(40))])
    found = prepared(tmp_path, split={"test": 10, "group": "customer"})
    customers = [{row.origin.line % 20 for row in getattr(found, part)} for part in ("train", "validation", "test")]
    assert sum(map(len, customers)) == 20


def test_what_a_record_holds_of_the_rows(tmp_path: Path) -> None:
    rows = different(20)
    write(tmp_path, [*rows, rows[0]])
    found = prepared(tmp_path)
    assert found.versions == {"train": Identity(map(row_hash, [*rows, rows[0]])).id}
    assert [(file.shown, file.path) for file in found.files] == [("train.jsonl", str(tmp_path / "train.jsonl"))]
    assert [origin.line for origin in found.seen[UNUSED]] == [21]
    assert sum(map(len, found.seen.values())) == 21
    fixed = prepared(tmp_path, fix=["deduplicate"])
    assert [origin.line for origin in fixed.seen[UNUSED]] == [21]
