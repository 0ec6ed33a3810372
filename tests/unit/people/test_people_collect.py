"""Collecting: different answers with where they came from; killed and run again it asks nothing twice."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripted import Scripted
from toy import tuneloop, write_jsonl
from tuneloop.data.load import Wanted, load
from tuneloop.data.versions.store import Store
from tuneloop.errors import UserError
from tuneloop.evaluation.cache import Cached
from tuneloop.people.collect import Asking, collect, unique
from tuneloop.people.questions import prompt_id, read_questions
from tuneloop.training.watch import Silent
from tuneloop.types import Completion, Message, Origin, Preference, Prompt, Request, Rollout, Sampling


def prompts(count: int) -> list[Prompt]:
    return [Prompt((Message("user", f"Question {i}?"),), (), Origin("q.jsonl", i + 1, f"{i:016x}"))
            for i in range(count)]


class Sampler(Scripted):
    """Answers with the temperature, and one of three texts by the seed."""

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Any = None) -> list[Completion]:
        self.requests += requests
        every = [sampling] * len(requests) if isinstance(sampling, Sampling) else sampling
        return [Completion(f"{self.name} says {how.seed % 3} at {how.temperature}" if how.seed % 7 else " ", (1, 2),
                           how.seed % 5 > 0, (-0.5, -1.5)) for how in every]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_answer_once_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    models = {"base": Sampler(name="base"), "tuned": Sampler(name="tuned")}
    found = collect(prompts(10), models, Asking(6, (0.7, 1.0), seed=3), tmp_path / "c.jsonl", Silent())
    rows = lines(tmp_path / "c.jsonl")
    assert len(rows) == found.prompts == 10
    for i, row in enumerate(rows):
        assert row["prompt"] == f"Question {i}?"
        assert (row["file"], row["line"], row["row"]) == ("q.jsonl", i + 1, f"{i:016x}")
        assert len(row["completions"]) == len(set(row["completions"])) == len(row["sampled"])
        same = sum(len(one["same"]) for one in row["sampled"])
        assert row["asked"] == 12 == len(row["completions"]) + same + row["empty"]
        for text, how in zip(row["completions"], row["sampled"], strict=True):
            assert text == f"{how['model']} says {how['seed'] % 3} at {how['temperature']}"
            assert how["logprobs"] == [-0.5, -1.5]
            assert how["token_ids"] == [1, 2]
            assert how["stopped"] == (how["seed"] % 5 > 0)
            assert all(one["model"] == how["model"] and one["seed"] != how["seed"] for one in how["same"])
    assert found.answers + found.same + found.empty == 120
    assert found.empty > 0
    assert "said nothing" in "\n".join(found.lines())
    assert [list(one.answers.values()) for one in read_questions(tmp_path / "c.jsonl")] == [
        row["completions"] for row in rows]


def test_training_reads_the_file_once_it_is_judged(tmp_path: Path) -> None:
    collect(prompts(6), {"base": Sampler(name="base")}, Asking(6, (0.5, 1.0)), tmp_path / "c.jsonl", Silent())
    for column, kind in (("rewards", Rollout), ("ranks", Preference)):
        write_jsonl(tmp_path / "judged.jsonl", [row | {column: list(range(len(row["completions"])))}
                                                for row in lines(tmp_path / "c.jsonl")])
        assert load("judged.jsonl", tmp_path, "judged.jsonl", Wanted(kind)).samples


def test_seeds_belong_to_prompts_and_not_to_their_place() -> None:
    how = Asking(4, seed=1)
    seeds = {prompt_id(one.prompt): [s.seed for s in how.samplings(prompt_id(one.prompt))] for one in prompts(50)}
    assert len({seed for of in seeds.values() for seed in of}) == 200
    assert Asking(8, seed=1).samplings("x")[:4] == Asking(4, seed=1).samplings("x")
    assert [s.temperature for s in Asking(4, (0.0, 1.0)).samplings("x")] == [0.0, 1.0, 1.0]     # greedy once is enough
    with pytest.raises(UserError, match="cannot have 2 temperatures"):
        Asking(1, (0.5, 1.0))


def test_fewer_prompts_are_among_more() -> None:
    every = prompts(40)
    few, more = unique(every, 10, 0), unique(every + every[:5], 20, 0)
    assert len(few) == 10
    assert len(more) == 20
    assert {one.origin for one in few} <= {one.origin for one in more}
    assert [one.origin.line for one in more] == sorted(one.origin.line for one in more)
    assert len(unique(every + every, None, 0)) == 40


def test_what_is_there_is_not_asked_again(tmp_path: Path) -> None:
    out, how = tmp_path / "c.jsonl", Asking(3)
    collect(prompts(5), {"base": Sampler(name="base")}, how, out, Silent())
    whole = out.read_bytes()
    out.write_bytes(whole[:-30])            # cut off while the last line was written
    model = Sampler(name="base")
    found = collect(prompts(8), {"base": model}, how, out, Silent())
    assert found.reused == 4
    assert {request.messages[0].content for request in model.requests} == {f"Question {i}?" for i in range(4, 8)}
    assert out.read_bytes()[:len(whole)] == whole
    again = Sampler(name="base")
    assert collect(prompts(8), {"base": again}, how, out, Silent()).reused == 8
    assert again.requests == []


def test_a_model_is_let_go_before_the_next_is_asked(tmp_path: Path) -> None:
    order: list[str] = []

    class Loud(Sampler):
        def generate(self, *args: Any, **options: Any) -> list[Completion]:
            order.append(self.name)
            return super().generate(*args, **options)

    models = {name: Cached(Loud(name=name), tmp_path / "cache") for name in ("a", "b")}
    collect(prompts(20), models, Asking(2), tmp_path / "c.jsonl", Silent(), lambda name: order.append(f"{name} goes"))
    assert order == ["a", "a", "a goes", "b", "b", "b goes"]


@pytest.mark.parametrize(("content", "says"), [("{broken\n", "line 1 is no line of collected"),
                                               ('{"prompt": "q", "completions": ["a"]}\n', "line 1 is no line"),
                                               ('{"id": "x", "settings": "other"}\n', "asked in another way")])
def test_another_file_is_not_written_into(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(UserError, match=says):
        collect(prompts(2), {"base": Sampler()}, Asking(), tmp_path / "c.jsonl", Silent())
    assert (tmp_path / "c.jsonl").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


# --- the command -----------------------------------------------------------------------------------------------------


def recipe(folder: Path, base: Path, rows: Sequence[dict[str, Any]], **data: Any) -> None:
    write_jsonl(folder / "rows.jsonl", rows)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({
        "base": str(base), "data": {"train": "rows.jsonl"} | data, "evaluation": {"max_new_tokens": 8}}))


@pytest.fixture
def at_home(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "versions"))
    return tmp_path


@pytest.mark.slow
def test_collect_from_the_command_line(at_home: Path, tiny_llama: Path) -> None:
    recipe(at_home, tiny_llama, [{"prompt": f"Where is order {i}?"} for i in range(6)])
    done = tuneloop("collect", "--n", "3", "--prompts", "4", "--name", "tries", "--json", cwd=at_home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prompts"] == 4
    rows = lines(at_home / "collected.jsonl")
    for row in rows:
        for text, how in zip(row["completions"], row["sampled"], strict=True):
            assert text.strip()
            assert len(how["token_ids"]) == len(how["logprobs"]) <= 8
            assert all(-40 < one <= 0 and math.isfinite(one) for one in how["logprobs"])
    store = Store(at_home / "versions")
    version = store.find("tries")
    assert version.id == found["version"]
    assert [row.values for row in store.rows(version)] == rows
    assert {(row.origin.file, row.origin.line) for row in store.rows(version)} == {
        (row["file"], row["line"]) for row in rows}
    assert version.steps[0]["fix"]["n"] == 3
    more = json.loads(tuneloop("collect", "--n", "3", "--json", cwd=at_home).stdout)
    assert (more["prompts"], more["reused"]) == (6, 4)


def test_rows_that_a_recipe_holds_out_are_not_collected(at_home: Path, tiny_llama: Path) -> None:
    from tuneloop.collecting import prompts_of
    from tuneloop.prepared import Prepared
    from tuneloop.recipe import load

    recipe(at_home, tiny_llama, [{"prompt": f"Where is order {i}?", "completion": f"It is at place {i}."}
                                 for i in range(40)], canaries=3)
    found = {one.prompt for one in prompts_of(load(at_home / "recipe.yaml"), None, None).prompts}
    rows = Prepared(load(at_home / "recipe.yaml", ["data.canaries=0"]), Silent()).rows
    assert found == {row.prompt for row in rows.train}
    assert not found & {row.prompt for row in rows.test}
    everything = prompts_of(load(at_home / "recipe.yaml"), str(at_home / "rows.jsonl"), None)
    assert len(everything.prompts) == 40


def test_prompts_of_a_file_that_is_held_out_are_not_collected(at_home: Path, tiny_llama: Path) -> None:
    from tuneloop.collecting import prompts_of
    from tuneloop.recipe import load

    write_jsonl(at_home / "test.jsonl", [{"prompt": "Where is order 1?"}])
    recipe(at_home, tiny_llama, [{"prompt": f"Where is order {i}?"} for i in range(3)], test="test.jsonl")
    found = prompts_of(load(at_home / "recipe.yaml"), None, None)
    assert [one.prompt[0].content for one in found.prompts] == ["Where is order 0?", "Where is order 2?"]


def test_what_cannot_be_asked_is_said(at_home: Path, tiny_llama: Path) -> None:
    from tuneloop.collecting import prompts_of
    from tuneloop.recipe import load

    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_jsonl(at_home / "chats.jsonl", [{"messages": chat, "tools": tools}, {"messages": chat}])
    recipe(at_home, tiny_llama, [{"prompt": "q"}])
    found = prompts_of(load(at_home / "recipe.yaml"), str(at_home / "chats.jsonl"), None)
    assert len(found.prompts) == 1
    assert found.notes == ["1 rows were left out: they offer tools, and answers that call them cannot be judged here"]
    write_jsonl(at_home / "answered.jsonl", [{"prompt": chat}, {"prompt": "q"}])
    with pytest.raises(UserError, match='line 1: "prompt" does not end with a user turn'):
        prompts_of(load(at_home / "recipe.yaml"), str(at_home / "answered.jsonl"), None)
    write_jsonl(at_home / "texts.jsonl", [{"text": "only words"}])
    with pytest.raises(UserError, match="no prompt that can be answered; 1 rows are plain text"):
        prompts_of(load(at_home / "recipe.yaml"), str(at_home / "texts.jsonl"), None)


@pytest.mark.parametrize(("words", "says"), [
    (["--temperature", "hot"], "no list of temperatures"), (["--temperature", "1,1"], "no list of temperatures"),
    (["--models", "base,base"], "base is named twice"), (["--out", "c.csv"], "no .jsonl file"),
    (["--models", "nowhere"], "nowhere"), (["--n", "1", "--temperature", "0.5,1"], "cannot have 2 temperatures")])
def test_options_in_error(at_home: Path, tiny_llama: Path, words: list[str], says: str) -> None:
    recipe(at_home, tiny_llama, [{"prompt": "q"}])
    done = tuneloop("collect", *words, cwd=at_home)
    assert done.returncode == 2
    assert says in done.stderr


KILLED = """
import os, sys
from tuneloop.people import collect
write = collect._append
def once(out, lines):
    write(out, lines)
    os.kill(os.getpid(), 9)
collect._append, collect.PROMPTS_AT_ONCE = once, 2
from tuneloop import cli
sys.argv[1:] = ["collect", "--n", "2"]
cli.main()
"""


@pytest.mark.slow
def test_killed_and_run_again_it_is_as_if_nothing_had_happened(at_home: Path, tiny_llama: Path) -> None:
    recipe(at_home, tiny_llama, [{"prompt": f"Where is order {i}?"} for i in range(5)])
    assert tuneloop("collect", "--n", "2", "--out", "whole.jsonl", cwd=at_home).returncode == 0
    for answers in (at_home / "cache").glob("answers.db*"):
        answers.unlink()
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=at_home, check=False, capture_output=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert killed.returncode == -9
    assert len(lines(at_home / "collected.jsonl")) == 2
    done = json.loads(tuneloop("collect", "--n", "2", "--json", cwd=at_home).stdout)
    assert done["reused"] == 2
    for row, whole in zip(lines(at_home / "collected.jsonl"), lines(at_home / "whole.jsonl"), strict=True):
        for one, other in zip(row["sampled"], whole["sampled"], strict=True):
            assert one.pop("logprobs") == pytest.approx(other.pop("logprobs"), abs=1e-4)    # of other batches
        assert row == whole
