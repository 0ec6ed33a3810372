"""Scoring equals the model's own logits, generation in batches equals one by one, and labels are chosen by both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import exact
from tiny import tiny_base
from tuneloop.compute import model as wrapping
from tuneloop.compute.check import Packing
from tuneloop.compute.model import ForestModel, to_batch
from tuneloop.compute.packing import build_forest
from tuneloop.data.render import render
from tuneloop.evaluation.answers import with_likelihood
from tuneloop.evaluation.asking import ask
from tuneloop.inference import local as local_models
from tuneloop.inference.engine import stop_ids
from tuneloop.inference.local import Local, generate
from tuneloop.inference.score import Score, score
from tuneloop.models.load import load_model
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Message, Origin, Rendered, Request, Sampling

ROWS = exact.sharing_rows()
LABELS = ["positive", "negative", "neutral"]
QUESTIONS = ["Is it good?", "The plot is thin, the jokes are old.", "A rich film", "My order has not arrived yet", "?",
             "The ending is worse than the beginning. What can I do about it?"]
REQUESTS = [Request((Message("user", question),)) for question in QUESTIONS]
CLOSE = 1e-4        # below this gap between the two best tokens, greedy decoding may go either way


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    return load_model(tiny_llama, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> ChatTokenizer:
    return ChatTokenizer(tiny_llama)


def asked(question: str, answer: str = "") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), Origin("rows.csv", 1))


def rows_of(questions: list[str], answers: list[str], tokenizer: ChatTokenizer) -> list[Rendered]:
    found = render([asked(q, a) for q, a in zip(questions, answers, strict=True)], tokenizer)
    return [r for r in found if isinstance(r, Rendered)]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [1, 90, 10_000])
def test_scores_equal_the_models_logits(model: Any, share: bool, budget: int) -> None:
    finished: list[int] = []
    got = score(ForestModel(model), ROWS, token_budget=budget, share=share, progress=finished.append)
    with torch.no_grad():
        wanted = [w.double() for w in exact.plain_logprobs(model, ROWS)]
    assert got.total == pytest.approx([float(w.sum()) for w in wanted], abs=1e-4)
    assert got.without_end == pytest.approx([float(w[:-1].sum()) for w in wanted], abs=1e-4)
    assert sum(finished) == len(ROWS)


def test_scores_row_by_row_are_the_same(model: Any) -> None:
    forest = score(ForestModel(model), ROWS, token_budget=200, share=True)
    rows = score(ForestModel(model, "rows"), ROWS, token_budget=200, share=False)
    assert forest.total == pytest.approx(rows.total, abs=1e-4)
    assert forest.without_end == pytest.approx(rows.without_end, abs=1e-4)


def test_scoring_leaves_the_model_in_its_mode(model: Any) -> None:
    wrapper = ForestModel(model).train()
    score(wrapper, ROWS[:1], token_budget=200, share=True)
    assert wrapper.training
    assert model.training
    score(ForestModel(model.eval()), ROWS[:1], token_budget=200, share=True)
    assert not model.training


def first_close_call(model: Any, prompt: list[int], ids: tuple[int, ...]) -> int:
    """How many tokens of a greedy answer are beyond doubt: those before the first with two nearly equal choices."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1:-1]
    best = logits.topk(2).values
    close = torch.nonzero(best[:, 0] - best[:, 1] < CLOSE).flatten().tolist()
    return close[0] if close else len(ids)


@pytest.mark.parametrize("family", ["llama", "gpt2"])      # rotary and learned positions
def test_answers_in_batches_equal_those_one_by_one(family: str, tmp_path: Path) -> None:
    """Padding on the left moves nothing."""
    folder = tiny_base(tmp_path, family, tie_word_embeddings=False)     # a tied random base repeats its last token
    model, tokenizer = load_model(folder, dtype=torch.float32), ChatTokenizer(folder)
    prompts = [asked(f"{q} {i}").prompt for i in range(3) for q in QUESTIONS]
    finished: list[int] = []
    together = generate(model, tokenizer, prompts, Sampling(max_new_tokens=12), progress=finished.append)
    assert sum(finished) == len(prompts)
    for prompt, got in zip(prompts, together, strict=True):
        alone = generate(model, tokenizer, [prompt], Sampling(max_new_tokens=12))[0]
        ids = tokenizer.encode([tokenizer.prompt_text(prompt)])[0]
        sure = first_close_call(model, ids, alone.token_ids)
        assert got.token_ids[:sure] == alone.token_ids[:sure]
        if sure == len(alone.token_ids) == len(got.token_ids):
            assert got == alone
    assert len({c.token_ids for c in together}) > 5


