"""Cuts are those of transformers, draws follow the probabilities, and texts end where they should."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_base
from tuneloop.errors import UserError
from tuneloop.inference.constraint import Guide
from tuneloop.inference.local import PAIRS_TRIED, Local, rows_to_score
from tuneloop.inference.sampling import Chooser, choose, shares
from tuneloop.inference.text import TextSoFar
from tuneloop.models.load import load_model
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Constraint, Message, Request, Sampling

LOGITS = torch.randn(50, generator=torch.Generator().manual_seed(3)) * 2
ASK = Request((Message("user", "Is it good?"),))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tiny_base(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False)
    return Local(load_model(folder, dtype=torch.float32), ChatTokenizer(folder))


@pytest.fixture(scope="module")
def tokenizer(local: Local) -> ChatTokenizer:
    return local.tokenizer


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=0.7), Sampling(temperature=1.0, top_k=5), Sampling(temperature=2.0, top_p=0.6),
    Sampling(temperature=1.5, min_p=0.2), Sampling(temperature=1.5, top_k=20, top_p=0.9, min_p=0.05),
    Sampling(temperature=1.0, top_p=1e-9), Sampling(temperature=1.0, top_k=1)])
def test_cuts_are_those_of_transformers(sampling: Sampling) -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    theirs = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        theirs.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        theirs.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        theirs.append(MinPLogitsWarper(sampling.min_p))
    wanted = theirs(torch.zeros(1, 1, dtype=torch.long), LOGITS.double().unsqueeze(0))[0].softmax(-1)
    ids, probabilities = shares(LOGITS, sampling)
    got = torch.zeros(50, dtype=torch.float64)
    got[ids] = probabilities / probabilities.sum()
    assert torch.allclose(got, wanted, atol=1e-12)


def test_draws_follow_the_probabilities() -> None:
    sampling = Sampling(temperature=1.0, top_k=4)
    ids, probabilities = shares(LOGITS, sampling)
    counts = Counter(Chooser(replace(sampling, seed=seed)).choose(LOGITS) for seed in range(4000))
    assert set(counts) == set(ids.tolist())
    for token, probability in zip(ids.tolist(), (probabilities / probabilities.sum()).tolist(), strict=True):
        error = (probability * (1 - probability) / 4000) ** 0.5
        assert counts[token] / 4000 == pytest.approx(probability, abs=4 * error)


def test_greedy_is_the_best_token_with_its_log_prob() -> None:
    [got] = choose(LOGITS.unsqueeze(0), [Chooser(Sampling(top_logprobs=2))])
    assert got.token == int(LOGITS.argmax())
    assert got.logprob == pytest.approx(float(LOGITS.log_softmax(-1).max()))
    assert got.top[0] == (got.token, pytest.approx(got.logprob))


@pytest.mark.parametrize("text", [
    "A rich film 🎬 with naïve Ärzte", "1 2 3\n\n\tdef add(a, b):", "日本語のテキスト", "é" * 9])
def test_pieces_make_the_text(text: str, tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode([text])[0]
    so_far, pieces = TextSoFar(tokenizer), []
    for token in ids:
        so_far.add(token)
        pieces.append(so_far.piece())
    so_far.close()
    pieces.append(so_far.piece(last=True))
    assert "".join(pieces) == so_far.text == tokenizer.decode(ids, special=False)
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_is_shown_at_the_end_alone(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode(["🎬"])[0]
    assert len(ids) > 1
    so_far = TextSoFar(tokenizer)
    for token in ids[:-1]:
        so_far.add(token)
    assert so_far.piece() == ""
    so_far.close()
    assert so_far.piece(last=True) == so_far.text == tokenizer.decode(ids[:-1], special=False)


def test_a_stop_is_never_shown(tokenizer: ChatTokenizer) -> None:
    so_far, pieces = TextSoFar(tokenizer, ["END", "\n\n"]), []
    for token in tokenizer.encode(["the E the EN is the END of it"])[0]:
        so_far.add(token)
        pieces.append(so_far.piece())
        if so_far.stopped:
            break
    assert so_far.stopped
    assert "".join(pieces) == so_far.text == "the E the EN is the "


def test_answers_end_before_a_stop(local: Local) -> None:
    [whole] = local.generate([ASK], Sampling(12))
    stop = whole.text[3:5]
    assert stop.strip()
    [cut] = local.generate([ASK], Sampling(12, stop=(stop,)))
    assert cut.stopped
    assert cut.text == whole.text[:whole.text.index(stop)].strip()
    assert len(cut.token_ids) < len(whole.token_ids)


def test_every_part_of_an_answer_can_stop_it(local: Local) -> None:
    """Across tokens' borders, in a stream and at once; an empty stop stops nothing."""
    [whole] = local.generate([ASK], Sampling(12))
    text = local.tokenizer.decode(whole.token_ids, special=False)
    for start in range(1, len(text)):
        for length in (1, 3, len(text)):
            stop = text[start:start + length]
            sampling, before = Sampling(12, stop=(stop,)), text[:text.index(stop)]
            *pieces, last = local.stream(ASK, sampling)
            assert isinstance(last, Completion)
            assert "".join(map(str, pieces)) == before
            assert (last.text, last.stopped) == (before.strip(), True)
            assert [last] == local.generate([ASK], sampling)
    assert local.generate([ASK], Sampling(12, stop=("",))) == [whole]
    assert local.generate([ASK], Sampling(12, stop=(text,)))[0].text == ""


