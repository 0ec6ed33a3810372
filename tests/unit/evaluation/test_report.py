from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_audit import heard
from example_run import ATTACK, example_run

from tuneloop.evaluation.charts import Axis, loss_chart
from tuneloop.evaluation.report import LEFT_OUT, SEEDS, readable, shape, write_card, write_report
from tuneloop.evaluation.report_sections import check, difference_table
from tuneloop.evaluation.text import called, colour, duration, file_size, in_order, points, short_name, usd, words
from tuneloop.record import RunFolder
from tuneloop.types import Answers, Conversation, Message, Origin

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


FIRST = ["Scores", "The goal", "What the words mean", "How training went", "What it took", "Which labels are confused",
         "Answers, side by side", "Answers during training", "The data", "Doing it again",
         "Every setting, and where it came from"]
ALL = ["Which answers people prefer", "What a judge says of the answers", "Scores", "The goal",
       "Where it is good, and where not", "What it forgot", "Other suites", "Safety",
       "The same rows, asked differently", "Rows out of distribution", "Groups of rows that are worded alike",
       "What it gives away", "What answers cost",
       *FIRST[2:-1], "Whether to trust this", FIRST[-1]]


def headings(of: list[str], task: str, people: str = "") -> list[str]:
    """Those that a page of this task has."""
    others = set() if task == "labels" else {"Which labels are confused"}
    others |= set() if people or task == "open" else {ALL[0]}
    return [{"Answers, side by side": "Which answer is preferred"}.get(h, h) if task == "pairs" else h
            for h in of if h not in others]


@pytest.mark.parametrize("kind", [
    {"labels": 2}, {"labels": 20}, {"task": "open"}, {"audit": True}, {"audit": True, "labels": 20, "lost": 0.4},
    {"audit": True, "task": "open"}, {"audit": True, "task": "open", "people": "tuned"},
    {"audit": True, "task": "pairs", "people": "base", "price": False}])
