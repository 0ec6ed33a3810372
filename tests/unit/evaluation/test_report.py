from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from example_run import ATTACK, example_run

from tuneloop.evaluation.charts import Axis, loss_chart
from tuneloop.evaluation.report import readable, shape, write_card, write_report
from tuneloop.evaluation.text import duration, file_size, points, words
from tuneloop.record import RunFolder

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Headings, attributes and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.headings: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


ALL = ["Scores", "The goal", "What the words mean", "How training went", "What it took", "Which labels are confused",
       "Answers, side by side", "Answers during training", "The data", "Doing it again",
       "Every setting, and where it came from"]


@pytest.mark.parametrize("kind", [{"labels": 2}, {"labels": 20}, {"task": "open"}])
def test_one_self_contained_page(tmp_path: Path, kind: dict[str, int | str]) -> None:
    folder = example_run(tmp_path / "run", **kind)  # type: ignore[arg-type]
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert page.headings == [h for h in ALL if "task" not in kind or h != "Which labels are confused"]
    assert folder.read("certificate.json")["sentence"] in unescape(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\(|@import", html)
    assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]


def test_texts_of_models_are_escaped(tmp_path: Path) -> None:
    html = write_report(example_run(tmp_path / "run", task="open")).read_text(encoding="utf-8")
    assert ATTACK not in html
    assert ATTACK in unescape(html)
    assert unescape(html).index(ATTACK) < unescape(html).index("reviews.csv line 13")      # the worst comes first


@pytest.mark.parametrize(("file", "heading"), [
    ("metrics.jsonl", "How training went"), ("samples.jsonl", "Answers during training"), ("plan.json", ALL[-1]),
    ("data/report.json", "The data"), ("evaluation/predictions.jsonl", "Answers, side by side"),
    ("certificate.json", "Scores"), ("record.json", "Doing it again")])
def test_what_is_missing_is_left_out(tmp_path: Path, file: str, heading: str) -> None:
    folder = example_run(tmp_path / "run", rows=20)
    folder.file(file).unlink()
    headings = Page(write_report(folder).read_text(encoding="utf-8")).headings
    assert heading not in headings
    assert len(headings) >= 6


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    folder = RunFolder.create_at(tmp_path / "empty")
    assert Page(write_report(folder).read_text(encoding="utf-8")).headings == []
    assert "# empty" in write_card(folder).read_text(encoding="utf-8")


def test_the_card(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run")
    card = write_card(folder).read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct", "library_name": "peft", "pipeline_tag": "text-generation",
        "tags": ["tuneloop", "lora", "sft"]}
    assert folder.read("certificate.json")["sentence"] in body
    assert body.count("| TF-IDF rival |") == 2


def test_loss_chart_takes_the_last_word_on_a_repeated_step() -> None:
    chart = loss_chart([
        {"event": "step", "step": 1, "loss": 9.0}, {"event": "step", "step": 2, "loss": float("nan")},
        {"event": "step", "step": 1, "loss": 2.0}, {"event": "validation", "step": 2, "loss": 1.0, "best": True}])
    assert chart is not None
    assert chart["raw"] == [(50.0, pytest.approx(100 * (1 - 2 / 2.1), abs=0.01))]
    assert chart["best"]["step"] == 2
    assert loss_chart([]) is None


def test_loss_chart_of_a_policy_goes_below_zero() -> None:
    chart = loss_chart([{"event": "step", "step": i, "loss": loss} for i, loss in enumerate((0.02, -0.1, -0.4), 1)])
    assert chart is not None
    heights = [y for _, y in chart["raw"]]
    assert heights == sorted(heights)
    assert 0 < heights[0] < heights[-1] < 100
    assert "0" in [text for text, _ in chart["y"]]


def test_axis() -> None:
    assert Axis(0, 1).ticks(4) == [(0, 0), (0.5, 50), (1, 100)]
    assert Axis(0, 50, down=True).at(10) == 80
    assert Axis(0, 1).at(7) == 100


def test_shapes_of_json() -> None:
    assert [shape(v) for v in ("x", 1, None, ["a"], {"a": {"b": 1}}, [{"a": 1}], [[{"a": {"b": 1}}]])] == [
        "text", "text", "text", "list", "map", "table", "items"]
    assert shape({"row": {"min": 1}, "answer": {"min": 2}}) == "table"
    assert readable({"first": [{"file": "a.csv", "line": 3}], "none": []}) == {"first": ["a.csv line 3"]}
    wide = {part: {f"label_{i}": i for i in range(20)} for part in ("train", "test")}
    assert list(readable({"labels": wide})["labels"])[:2] == ["label_0", "label_1"]


def test_numbers_in_words() -> None:
    assert [duration(s) for s in (None, 4.21, 59, 121, 7261)] == ["", "4.2 s", "59 s", "2 min 1 s", "2 h 1 min"]
    assert [file_size(b) for b in (12, 2_100_000_000)] == ["12 B", "2.1 GB"]
    assert points(-0.053) == "−5.3"
    assert [words(k) for k in ("peak_memory_bytes", "my_file.csv")] == ["peak memory", "my_file.csv"]
