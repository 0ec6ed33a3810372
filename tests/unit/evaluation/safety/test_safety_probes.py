"""The built-in probes: as many as promised, all different, none in the training rows, and files of one's own."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.safety.bias import Counterfactual, Stereotypes
from tuneloop.evaluation.safety.jailbreak import WRAPPINGS
from tuneloop.evaluation.safety.probes import Probe, probes, rows

DATA = Path(str(resources.files("tuneloop.evaluation.safety"))) / "data"
FEWEST = {"harmful": 80, "benign": 60, "injection": 40, "provoking": 30, "personal": 40, "counterfactual": 40,
          "stereotypes": 40}
PROMPTED = ("harmful", "benign", "provoking", "personal")
DOCS = Path(__file__).parents[4] / "docs" / "safety.md"


def read(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("name", FEWEST)
def test_there_are_as_many_probes_as_promised_each_once(name: str) -> None:
    lines = read(name)
    assert len(lines) >= FEWEST[name]
    assert len({line["id"] for line in lines}) == len(lines)
    content = [json.dumps({k: v for k, v in line.items() if k not in ("id", "part")}).lower() for line in lines]
    assert len(set(content)) == len(lines)
    assert all(str(value).strip() for line in lines for value in line.values())


def test_more_than_three_hundred_in_all() -> None:
    assert {file.stem for file in DATA.iterdir()} == set(FEWEST)
    assert sum(len(read(name)) for name in FEWEST) >= 300


def test_the_docs_give_the_true_sizes() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+)", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    sizes = {{"provoking": "toxicity", "personal": "personal_data"}.get(name, name): len(read(name)) for name in FEWEST}
    wrapped = len([line for line in read("harmful") if line["part"] != "minors"])
    assert {name: int(size) for name, size in told.items()} == sizes | {"jailbreak": wrapped}
    assert f"{sum(sizes.values())} probes" in DOCS.read_text(encoding="utf-8")


def test_the_harmful_requests_cover_their_categories_alike() -> None:
    parts = Counter(line["part"] for line in read("harmful"))
    assert parts.pop("minors") == 1
    assert set(parts) == {"violence", "weapons", "self_harm", "illegal_trade", "fraud", "malware", "privacy", "hate",
                          "reckless_medical", "reckless_legal", "disinformation"}
    assert set(parts.values()) == {8}
    assert set(Counter(line["part"] for line in read("benign")).values()) == {8}


@pytest.mark.parametrize("name", PROMPTED)
def test_no_probe_resembles_a_row_that_the_safety_mix_trains_on(name: str) -> None:
    """The rows of builtin:safety may be mixed into training; probes like them would measure memory."""
    text = resources.files("tuneloop.data").joinpath("builtin", "safety.jsonl").read_text("utf-8")
    trained = [words(json.loads(line)["messages"][0]["content"]) for line in text.splitlines()]
    for probe in probes(name):
        asked = words(probe.prompt)
        assert max(len(asked & row) / len(asked | row) for row in trained) < 0.7, probe.prompt


@pytest.mark.parametrize("name", PROMPTED)
def test_probes_are_requests_and_no_instructions(name: str) -> None:
    """Short, a line each, no digits that could be amounts, no steps, no links."""
    for probe in probes(name):
        assert len(probe.prompt) <= 120
        assert "\n" not in probe.prompt
        assert not re.search(r"\d|https?:|step 1", probe.prompt)


def test_an_injected_order_stands_in_its_document_and_only_there_is_the_canary() -> None:
    for line in rows("injection", None, ("task", "document", "attack", "canary")):
        rest = line["document"].replace(line["attack"], "")
        assert rest != line["document"]
        assert line["canary"].lower() not in rest.lower()
        assert (line["canary"].lower() in line["attack"].lower()) == (line["part"] != "translate")
    assert set(Counter(line["part"] for line in read("injection")).values()) == {11}


def test_counterfactual_sentences_differ_in_the_group_alone() -> None:
    for line in rows("counterfactual", None, ("sentence", "question")):
        assert line["sentence"].count("{group}") == 1
        assert len(set(line["groups"])) == 2
        assert line["choices"] in (["positive", "negative"], ["yes", "no"])


def test_every_pair_of_groups_stands_in_both_orders_alike_often() -> None:
    """Else a model that merely finds one name likelier than another would look biased."""
    for part in {line["part"] for line in read("stereotypes")}:
        swapped: Counter[tuple[str, ...]] = Counter()
        for line in rows("stereotypes", None, ("stereotype", "other")):
            if line["part"] == part:
                one, other = line["stereotype"].split(), line["other"].split()
                assert len(one) == len(other)
                [pair] = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
                swapped[tuple(sorted(pair))] += 1 if pair == tuple(sorted(pair)) else -1
        assert set(swapped.values()) == {0}, part


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"prompt": "b", "id": 7, "part": "x"}\n', encoding="utf-8")
    assert probes("harmful", file) == [Probe("line 1", "all", "a"), Probe("7", "x", "b")]


@pytest.mark.parametrize(("text", "said"), [
    ("", "has no probe"),
    ('{"prompt": "a"}\n{"prompt": "  "}\nno json\n[1]\n', "line 2 .*line 3 .*line 4 "),
    ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}', "the id 1 twice"),
    ('{"text": "a"}', "line 1 is no probe"),
])
def test_a_file_that_does_not_fit_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.compile(said, re.DOTALL)):
        probes("harmful", file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read"):
        probes("harmful", tmp_path / "none.jsonl")


def test_pairs_need_two_texts(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    row = {"sentence": "{group}", "question": "?", "choices": ["a"], "groups": ["b", "c"]}
    file.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        Counterfactual(file).run(None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="line 1"):
        Stereotypes(file).run(None)  # type: ignore[arg-type]


def test_there_are_eight_wrappings_or_more_and_all_change_the_request() -> None:
    assert len(WRAPPINGS) >= 8
    assert len({wrapping.wrap("How do I do it now?") for wrapping in WRAPPINGS.values()}) == len(WRAPPINGS)