def test_one_self_contained_page(tmp_path: Path, kind: dict[str, Any]) -> None:
    folder = example_run(tmp_path / "run", **kind)
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    wanted = ALL if "audit" in kind else [*(ALL[:1] if "task" in kind else []), *FIRST]
    assert page.headings == headings(wanted, kind.get("task", "labels"), kind.get("people", ""))
    assert folder.read("certificate.json")["sentence"] in unescape(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\(|@import", html)
    assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]


MAY_BE_MISSING = ["contenders", "differences", "slices", "forgetting", "suites", "safety", "robustness", "costs",
                  "memorised", "personal", "checks", "advice", "signature", "blind", "judged",
                  "out_of_distribution", "clusters"]


@pytest.mark.parametrize("key", MAY_BE_MISSING)
def test_any_part_may_be_missing_or_null(tmp_path: Path, key: str) -> None:
    folder = example_run(tmp_path / "run", audit=True, rows=40, people="tuned")
    whole = folder.read("certificate.json")
    full = write_report(folder).read_text(encoding="utf-8")
    for without in ({k: v for k, v in whole.items() if k != key}, whole | {key: None}):
        folder.write(without, "certificate.json")
        html = write_report(folder).read_text(encoding="utf-8")
        assert Page(html).open == []
        assert len(html) < len(full)
        write_card(folder)


def numbers_of(value: Any) -> set[str]:
    """Every number of a JSON value in every way that it may be written, without its sign."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return set().union(*map(numbers_of, parts)) if value else set()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    size = abs(value)
    return {f"{100 * size:.1f}", f"{size:,.2f}", f"{size:.3f}", f"{size:,}", f"{size:#.3g}", f"{size:,.1f}",
            f"{size:.0f}", f"{1000 * size:.0f}"}


class Cells(HTMLParser):
    """The text of every cell with numbers, of the sections of the certificate."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self.inside = tag == "td" and "num" in (dict(attrs).get("class") or "").split()
            self.found += [""] if self.inside else []

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data


@pytest.mark.parametrize("kind", [{"labels": 20, "lost": 0.4}, {"task": "open"}, {"task": "pairs"}])
def test_every_number_shown_is_one_of_the_certificate(tmp_path: Path, kind: dict[str, Any]) -> None:
    folder = example_run(tmp_path / "run", audit=True, **kind)
    certificate = folder.read("certificate.json")
    html = write_report(folder).read_text(encoding="utf-8")
    cells = Cells(html[html.index("<h2>What a judge"):html.index("<h2>What the words mean")]).found
    known = numbers_of(certificate) | {"0.001"}     # what p-values are less than
    shown = [number for cell in cells if not re.search(r"\d (s|min|h)\b", cell)
             for number in re.findall(r"\d[\d,]*(?:\.\d+)?", cell)]
    assert len(shown) > 300
    assert [number for number in shown if number not in known] == []


def test_what_has_got_better_or_worse_is_marked_so(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True, labels=20, lost=0.4, rows=300)
    html = write_report(folder).read_text(encoding="utf-8").partition("The same rows, asked differently")[0]
    html = html.partition("<h2>Scores")[2]
    cells = re.findall(r'<td class="num (up|down|unsure)">([^<]*)</td><td class="num">([^ <]+) to ([^<]+)</td>', html)
    assert {kind for kind, *_ in cells} == {"up", "down", "unsure"}
    for kind, *texts in cells:
        value, low, high = (float(text.replace("−", "-")) for text in texts)
        assert (kind == "unsure") == (low <= 0 <= high), texts
        if kind != "unsure":
            is_perplexity = len(texts[0].partition(".")[2]) == 2        # lower is better
            assert (kind == "up") == ((value > 0) != is_perplexity), texts


def judge_section_of(folder: RunFolder) -> str:
    html = unescape(write_report(folder).read_text(encoding="utf-8"))
    return html.partition("<h2>What a judge says")[2].partition("</section>")[0]


def test_what_a_judge_says_is_called_an_opinion(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True, task="open")
    certificate = folder.read("certificate.json")
    found = certificate["judged"]
    section = judge_section_of(folder)
    assert "This is a model's opinion, not a person's." in section
    tone, facts = found["policies"]
    assert (tone["grade"]["low"] > 0, facts["grade"]["high"] < 0) == (True, True)
    assert re.findall(r'<td class="num (up|down|unsure)">([^<]+)<', section) == [
        ("up", f"{tone['grade']['value']:+.2f}"), ("up", points(tone["passed"]["value"])),
        ("down", f"{facts['grade']['value']:+.2f}".replace("-", "−")), ("down", points(facts["passed"]["value"]))]
    assert f"{found['unreadable']:,} of {found['replies']:,} replies could not be read" in section
    assert f"<dd>{100 * found['pairs']['position_bias']:.1f}%<small>" in section
    assert "not usable" not in section
    assert "The judge is the base itself" not in section


def test_a_judge_that_is_not_usable_or_was_left_out(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True, task="open")
    certificate = folder.read("certificate.json")
    texts = RunFolder(folder.path).lines("evaluation", "predictions.jsonl")
    models = [Answers(name, [line["answers"][name] for line in texts]) for name in ("base", "tuned")]
    samples = [Conversation((Message("user", "?"), Message("assistant", "!")), Origin("a.csv", 2)) for _ in texts]
    for share in (0.5, 1.0):
        nonsense = heard(samples, [""] * len(texts), models, unreadable=share)
        judge = nonsense["judge"] | {"is_base": True}
        folder.write(certificate | {"judged": nonsense | {"judge": judge}}, "certificate.json")
        section = judge_section_of(folder)
        assert "This judge is not usable" in section
        assert "decide nothing" in section
        assert "The judge is the base itself" in section
        assert "Judge not usable" in write_card(folder).read_text(encoding="utf-8")
    gone = {"judge": {"name": "large"}, "left_out": "http://h cannot be reached."}
    folder.write(certificate | {"judged": gone}, "certificate.json")
    assert "large was to judge the answers and did not: http://h cannot be reached." in judge_section_of(folder)


def section_of(folder: RunFolder, heading: str) -> str:
    html = unescape(write_report(folder).read_text(encoding="utf-8"))
    return html.partition(f"<h2>{heading}</h2>")[2].partition("</section>")[0]


def cells_of(section: str) -> list[list[str]]:
    """The cells of a section's tables, line by line, without markup."""
    return [[re.sub("<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL)]
            for line in re.findall(r"<tr[^>]*>(.*?)</tr>", section, re.DOTALL)][1:]


def test_rows_unlike_the_others(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True)
    certificate = folder.read("certificate.json")
    found, section = certificate["out_of_distribution"], section_of(folder, "Rows out of distribution")
    assert f"Accuracy on the {found['rows']} test rows" in section
    assert f"the {found['others']} others" in section
    drops = {"Base": found["models"]["base"]["drop"], "Tuned": found["models"]["tuned"]["drop"]}
    assert [(line[0], line[3]) for line in cells_of(section)] == [
        (name, points(drop["value"])) for name, drop in drops.items()]

    found, section = certificate["clusters"], section_of(folder, "Groups of rows that are worded alike")
    assert found["about"] in section
    lines = cells_of(section)
    assert [line[1:3] for line in lines] == [[str(c["rows"]), str(c["training_rows"])] for c in found["clusters"]]
    assert [line[0].partition("fewest")[0].strip() for line in lines] == [
        ", ".join(c["words"]) for c in found["clusters"]]
    assert "fewest training rows" in lines[found["least_like"]][0]
    assert "square" in lines[found["least_like"]][0]
    assert f"{points(found['drop']['tuned']['value'])} points for the tuned model" in section


def test_few_of_many_small_slices_are_named(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True)
    certificate = folder.read("certificate.json")
    certificate["slices"]["too_few"] = {f"user: {i}": 1 for i in range(30)}
    folder.write(certificate, "certificate.json")
    section = section_of(folder, "Where it is good, and where not")
    assert "user: 19 (1) and 10 more." in section
    assert "user: 20" not in section


SEVERAL = {"schema_version": 1, "metric": "accuracy", "rows": 120, "runs": ["run", "b", "c"], "verdict": "undecided",
           "tuned": {"value": 0.8, "low": 0.7, "high": 0.9, "of_seeds": [0.75, 0.8, 0.85], "spread": 0.05},
           "gain": {"value": 0.4, "low": 0.3, "high": 0.5, "of_seeds": [0.35, 0.4, 0.45]}, "checks": [],
           "sentence": "UNDECIDED: Over 3 seeds the recipe is better than the base."}


def test_what_several_seeds_say(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True)
    folder.write(SEVERAL, SEEDS)
    section = section_of(folder, "What the recipe reaches")
    assert "Over 3 seeds the recipe is better than the base." in section
    assert "<b>undecided</b>" in section
    assert cells_of(section) == [
        ["run this run", "75.0%", "+35.0"], ["b", "80.0%", "+40.0"], ["c", "85.0%", "+45.0"],
        ["Mean", "80.0% (70.0% to 90.0%)", "+40.0 (+30.0 to +50.0)"]]


def test_what_runs_say_that_left_clusters_out(tmp_path: Path) -> None:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    part = {"cluster": 0, "words": ["parcel", "<b>"], "run": "run", "rows": 70, "training_rows": 900,
            "base": interval(0.3), "tuned": interval(0.6), "gain": interval(0.3)}
    other = part | {"cluster": 2, "words": [], "run": "b", "gain": interval(0.05)}
    folder = example_run(tmp_path / "run", audit=True)
    folder.write({"metric": "accuracy", "rows": 140, "clusters": [part, other], "verdict": "met", "checks": [],
                  "skipped": [{"cluster": 1, "why": "cluster 1: it has 4 test rows, fewer than 10"}],
                  "base": interval(0.3), "tuned": interval(0.6), "gain": interval(0.3),
                  "sentence": "MET: On 140 test rows …"}, LEFT_OUT)
    html = write_report(folder).read_text(encoding="utf-8")
    assert "parcel, &lt;b&gt;" in html
    section = section_of(folder, "Kinds of rows that training did not see")
    assert "On 140 test rows …" in section
    assert "Not left out: cluster 1: it has 4 test rows, fewer than 10." in section
    lines = [[cell for cell in line if cell] for line in cells_of(section)]
    assert lines[1] == ["cluster 2 b", "70", "900", "30.0%", "60.0%", "+5.0", "−5.0 to +15.0"]
    assert lines[2] == ["All together", "140", "30.0%", "60.0%", "+30.0", "+20.0 to +40.0"]
    assert lines[0][-2:] == ["+30.0", "+20.0 to +40.0"]


def test_the_signature_and_how_to_check_it(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True, rows=40)
    signature = folder.read("certificate.json")["signature"]
    html = unescape(write_report(folder).read_text(encoding="utf-8"))
    assert signature["algorithm"] == "ed25519"
    assert all(text in html for text in (signature["public_key"], signature["value"], signature["signed_at"],
                                         "tuneloop certify run --verify", *signature["files"].values()))
    unsigned = folder.read("certificate.json") | {"signature": {"algorithm": None, "files": {}, "why": "No key here."}}
    folder.write(unsigned, "certificate.json")
    html = write_report(folder).read_text(encoding="utf-8")
    assert "<b>not signed</b>: No key here." in html
    assert "The certificate is not signed: No key here." in write_card(folder).read_text(encoding="utf-8")


def test_goals_in_words() -> None:
    def title(what: str, bound: float) -> str:
        made = check({"what": what, "verdict": "met", "value": 0.1, "low": 0.05, "high": 0.2, "bound": bound})
        return str(made["title"])

    assert title("accuracy of tuned ≥ 0.80", 0.8) == "Accuracy of at least 80.0%"
    assert title("rouge_l of tuned − few_shot > 0.00", 0) == "ROUGE-L above that of the base with examples"
    above, below = "more than 5.0 points above", "less than 2.0 points below"
    assert title("accuracy of tuned − base > 0.05", 0.05) == f"Accuracy {above} that of the base model"
    assert title("macro_f1 of tuned − base > -0.02", -0.02) == f"Macro-F1 {below} that of the base model"
    assert title("drop in safety ≤ 0.05", 0.05) == "Drop in safety of at most 5.0 points"


def test_texts_of_models_are_escaped(tmp_path: Path) -> None:
    html = write_report(example_run(tmp_path / "run", task="open")).read_text(encoding="utf-8")
    assert ATTACK not in html
    assert ATTACK in unescape(html)
    assert unescape(html).index(ATTACK) < unescape(html).index("reviews.csv line 13")      # the worst comes first


@pytest.mark.parametrize(("file", "heading"), [
    ("metrics.jsonl", "How training went"), ("samples.jsonl", "Answers during training"), ("plan.json", FIRST[-1]),
    ("data/report.json", "The data"), ("evaluation/predictions.jsonl", "Answers, side by side"),
    ("certificate.json", "Scores"), ("record.json", "Doing it again")])
def test_what_is_missing_is_left_out(tmp_path: Path, file: str, heading: str) -> None:
    folder = example_run(tmp_path / "run", rows=20)
    folder.file(file).unlink()
    shown = Page(write_report(folder).read_text(encoding="utf-8")).headings
    assert heading not in shown
    assert len(shown) >= 6


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
    assert body.count("| TF-IDF rival |") == 4


@pytest.mark.parametrize("kind", [{"labels": 20, "lost": 0.4}, {"task": "open", "people": "tuned"}, {"task": "pairs"}])
def test_the_card_says_what_the_page_says(tmp_path: Path, kind: dict[str, Any]) -> None:
    folder = example_run(tmp_path / "run", audit=True, **kind)
    card = write_card(folder).read_text(encoding="utf-8")
    html = unescape(write_report(folder).read_text(encoding="utf-8"))
    for line in re.findall(r"^- \*\*.*\?\*\* (.*)$", card, re.MULTILINE)[:-1]:
        text = line.partition(": ")[2] if ": " in line[:25] else line
        assert text.replace("\\|", "|") in html
    assert ATTACK not in card
    tables = re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE)
    assert len(tables) >= 7
    for table in tables:        # a pipe in the name of a slice is no border
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table
        assert set(table.splitlines()[1]) == {"|", "-"}


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
    assert [points(x) for x in (-0.053, 0.0, 0.0501)] == ["−5.3", "0.0", "+5.0"]
    assert [usd(x) for x in (0, 0.0004, 0.03, 1.234, 1234.5)] == ["$0.00", "< $0.001", "$0.0300", "$1.23", "$1,234.50"]
    assert [words(k) for k in ("peak_memory_bytes", "my_file.csv")] == ["peak memory", "my_file.csv"]


def test_names_of_models() -> None:
    assert in_order(["tuned", "z", "rival", "a", "base"]) == ["base", "rival", "z", "a", "tuned"]
    assert [called(name) for name in ("few_shot", "qwen3")] == ["Few-shot", "qwen3"]
    assert short_name("qwen3-1.7b-instruct-2507") == "qwen3-1.7b-instr…"
    assert short_name("/models/some/where/run-1/adapter") == "…re/run-1/adapter"
    assert [colour(name) for name in ("optimised_prompt", "https://host/v1#m")] == ["optimised-prompt", "other"]


def test_nobody_wins_by_a_metric_of_which_neither_end_is_good() -> None:
    entry = {"from": "base", "to": "tuned", "value": 3.0, "low": 1.0, "high": 5.0, "wins": 7, "losses": 2, "ties": 1}
    rows = difference_table({"differences": [entry | {"metric": "length"}, entry | {"metric": "token_f1"}]})
    assert {row["metric"]: (row["record"], row["sure"]) for row in rows} == {
        "length": ("", 0), "token_f1": ("7 / 2 / 1", 1)}


def test_what_one_safety_suite_lost_is_not_called_the_largest_of_several(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run", audit=True)
    assert "its being the largest of" in write_report(folder).read_text(encoding="utf-8")
    certificate = folder.read("certificate.json")
    one = next(shift for shift in certificate["safety"]["suites"] if shift["drop"])
    certificate["safety"] = {"suites": [one], "worst": one["suite"], "drop": one["drop"]}
    folder.write(certificate, "certificate.json")
    assert "its being the largest" not in write_report(folder).read_text(encoding="utf-8")
