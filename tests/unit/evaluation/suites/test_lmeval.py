"""The adapter to lm-eval, with a fake of the library. When this was written, the real one (0.4.13) took it as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.evaluation.suites.lmeval import Bench, language_model
from tuneloop.types import Message, Sampling


class FakeLM:
    """As `lm_eval.api.model.LM`: what evaluation reads of a model without having set it."""

    def __init__(self) -> None:
        self._rank, self._world_size, self.cache_hook = 0, 1, None


@dataclass
class Instance:
    args: tuple[Any, ...]
    doc_id: int = 0
    task_name: str = "mini"


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    def install(**attributes: Any) -> ModuleType:
        made = {name: ModuleType(name) for name in
                ("lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.evaluator", "lm_eval.tasks")}
        made["lm_eval.api.model"].LM = FakeLM  # type: ignore[attr-defined]
        for name, value in attributes.items():
            setattr(made["lm_eval.tasks" if name == "TaskManager" else "lm_eval.evaluator"], name, value)
        for name, module in made.items():
            monkeypatch.setitem(sys.modules, name, module)
        return made["lm_eval"]
    return install


@pytest.fixture
def model(lm_eval: Callable[..., ModuleType]) -> Any:
    lm_eval()
    backend = Scripted(lambda asked: f"said {asked}", likes=lambda asked, answer: -float(len(asked) + 10 * len(answer)))
    made = language_model(backend)
    made.backend = backend
    return made


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'tuneloop\[bench\]'"):
        Bench("arc_easy").run(Scripted())
    with pytest.raises(UserError, match="bench"):
        language_model(Scripted())


def test_it_is_an_lm_that_was_set_up(model: Any) -> None:
    assert isinstance(model, FakeLM)
    assert (model._rank, model._world_size) == (0, 1)
    assert model.tokenizer_name == "scripted:scripted"


def test_turns_survive_the_way_through_a_text(model: Any) -> None:
    turns = [{"role": "system", "content": 'be "brief"\n'}, {"role": "user", "content": "q {}"},
             {"role": "assistant", "content": "ä"}, {"role": "user", "content": "last"}]
    model.generate_until([Instance((model.apply_chat_template(turns), {}))])
    assert model.backend.requests[0].messages == tuple(Message(t["role"], t["content"]) for t in turns)
    with pytest.raises(UserError, match="gen_prefix"):
        model.apply_chat_template([*turns, {"role": "assistant", "content": "It is"}], add_generation_prompt=False)


def test_likelihoods_are_of_the_continuation_without_its_leading_space(model: Any) -> None:
    asked = [Instance(("ab", " xyz")), Instance(("ab", "x")), Instance((model.apply_chat_template(
        [{"role": "user", "content": "abcd"}]), "x"), doc_id=1)]
    assert model.loglikelihood(asked, disable_tqdm=True) == [(-32.0, False), (-12.0, False), (-14.0, False)]
    # only the single continuation was generated, to see whether it is the greedy one
    assert [request.messages[-1].content for request in model.backend.requests] == ["abcd"]


def test_a_single_continuation_is_greedy_if_generation_says_it(model: Any) -> None:
    asked = [Instance(("ab", " said ab"), doc_id=0), Instance(("ab", " said cd"), doc_id=1)]
    assert [greedy for _, greedy in model.loglikelihood(asked)] == [True, False]


def test_rolling_likelihoods_are_of_whole_texts(model: Any) -> None:
    assert model.loglikelihood_rolling([Instance(("abc",)), Instance(("",))]) == [-30.0, 0.0]


@pytest.mark.parametrize(("given", "sampling"), [
    ({}, Sampling(max_new_tokens=256)),
    ({"until": ["\n", ""], "max_gen_toks": 7}, Sampling(max_new_tokens=7, stop=("\n",))),
    ({"until": "Q:", "do_sample": False, "temperature": 0.7}, Sampling(stop=("Q:",))),
    ({"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5},
     Sampling(temperature=0.7, top_p=0.9, top_k=5)),
    ({"do_sample": True}, Sampling(temperature=1.0)),
])
def test_generation_arguments_are_translated(model: Any, given: dict[str, Any], sampling: Sampling,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    generate = model.backend.generate
    monkeypatch.setattr(model.backend, "generate", lambda requests, sampling, progress=None: (
        seen.extend(sampling), generate(requests, sampling))[1])
    assert model.generate_until([Instance(("hello", given))]) == ["said hello"]
    assert seen == [sampling]


def sample(doc: int, **metrics: Any) -> dict[str, Any]:
    return {"doc_id": doc, "filtered_resps": ["x"], "metrics": list(metrics)} | metrics


def test_a_suite_grades_each_document_by_its_task(lm_eval: Callable[..., ModuleType]) -> None:
    calls: list[dict[str, Any]] = []
    rising = {"acc": True, "acc_norm": True, "exact_match": True, "brier": False, "bits_per_byte": False, "f1": True}

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        calls.append(given)
        return {"samples": {
            "one": [sample(0, acc=0.0, acc_norm=1.0), sample(1, acc=1.0, acc_norm=0.0)],
            "two": [sample(0, exact_match=0.0), sample(0, exact_match=1.0), sample(1, brier=0.2, f1=0.5),
                    sample(2, brier=0.2), sample(3, bits_per_byte=(-20.0, 10))],
        }, "higher_is_better": {"one": rising, "two": rising}}

    lm_eval(simple_evaluate=simple_evaluate,
            TaskManager=lambda: SimpleNamespace(load=lambda name: {"tasks": {"one": "task 1", "two": "task 2"}}))
    bench = Bench("both")
    graded = bench.run(Scripted(), limit=9)
    assert bench.name == "lm-eval:both"
    assert [(item.id, item.part, item.score, item.why) for item in graded[:4]] == [
        ("one/0", "one", 1.0, "acc_norm"), ("one/1", "one", 0.0, "acc_norm"), ("two/0", "two", 0.0, "exact_match"),
        ("two/1", "two", 0.5, "f1")]
    assert graded[4].score != graded[4].score       # of the Brier score, less is better
    assert graded[5].score == pytest.approx(0.1353352832366127, rel=1e-12)      # exp(-2)
    [given] = calls
    assert (given["tasks"], given["limit"], given["apply_chat_template"]) == (["task 1", "task 2"], 4, True)
    assert isinstance(given["model"], FakeLM)


def test_a_task_that_cannot_be_loaded_is_named(lm_eval: Callable[..., ModuleType]) -> None:
    def load(name: str) -> dict[str, Any]:
        raise KeyError(f"no {name}")

    lm_eval(TaskManager=lambda: SimpleNamespace(load=load))
    with pytest.raises(UserError, match=r"cannot load the task nonsense: .*no nonsense"):
        Bench("nonsense").run(Scripted())
