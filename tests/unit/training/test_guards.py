"""Signs that a policy goes wrong: each is seen where it is there, and not where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.training.guards import Look, exploded, grew, hacked, settled


def rounds(count: int, **entry: Any) -> list[dict[str, Any]]:
    return [{"kl": 0.1, "alike": 0.2, "reward_mean": 0.5, "entropy": 2.0} | entry for _ in range(count)]


def look(step: int, reward: float, training: float, *, judged: float | None = None, tokens: float = 20) -> Look:
    """32 answers whose scores scatter by 0.1 around the mean."""
    def around(mean: float) -> list[float]:
        return [mean + 0.1 * (-1) ** i for i in range(32)]
    return Look(step, around(reward), None if judged is None else around(judged), tokens, training)


def test_a_divergence_counts_when_two_rounds_show_it() -> None:
    assert exploded([*rounds(3), *rounds(2, kl=6.0)], 5.0)
    assert not exploded([*rounds(3, kl=6.0), *rounds(1), *rounds(1, kl=6.0)], 5.0)
    assert not exploded(rounds(3, kl=None), 5.0)            # no reference was asked


@pytest.mark.parametrize(("entropy", "told"), [(0.01, "says one thing only"), (1.9, "nothing is left to learn")])
def test_answers_that_are_all_alike_end_it(entropy: float, told: str) -> None:
    assert told in settled([*rounds(5), *rounds(5, alike=1.0, entropy=entropy)])
    assert not settled([*rounds(6), *rounds(4, alike=1.0)])


def test_a_reward_that_is_gamed_is_found_by_who_does_not_train_it() -> None:
    fair = [look(1, 0.5, 0.5, judged=0.5), look(2, 0.6, 0.6, judged=0.6)]
    assert not hacked([*fair, look(3, 0.7, 0.7, judged=0.7), look(4, 0.8, 0.8, judged=0.7)])
    found = hacked([*fair, look(3, 0.7, 0.7, judged=0.4), look(4, 0.8, 0.8, judged=0.3)])
    assert "rose from 0.600 to 0.800" in found
    assert "from 0.600 (step 2) to 0.300" in found
    assert not hacked([*fair, look(3, 0.7, 0.7, judged=0.4), look(4, 0.8, 0.8, judged=0.6)])    # one look is chance


def test_without_a_judge_held_out_prompts_tell() -> None:
    assert hacked([look(1, 0.6, 0.5), look(2, 0.3, 0.7), look(3, 0.3, 0.9)])
    assert not hacked([look(1, 0.6, 0.5), look(2, 0.3, 0.4), look(3, 0.3, 0.3)])                # it fails, openly


def test_longer_answers_are_warned_of_where_they_pay() -> None:
    assert "from 20 to 50 tokens" in grew([look(1, 0.5, 0.5), look(2, 0.6, 0.7, tokens=50)])
    assert not grew([look(1, 0.5, 0.5), look(2, 0.6, 0.4, tokens=50)])
    assert not grew([look(1, 0.5, 0.5), look(2, 0.6, 0.7, tokens=30)])
