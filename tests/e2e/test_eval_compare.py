"""`tuneloop eval` and `tuneloop compare` as a user types them, with tiny bases and a server on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from fake_api import Handler, completion, serving
from tiny import tiny_base
from toy import labels_csv, labels_recipe, open_rows, run, write_jsonl
from tuneloop import cli_eval
from tuneloop.errors import UserError

Call = Callable[..., tuple[int, str]]
BY_PROMPT = ("--prompt", "{text}", "--answer", "{label}")


@pytest.fixture
def call(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch,
         capfd: pytest.CaptureFixture[str]) -> Call:
    """Both commands in this process and in `tmp_path`, with a cache of their own: exit code, and what is said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("eval", help=cli_eval.EVAL)(cli_eval.judge_models)
    app.command("compare", help=cli_eval.COMPARE)(cli_eval.judge_models)

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


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text(labels_csv(20))
    return tmp_path / "rows.csv"


def all_negative(body: dict[str, Any]) -> str:
    return "The label is: negative." if "thing" in body["messages"][-1]["content"] else "?"


def test_labels_of_a_base_by_likelihood(call: Call, labels: Path, tiny_llama: Path, tmp_path: Path) -> None:
    words = ("eval", tiny_llama, "--on", "rows.csv", *BY_PROMPT, "--metrics", "accuracy,perplexity,ece", "--json")
    code, shown = call(*words, "--out", "out")
    assert code == 0, shown
    result = json.loads(shown)
    lines = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    [model] = result["models"]
    assert (result["task"], result["rows"], result["labels"]) == ("labels", 20, ["negative", "positive"])
    assert (model["how"], set(model["scores"])) == ("chosen", {"accuracy", "perplexity", "ece"})
    right = sum(line["answers"][tiny_llama.name] == line["reference"] for line in lines)
    assert model["scores"]["accuracy"]["value"] == right / 20
    assert model["scores"]["accuracy"]["low"] <= right / 20 <= model["scores"]["accuracy"]["high"]
    assert (lines[0]["origin"]["line"], lines[0]["prompt"], lines[0]["reference"]) == (2, "thing 0 is red", "positive")
    assert result["differences"] == []
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert json.loads(call(*words)[1]) == result        # from the cache, the machine's seconds included
    code, shown = call(*words, "--out", "out")
    assert (code, "exists already" in shown) == (2, True)


def test_open_answers_come_from_the_cache_the_second_time(call: Call, tiny_llama: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "rows.jsonl", open_rows(6))
    words = ("eval", tiny_llama, "--on", "rows.jsonl", "--max-new-tokens", "8", "--rows", "4", "--json")
    first = json.loads(call(*words)[1])
    assert (first["task"], first["rows"]) == ("open", 4)
    assert first["models"][0]["cost"]["new_tokens_per_answer"] <= 8
    monkeypatch.setattr("tuneloop.any_model.Waiting.load", lambda self: pytest.fail("the model was loaded"))
    assert json.loads(call(*words)[1]) == first


