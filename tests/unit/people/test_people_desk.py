"""What one person sees and what is kept of it, without a page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from judging import clicks, desk, goodness, in_memory, is_nonsense, judge_all, knows, store, work

from tuneloop.errors import UserError
from tuneloop.people.desk import KEYS, Desk, Ranking, key_of, nonsense
from tuneloop.people.items import AGAIN, NONSENSE, Verdict, better, equal
from tuneloop.people.store import Said


def test_everything_is_judged_once(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 20), in_memory()
    at = desk(of, kept)
    done = judge_all(at)
    assert at.showing is None
    assert at.progress().done == at.progress().total == 60
    assert {said.item for said in kept.standing("ann") if not said.check} == {item.id for item in of.items}
    assert done == 60 + 6       # one test of attention for ten items


def test_nobody_learns_whose_answer_it_is_and_sides_are_mixed(tmp_path: Path) -> None:
    of = work(tmp_path, 60, checks=0)
    at, first = desk(of, in_memory()), Counter[str]()
    while at.showing is not None:
        first[of.questions[at.showing.item.question].models[at.showing.answers[0]]] += 1
        at.judge(at.showing.nonce, knows(at.showing))
    assert 0.25 < first["base"] / 180 < 0.42        # a third of the answers are the base's


def test_two_people_see_the_same_items_in_orders_of_their_own(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 40, checks=0), in_memory()
    shown = []
    for name in ("ann", "bob"):
        judge_all(desk(of, kept, name))
        shown.append({said.item: said.shown for said in kept.standing(name)})
    assert shown[0].keys() == shown[1].keys()
    assert 30 < sum(shown[0][item] == shown[1][item] for item in shown[0]) < 90


def test_who_comes_back_goes_on_where_they_stopped(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 20), store(tmp_path)
    at = desk(of, kept)
    judge_all(at, most=25)
    seen = at.showing
    again = desk(of, store(tmp_path))
    assert seen is not None
    assert again.showing is not None
    assert (again.showing.item, again.showing.answers) == (seen.item, seen.answers)
    assert again.showing.nonce != seen.nonce
    judge_all(again)
    assert len(kept.all()) == 66


def test_an_old_showing_and_a_double_press_are_nothing(tmp_path: Path) -> None:
    clock = [100.0]
    at = Desk(work(tmp_path, 5), kept := in_memory(), "ann", clock=lambda: clock[0])
    assert at.showing
    first = at.showing
    assert not at.judge(first.nonce, knows(first))          # nobody reads so fast
    clock[0] += 3
    assert at.judge(first.nonce, knows(first))
    assert not at.judge(first.nonce, knows(first))          # sent twice
    assert not at.judge(at.showing.nonce, knows(at.showing))        # the second half of a double press
    assert [said.seconds for said in kept.all()] == [3.0]


def test_undo_shows_the_item_again_as_it_was(tmp_path: Path) -> None:
    at = desk(work(tmp_path, 5, checks=0), kept := in_memory())
    judge_all(at, most=3)
    before = kept.history("ann")[-1]
    gone = at.undo()
    assert gone == before
    assert at.showing
    assert (at.showing.item.id, at.showing.answers) == (before.item, before.shown)
    assert at.progress().done == 2
    assert at.judge(at.showing.nonce, equal(at.showing.answers))
    last = kept.last("ann", before.item)
    assert last
    assert last.verdict == equal(before.shown)
    for _ in range(3):
        assert at.undo()
    assert at.undo() is None
    assert at.progress().done == 0


def test_skipped_items_come_at_the_end(tmp_path: Path) -> None:
    at = desk(work(tmp_path, 4, checks=0), kept := in_memory())
    assert at.showing
    put_off = at.showing.item
    at.skip()
    assert at.showing.item != put_off
    assert at.progress().later == 1
    judge_all(at, most=11)
    assert at.showing.item == put_off
    at.skip()                       # the only one that is left
    assert at.showing.item == put_off
    judge_all(at)
    assert len(kept.standing("ann")) == 12
    assert at.progress().later == 0


def test_comments_and_edits_are_kept(tmp_path: Path) -> None:
    at = desk(work(tmp_path, 4, checks=0), kept := in_memory())
    assert at.showing
    showing, text = at.showing, "As it should be."
    assert not at.edit(1, showing.texts[1])         # unchanged
    assert not at.edit(1, "  ")
    assert at.edit(1, text)
    assert not at.edit(1, text)                     # twice
    assert at.draft(1) == text
    assert at.showing is showing
    assert at.judge(showing.nonce, better(showing.answers, 0), "  because ")
    verdict, edit = (next(said for said in kept.standing("ann") if said.kind == kind) for kind in ("verdict", "edit"))
    assert verdict.comment == "because"
    assert edit.value == {"answer": showing.answers[1], "text": text}
    assert at.progress().done == 1


def test_others_need_not_judge_what_is_not_shared(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 20, checks=0, shared=0.2), in_memory()
    ann, bob = desk(of, kept, "ann"), desk(of, kept, "bob")
    while ann.showing or bob.showing:
        for at in (ann, bob):
            judge_all(at, most=1)
    both = Counter(said.item for said in kept.standing())
    assert both.keys() == {item.id for item in of.items}
    assert all(both[item.id] == 2 for item in of.items[:12])
    assert sum(both.values()) <= 60 + 12 + 12       # now and then both look at one item at the same time
    assert ann.progress().done == ann.progress().total


@pytest.mark.parametrize("ask", ["compare", "order", "thumbs", "stars"])
def test_attention_is_tested(tmp_path: Path, ask: str) -> None:
    of, kept = work(tmp_path, 200 if ask == "order" else 70, ask), in_memory()     # type: ignore[arg-type]
    judge_all(desk(of, kept))
    tests = [said for said in kept.standing("ann") if said.check]
    assert len(tests) == len(of.items) // 10
    assert {said.check for said in tests} == ({AGAIN} if ask == "order" else {AGAIN, NONSENSE})
    first = {said.item: said for said in kept.standing("ann")}
    for said in tests:
        if said.check == AGAIN:
            assert said.shown == first[said.item.removesuffix(AGAIN)].shown[::-1]
        else:
            assert is_nonsense(said.as_item)


def test_a_test_of_attention_can_be_put_off_like_anything(tmp_path: Path) -> None:
    at = desk(work(tmp_path, 20), in_memory())
    judge_all(at, most=10)
    assert at.showing
    assert at.showing.item.check
    at.skip()
    assert not at.showing.item.check
    judge_all(at, most=9)
    assert not at.showing.item.check


def test_nonsense_is_a_sentence_of_its_own_for_every_question() -> None:
    found = {nonsense(f"{i:016x}") for i in range(200)}
    assert len(found) > 195
    assert all(len(text.split()) == 12 and text.isascii() and goodness(text) == 0 for text in found)


@pytest.mark.parametrize("name", ["", "   ", "a\x00b", "x" * 61])
def test_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no name of an annotator"):
        desk(work(tmp_path, 2), in_memory(), name)


def test_a_models_name_is_taken(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 2), in_memory()
    item = of.items[0]
    kept.add(Said(item.id, "gpt", "n", item.ask, item.question, item.answers, equal(item.answers).to_json(),
                  source="model"))
    with pytest.raises(UserError, match="name of a model"):
        desk(of, kept, "gpt")


def test_what_the_file_holds_no_more_does_not_count_as_done(tmp_path: Path) -> None:
    kept = in_memory()
    judge_all(desk(work(tmp_path, 6, checks=0), kept))
    fewer = desk(work(tmp_path, 4, checks=0), kept)
    assert (fewer.progress().done, fewer.progress().total) == (12, 12)
    more = desk(work(tmp_path, 8, checks=0), kept)
    assert (more.progress().done, more.progress().total) == (18, 24)


@pytest.mark.parametrize(("option", "value"), [("checks", 0.9), ("checks", -0.1), ("shared", 1.2)])
def test_shares_are_shares(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{option} is"):
        work(tmp_path, 2, **{option: value})


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_mean_what_their_buttons_say() -> None:
    shown = ("a", "b")
    said = {key: found.verdict(shown) for key in ("1", "2", "t", "T", "b", "ArrowLeft") if (
        found := key_of("compare", key))}
    assert said["1"] == said["ArrowLeft"] == Verdict((("a",), ("b",)))
    assert said["2"] == Verdict((("b",), ("a",)))
    assert said["t"] == said["T"] == Verdict((("a", "b"),))
    assert said["b"] == Verdict((("a", "b"),), frozenset("ab"))
    assert key_of("compare", "7") is None
    assert [key.verdict(("a",)).stars for key in KEYS["stars"]] == [1, 2, 3, 4, 5]
    assert [key.verdict(("a",)).liked for key in KEYS["thumbs"]] == [True, False]


@pytest.mark.parametrize(("typed", "groups"), [
    ("312", "c a b"), ("31", "c a b"), ("3=12", "ca b"), ("3t1", "ca b"), ("33 x9", None), ("", None),
    ("31<2", "c b a"), ("1=2<3", "a c b"), ("1=2=3", "abc"), ("=1=<23", "a b c")])
def test_an_order_is_typed(typed: str, groups: str | None) -> None:
    ranking = Ranking()
    for key in typed:
        ranking = ranking.press("Backspace" if key == "<" else key, 3)
    found = ranking.verdict(("a", "b", "c"))
    assert (found and " ".join("".join(group) for group in found.groups)) == groups


def test_a_verdict_comes_back_from_json() -> None:
    for verdict in (Verdict((("a",), ("b", "c")), frozenset("c")), Verdict(liked=False), Verdict(stars=3)):
        assert Verdict.from_json(verdict.to_json()) == verdict


def test_random_hands_are_random(tmp_path: Path) -> None:
    import random

    kept = in_memory()
    judge_all(desk(work(tmp_path, 40, checks=0), kept), clicks(random.Random(0)))
    places = Counter(said.verdict.place(said.shown) for said in kept.standing("ann"))
    assert all(15 < places[key] < 48 for key in ("0", "1", "tie", "bad"))