def test_greedy_answers_are_the_models_best_tokens(model: Any, tokenizer: ChatTokenizer) -> None:
    prompt = asked("Is it good?").prompt
    ids = tokenizer.encode([tokenizer.prompt_text(prompt)])[0]
    got = generate(model, tokenizer, [prompt], Sampling(max_new_tokens=8))[0]
    with torch.no_grad():
        for n, token in enumerate(got.token_ids):
            logits = model(input_ids=torch.tensor([[*ids, *got.token_ids[:n]]])).logits[0, -1]
            assert logits.max() - logits[token] < CLOSE
    assert got.text == tokenizer.decode(got.token_ids, special=False).strip()
    assert got.stopped == (len(got.token_ids) < 8)


def test_an_answer_ends_where_the_turn_ends(tmp_path: Path) -> None:
    """A base made to answer with the end of turn at once, and one made never to: one row of its head is not zero."""
    folder = tiny_base(tmp_path, tie_word_embeddings=False)
    model: Any = load_model(folder, dtype=torch.float32)
    tokenizer = ChatTokenizer(folder)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.model.norm.register_forward_hook(lambda module, args, out: torch.ones_like(out))
    with torch.no_grad():
        model.lm_head.weight[tokenizer.end_of_turn_id] = 1
    got = generate(model, tokenizer, [asked("a").prompt, asked("b c d e").prompt], Sampling(max_new_tokens=5))
    assert [(c.text, c.token_ids, c.stopped) for c in got] == [("", (), True)] * 2
    with torch.no_grad():
        model.lm_head.weight[tokenizer.end_of_turn_id] = 0
        model.lm_head.weight[65] = 1
    got = generate(model, tokenizer, [asked("a").prompt], Sampling(max_new_tokens=5))
    assert [(c.token_ids, c.stopped) for c in got] == [((65,) * 5, False)]


def test_what_the_base_stops_at_stops_us_too(model: Any, tokenizer: ChatTokenizer,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.generation_config, "eos_token_id", [5, 6])
    assert stop_ids(model, tokenizer) == {5, 6, tokenizer.end_of_turn_id}
    monkeypatch.setattr(model.generation_config, "eos_token_id", 5)
    assert stop_ids(model, tokenizer) == {5, tokenizer.end_of_turn_id}
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    assert stop_ids(model, tokenizer) == {tokenizer.end_of_turn_id}