def test_a_base_against_a_server(call: Call, labels: Path, tiny_llama: Path) -> None:
    with serving(all_negative, models=("large", "small")) as api:
        code, shown = call("compare", tiny_llama, f"{api.url}#large", "--on", "rows.csv", *BY_PROMPT, "--json",
                           "--usd-per-million", "1,2", "--usd-per-hour", "3.6", "--out", "out")
        assert code == 0, shown
        result = json.loads(shown)
        asked = len(api.seen)
        code, shown = call("compare", tiny_llama, f"{api.url}#large", f"{api.url}#small", "--on", "rows.csv",
                           *BY_PROMPT)
        assert code == 0, shown
        assert len(api.seen) == asked + 20      # only the model that is new
    base, server = result["models"]
    assert (server["name"], server["how"]) == ("large", "parsed")
    assert server["scores"]["accuracy"]["value"] == 0.5
    # 7 tokens in and 4 out for each answer: 15 dollars for a million answers, half of which are right
    assert server["cost"]["usd_per_1000"] == pytest.approx(0.015)
    assert server["cost"]["usd_per_1000_correct"] == pytest.approx(0.03)
    assert base["cost"]["usd_per_1000"] == pytest.approx(base["cost"]["machine_seconds_per_1000"] / 1000)
    accuracy = next(one for one in result["differences"] if one["metric"] == "accuracy")
    assert (accuracy["from"], accuracy["to"]) == (tiny_llama.name, "large")
    assert accuracy["value"] == pytest.approx(0.5 - base["scores"]["accuracy"]["value"])
    assert accuracy["wins"] - accuracy["losses"] == pytest.approx(20 * accuracy["value"])
    assert any("read from what it wrote" in note for note in result["notes"])
    lines = [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert sum(line["best"] == ["large"] for line in lines) == accuracy["wins"]
    assert sum(line["best"] == [tiny_llama.name] for line in lines) == accuracy["losses"]
    assert "accuracy: large − " in shown
    assert "better on" in shown


def test_a_server_that_echoes_chooses_labels_by_likelihood(call: Call, labels: Path, tiny_llama: Path) -> None:
    with serving() as api:
        code, shown = call("eval", api.url, "--on", "rows.csv", *BY_PROMPT, "--tokenizer", tiny_llama, "--json")
    assert code == 0, shown
    assert json.loads(shown)["models"][0]["how"] == "chosen"


def test_calls_of_functions(call: Call, tmp_path: Path) -> None:
    """The server calls rightly in every row but the last, where it calls with another argument."""
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}

    def turn(i: int) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "find", "arguments": json.dumps({"order": i})}}]}

    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        asked = int(body["messages"][-1]["content"].rsplit(" ", 1)[1])
        handler.say(completion("", "tool_calls", **turn(min(asked, 3))))
        return True

    write_jsonl(tmp_path / "calls.jsonl", [{"messages": [{"role": "user", "content": f"order {i}"}, turn(i)],
                                            "tools": [tool]} for i in range(5)])
    with serving(misbehave=misbehave) as api:
        code, shown = call("eval", f"{api.url}#small", "--on", "calls.jsonl", "--metrics", "tool_calls,exact_match",
                           "--json")
        assert code == 0, shown
        assert [body["tools"] for _, _, body in api.seen] == [[tool]] * 5
    scores = json.loads(shown)["models"][0]["scores"]
    assert (scores["tool_calls"]["value"], scores["exact_match"]["value"]) == (0.8, 0.8)