def test_a_stream_is_the_answer(local: Local) -> None:
    [wanted] = local.generate([ASK], Sampling(12))
    *pieces, last = local.stream(ASK, Sampling(12))
    assert last == wanted
    assert "".join(piece for piece in pieces if isinstance(piece, str)).strip() == wanted.text
    assert len(pieces) > 3


def test_a_closed_stream_leaves_the_batch(local: Local) -> None:
    stream: Any = local.stream(ASK, Sampling(12))
    next(stream)
    assert local.engine.busy
    stream.close()
    assert not local.engine.busy


@pytest.mark.parametrize(("constraint", "holds"), [
    (Constraint(choices=("positive", "negative")), lambda text: text in ("positive", "negative")),
    (Constraint(regex="[0-9]{3}-[a-c]{2}"), lambda text: len(text) == 6 and text[3] == "-"),
    (Constraint(json_schema='{"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, '
                            '"required": ["n"], "additionalProperties": false}'),
     lambda text: 0 <= __import__("json").loads(text)["n"] <= 9),
])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_keep_to_their_constraint(constraint: Constraint, holds: Any, temperature: float, local: Local) -> None:
    pytest.importorskip("llguidance")
    requests = [ASK, Request((Message("user", "What?"),))]
    free = Sampling(30)
    sampling = Sampling(60, temperature=temperature, constraint=constraint)
    first, second, other = local.generate([*requests, ASK], [sampling, replace(sampling, seed=1), free])
    assert holds(first.text)
    assert holds(second.text)
    assert first.stopped
    assert other == local.generate([ASK], free)[0]      # who is free in the same batch stays free


@pytest.mark.parametrize(("constraint", "said"), [
    (Constraint(choices=("yes", "yes please", "né “q” \\ \n日本")), {"yes", "yes please", "né “q” \\ \n日本"}),
    (Constraint(regex="(ab)?"), {"", "ab"}), (Constraint(choices=("", "a")), {"", "a"}),
    (Constraint(choices=("a", "a")), {"a"})])
def test_answers_that_begin_others_and_no_answer_at_all(constraint: Constraint, said: set[str], local: Local) -> None:
    pytest.importorskip("llguidance")
    found = set()
    for seed in range(25):
        sampling = Sampling(60, temperature=2.5, seed=seed, constraint=constraint)
        [got] = local.generate([ASK], sampling)
        assert got.stopped
        assert [got] == local.generate([ASK], sampling)
        assert "es" not in local.generate([ASK], replace(sampling, stop=("es",)))[0].text
        found.add(got.text)
    assert found <= said
    assert len(found) >= min(len(said), 2)


def test_a_constraint_may_need_more_than_there_is_room_for(local: Local) -> None:
    pytest.importorskip("llguidance")
    [got] = local.generate([ASK], Sampling(3, constraint=Constraint(regex="[ab]{40}")))
    assert (set(got.text) <= {"a", "b"}, len(got.token_ids), got.stopped) == (True, 3, False)


def test_more_top_log_probs_than_tokens() -> None:
    [got] = choose(LOGITS.unsqueeze(0), [Chooser(Sampling(top_logprobs=1000))])
    assert len(got.top) == 50