def test_sampling_repeats_with_its_seed(model: Any, tokenizer: ChatTokenizer) -> None:
    prompts = [asked(q).prompt for q in QUESTIONS]
    one, two, other = (generate(model, tokenizer, prompts, Sampling(12, temperature=1.0, seed=s)) for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_nothing_asked_nothing_answered(model: Any, tokenizer: ChatTokenizer) -> None:
    assert generate(model, tokenizer, [], Sampling()) == []


def label_sums(model: Any, tokenizer: ChatTokenizer, question: str, label: str) -> tuple[float, float]:
    """Sum of the label's log-probs by the model's own logits, with and without the end of turn."""
    row = rows_of([question], [label], tokenizer)[0]
    with torch.no_grad():
        found = exact.plain_logprobs(model, [row])[0].double()
    return float(found.sum()), float(found[:-1].sum())


@pytest.mark.parametrize("share", [True, False])
def test_the_most_likely_label_is_chosen(model: Any, tokenizer: ChatTokenizer, share: bool) -> None:
    references = [LABELS[i % 3] for i in range(len(QUESTIONS))]
    rows = rows_of(QUESTIONS, references, tokenizer)
    finished: list[int] = []
    local = Local(model, tokenizer, packing=Packing("forest" if share else "rows", share, ""), token_budget=150)
    got = ask(local, REQUESTS, references, LABELS, progress=finished.append).answers
    sums = [[label_sums(model, tokenizer, q, label) for label in LABELS] for q in QUESTIONS]
    assert got.texts == [LABELS[int(np.argmax([without for _, without in s]))] for s in sums]
    assert got.nll == pytest.approx([-s[LABELS.index(r)][0] for s, r in zip(sums, references, strict=True)], abs=1e-4)
    assert got.tokens == [row.supervised for row in rows]
    assert (got.name, got.stopped) == ("base", None)
    assert sum(finished) == len(rows)


def test_a_label_that_begins_another_is_told_apart_by_its_end(model: Any, tokenizer: ChatTokenizer) -> None:
    """Without the end of the turn the shorter one would always win: it is part of the longer one."""
    labels = ["positive", "positive positive"]
    got = ask(Local(model, tokenizer), REQUESTS, [labels[0]] * len(QUESTIONS), labels).answers
    sums = [[label_sums(model, tokenizer, q, label) for label in labels] for q in QUESTIONS]
    assert all(short > long for (_, short), (_, long) in sums)
    assert got.texts == [labels[int(np.argmax([total for total, _ in s]))] for s in sums]


@pytest.mark.parametrize(("labels", "chosen"), [(["positive", "positive positive"], "positive positive"),
                                                (["positive", "negative"], "positive")])
def test_the_end_of_turn_counts_only_where_one_label_begins_another(
        labels: list[str], chosen: str, model: Any, tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first label is likelier without its end of turn, and the second with it."""
    monkeypatch.setattr(local_models, "score", lambda *args, **kwargs: Score(np.array([-9.0, -2.0]),
                                                                             np.array([-1.0, -1.5])))
    got = ask(Local(model, tokenizer), REQUESTS[:1], labels[:1], labels).answers
    assert (got.texts, got.nll) == ([chosen], [9.0])


def test_written_answers_come_with_the_likelihood_of_the_reference(model: Any, tokenizer: ChatTokenizer) -> None:
    turns = (Message("user", "a?"), Message("assistant", "one"), Message("user", "b?"), Message("assistant", "two"))
    conversations = [asked("Is it good?", "positive"), Conversation(turns, Origin("rows.csv", 2))]
    rows = [r for r in render(conversations, tokenizer) if isinstance(r, Rendered)]
    written = ask(Local(model, tokenizer), [Request(c.prompt) for c in conversations], ["positive", "two"],
                  sampling=Sampling(max_new_tokens=4), likelihood=False).answers
    got = with_likelihood(written, ForestModel(model), rows, token_budget=500, share=True)
    completions = generate(model, tokenizer, [c.prompt for c in conversations], Sampling(max_new_tokens=4))
    assert got.texts == [c.text for c in completions]
    assert got.stopped == [c.stopped for c in completions]
    last = len(tokenizer.encode(["two<|im_end|>"])[0])
    assert got.tokens == [rows[0].supervised, last]     # of many turns only the last is the answer
    with torch.no_grad():
        wanted = exact.plain_logprobs(model, rows)
    assert got.nll == pytest.approx([-float(wanted[0].sum()), -float(wanted[1][-last:].sum())], abs=1e-4)


def test_a_reward_needs_no_vocabulary(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scores with and without log-probs; without them the head over the vocabulary is not computed."""
    wrapper = ForestModel(load_model(tiny_llama, dtype=torch.float32), scalar=torch.nn.Linear(32, 1, bias=False))
    batch = to_batch(build_forest(exact.sharing_rows(), keep_last=True))
    both = wrapper(batch, frozenset({"scores", "logprobs"}))
    monkeypatch.setattr(wrapping, "reduce_head", None)
    alone = wrapper(batch, frozenset({"scores"}))
    assert torch.equal(alone.scores, both.scores)
    assert alone.logprobs.isnan().all()
    assert both.logprobs.isfinite().all()