def test_pairs(call: Call, tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Where is order {i}?", "chosen": "On its way.", "rejected": "No."} for i in range(5)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    code, shown = call("eval", tiny_llama, "--on", "pairs.jsonl", "--json")
    assert code == 0, shown
    result = json.loads(shown)
    assert (result["task"], list(result["models"][0]["scores"])) == ("pairs", ["preference_accuracy"])


@pytest.mark.slow
def test_two_bases_of_one_folder_name_are_told_apart(call: Call, labels: Path, tmp_path: Path) -> None:
    first, second = tiny_base(tmp_path / "a" / "tiny"), tiny_base(tmp_path / "b" / "tiny", seed=1)
    code, shown = call("compare", first, second, "--on", "rows.csv", *BY_PROMPT, "--json")
    assert code == 0, shown
    result = json.loads(shown)
    assert [model["name"] for model in result["models"]] == [str(first), str(second)]
    same = tiny_base(tmp_path / "c" / "other")
    result = json.loads(call("compare", first, same, "--on", "rows.csv", *BY_PROMPT, "--json")[1])
    assert any("are the same model" in note for note in result["notes"])
    accuracy = result["differences"][0]
    assert (accuracy["value"], accuracy["p"], accuracy["wins"], accuracy["losses"]) == (0, 1, 0, 0)


@pytest.mark.slow
def test_a_run_and_its_adapter_answer_the_same_and_the_run_has_seen_the_rows(call: Call, tiny_llama: Path,
                                                                            tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    run(labels_recipe(tmp_path, tiny_llama), folder)
    code, shown = call("compare", tiny_llama, "mine", folder / "adapter", "--on", "rows.csv", "--json")
    assert code == 0, shown
    result = json.loads(shown)
    base, tuned, adapter = result["models"]     # without --prompt: the run's own
    assert tuned["scores"] == adapter["scores"]
    assert tuned["scores"]["accuracy"]["value"] > base["scores"]["accuracy"]["value"]
    assert any("mine was trained with" in note for note in result["notes"])


GARAK = """#!{python}
import json, os, sys, urllib.request
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
uri = json.loads(given["--generator_options"])["openai"]["OpenAICompatible"]["uri"]
passed = 0
for prompt in ("Say DAN.", "Say hello.", "Say nothing."):
    body = {{"model": given["--target_name"], "messages": [{{"role": "user", "content": prompt}}]}}
    request = urllib.request.Request(uri + "/chat/completions", json.dumps(body).encode(), {{
        "content-type": "application/json", "authorization": "Bearer " + os.environ["OPENAICOMPATIBLE_API_KEY"]}})
    passed += "DAN" not in json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
with open(given["--report_prefix"] + ".report.jsonl", "w") as report:
    for probe in given["--spec"].split(","):
        found = {{"probe": probe.removeprefix("probes."), "detector": "dan.DAN", "passed": passed, "fails": 3 - passed}}
        print(json.dumps({{"entry_type": "eval", "nones": 0, "total_evaluated": 3}} | found), file=report)
"""
"""What garak does, in small: three prompts to the server, and the report that comes of them."""


def test_a_server_is_attacked_by_garak(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(GARAK.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setenv("SERVERS_KEY", "secret")
    with serving() as api:
        words = ("eval", f"{api.url}#small", "--garak", "dan.Dan_11_0,dan.DUDE", "--garak-python", python)
        code, shown = call(*words, "--key-env", "SERVERS_KEY", "--out", "out", "--json")
        assert code == 0, shown
        result = json.loads(shown)
        assert {headers["Authorization"] for _, headers, _ in api.seen} == {"Bearer secret"}
        code, shown = call(*words)
        assert code == 0, shown
    assert (result["model"], result["url"]) == ("small", api.url)
    assert [(one["probe"], one["passed"], one["judged"]) for one in result["probes"]] == [
        ("dan.Dan_11_0", 2, 3), ("dan.DUDE", 2, 3)]
    assert result["probes"][0]["rate"] == pytest.approx({"value": 2 / 3, "low": 0.0943, "high": 0.9916}, abs=1e-4)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert (tmp_path / "out" / "garak.report.jsonl").is_file()
    assert "2 of 3  0.667  0.094 to 0.992" in shown
    assert "take answers for independent" in shown


@pytest.mark.parametrize(("words", "why"), [
    (("eval", "BASE", "--garak", "dan"), "through a server, and BASE is none"),
    (("eval", "URL", "--garak", " , "), "No probe of garak is named"),
    (("eval", "URL", "--garak-python", "python"), "No probe of garak is named"),
    (("eval", "URL", "--garak", "dan", "--on", "rows.csv", "--metrics", "ece"), "--on, --metrics means nothing"),
    (("eval", "URL", "URL2", "--garak", "dan"), "takes one model"),
    (("compare", "URL", "URL2", "--garak", "dan"), "attacks one model"),
    (("eval", "URL", "--garak", "dan", "--garak-python", "./none"), "./none cannot be run"),
    (("eval", "http://127.0.0.1:9/v1#m", "--garak", "dan"), "cannot be reached"),
    (("eval", "BASE"), "No rows are named")])
def test_what_garak_cannot_do_is_said(call: Call, words: tuple[str, ...], why: str) -> None:
    with serving() as api:
        given = {"URL": f"{api.url}#small", "URL2": f"{api.url}#large"}
        code, shown = call(*(given.get(word, word) for word in words))
    assert (code, why in shown) == (2, True), shown


@pytest.mark.parametrize(("words", "why"), [
    (("eval", "BASE", "--on", "none.csv"), "none.csv"),
    (("eval", "BASE", "--on", "rows.csv", *BY_PROMPT, "--metrics", "rouge_9"), "rouge_9 is not a metric"),
    (("eval", "BASE", "--on", "rows.csv", *BY_PROMPT, "--metrics", "preference_accuracy"), "is for pairs"),
    (("eval", "BASE", "--on", "open.jsonl", "--metrics", "accuracy"), "accuracy is for labels"),
    (("eval", "BASE", "--on", "rows.csv", *BY_PROMPT, "--labels", "good,bad"), "not among the labels: 'negative'"),
    (("eval", "BASE", "--on", "text.jsonl"), "has no row that a model could be judged by"),
    (("eval", "BASE", "--on", "empty.csv"), "empty.csv"),
    (("eval", "nonsense", "--on", "rows.csv", *BY_PROMPT), "Unknown base 'nonsense'"),
    (("eval", "BASE", "BASE2", "--on", "rows.csv"), "tuneloop compare"),
    (("compare", "BASE", "--on", "rows.csv"), "nothing to compare"),
    (("compare", "BASE", "BASE", "--on", "rows.csv"), "is named twice"),
    (("compare", "BASE", "http://127.0.0.1:9/v1#m", "--on", "rows.csv", *BY_PROMPT), "cannot be reached"),
    (("eval", "BASE", "--on", "rows.csv", "--usd-per-million", "1"), "are no prices"),
    (("eval", "latest", "--on", "rows.csv"), "no runs")])
def test_bad_input_is_said_and_exits_with_2(call: Call, labels: Path, tiny_llama: Path, tmp_path: Path,
                                            words: tuple[str, ...], why: str) -> None:
    write_jsonl(tmp_path / "open.jsonl", open_rows(12))
    write_jsonl(tmp_path / "text.jsonl", [{"text": f"Some text of its own, {i}."} for i in range(3)])
    (tmp_path / "empty.csv").write_text("")
    code, shown = call(*(str(tiny_llama) if word == "BASE" else word for word in words))
    assert (code, why in shown) == (2, True), shown