@pytest.mark.parametrize(("constraint", "said"), [
    (Constraint(json_schema="{"), "cannot be read"), (Constraint(), "names nothing"),
    (Constraint(regex="a", choices=("b",)), "regex and choices"), (Constraint(regex="(a"), "cannot be"),
    (Constraint(json_schema='{"type": "thing"}'), "cannot be"),
])
def test_what_is_no_constraint(constraint: Constraint, said: str, tokenizer: ChatTokenizer) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(UserError) as caught:
        Guide(constraint, tokenizer, 384)
    assert said in caught.value.text


def test_scores_are_those_of_the_rows(local: Local) -> None:
    """By hand from the model's own forward."""
    requests = [ASK, ASK, Request((Message("user", "What?"),))]
    answers = ["positive", "negative film", "positive"]
    got = local.score(requests, answers)
    for request, answer, scored in zip(requests, answers, got, strict=True):
        prompt = local.tokenizer.encode([local.tokenizer.prompt_text(request.messages)])[0]
        full = local.tokenizer.encode([local.tokenizer.full_text([*request.messages, Message("assistant", answer)])])[0]
        end = full.index(local.tokenizer.end_of_turn_id, len(prompt)) + 1
        with torch.no_grad():
            logprobs = local.model(input_ids=torch.tensor([full[:end]])).logits[0].log_softmax(-1)
        each = [float(logprobs[i - 1, full[i]]) for i in range(len(prompt), end)]
        assert scored.total == pytest.approx(sum(each), abs=1e-4)
        assert scored.without_end == pytest.approx(sum(each[:-1]), abs=1e-4)
        assert scored.tokens == len(each)


def through_template(request: Request, answer: str, tokenizer: ChatTokenizer) -> list[int]:
    """By the texts: all that the template makes of it, up to the end of the answer's turn."""
    ids = tokenizer.encode([tokenizer.full_text([*request.messages, Message("assistant", answer)])])[0]
    return ids[:len(ids) - ids[::-1].index(tokenizer.end_of_turn_id)]


def test_requests_and_answers_go_through_the_template_once(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Request((Message("user", f"{i} My order has not arrived yet"),)) for i in range(20)]
    labels = [f"label {i}" for i in range(15)]
    requests, answers = [r for r in asked for _ in labels], labels * len(asked)
    wanted = [through_template(r, a, local.tokenizer) for r, a in zip(requests, answers, strict=True)]
    rendered = []
    template = ChatTokenizer.full_text
    monkeypatch.setattr(ChatTokenizer, "full_text", lambda *args: rendered.append(1) or template(*args))
    rows = rows_to_score(requests, answers, local.tokenizer)
    assert [row.ids.tolist() for row in rows] == wanted
    assert all(row.last_answer.tolist() == local.tokenizer.encode([f"{a}<|im_end|>"])[0]
               for row, a in zip(rows, answers, strict=True))
    assert len(rendered) <= len(asked) + len(labels) + PAIRS_TRIED


def test_answers_to_one_request_are_scored_together_within_the_budget(local: Local) -> None:
    answers = [f"label {i}" for i in range(12)]
    wanted = [local.score([request], [answer])[0].total for request in (ASK, Request((Message("user", "What?"),)))
              for answer in answers]
    small = local.beside("small", None)
    small.token_budget = 60
    requests = [ASK] * 12 + [Request((Message("user", "What?"),))] * 12
    assert [s.total for s in small.score(requests, answers * 2)] == pytest.approx(wanted, abs=1e-4)


def test_scores_of_plain_texts(local: Local) -> None:
    texts = ["The plot is thin, the jokes are old.", "negative"]
    for text, scored in zip(texts, local.score_texts(texts), strict=True):
        ids = local.tokenizer.encode([text])[0]
        with torch.no_grad():
            logprobs = local.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        assert scored.total == pytest.approx(sum(float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))), abs=1e-4)
        assert scored.tokens == len(ids) - 1
    with pytest.raises(UserError, match="one token"):
        local.score_texts(["a"])


def test_a_completion_is_told_apart_by_what_it_says() -> None:
    assert Completion("a", (1,), True, (-1.0,), seconds=1) == Completion("a", (1,), True, (-2.0,), seconds=2)
    assert Completion("a", (1,), True) != Completion("b", (1,), True)


def test_the_folder_of_a_base_is_no_secret(tmp_path: Path) -> None:
    local = Local(load_model(tiny_base(tmp_path), dtype=torch.float32), ChatTokenizer(tmp_path), name="mine")
    other = local.beside("bare", None, "hash")
    assert (local.name, local.identity, other.name, other.identity) == ("mine", "mine", "bare", "hash")
    assert other.engine is local.engine
