"""What answers cost, by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tuneloop.evaluation.cost import Price, Spent, cost

SPENT = Spent(12.0, [1.0, 2.0, 3.0, 5.0], [100, 300, 200, 200], [10, 30, 20, 20])


def test_latency_and_tokens() -> None:
    found = cost(SPENT, 4, 3.0)
    assert found.p50_seconds == 2.5                             # half way between the second and the third
    assert found.p95_seconds == pytest.approx(3 + 0.85 * 2)     # place 0.95 * 3 = 2.85 of four sorted values
    assert (found.prompt_tokens_per_answer, found.new_tokens_per_answer) == (200, 20)


def test_without_a_price_there_are_seconds_and_no_money() -> None:
    found = cost(SPENT, 4, 3.0)
    assert (found.machine_seconds_per_1000, found.machine_seconds_per_1000_correct) == (3000, 4000)
    assert (found.usd_per_1000, found.usd_per_1000_correct) == (None, None)


def test_a_machine_by_the_hour() -> None:
    found = cost(SPENT, 4, 3.0, Price(machine_usd_per_hour=1.2))        # 12 s are 0.4 cents
    assert found.usd_per_1000 == pytest.approx(1.0)
    assert found.usd_per_1000_correct == pytest.approx(4 / 3)


def test_tokens_by_the_million() -> None:
    price = Price(prompt_usd_per_million=0.5, answer_usd_per_million=2.0)
    found = cost(SPENT, 4, 2.0, price)          # 800 tokens for 0.0004, and 80 for 0.00016
    assert found.usd_per_1000 == pytest.approx(0.14)
    assert found.usd_per_1000_correct == pytest.approx(0.28)
    assert cost(Spent(12.0), 4, 2.0, price).usd_per_1000 is None        # nobody counted the tokens


def test_nothing_right_has_no_price() -> None:
    found = cost(SPENT, 4, 0.0, Price(machine_usd_per_hour=1.0))
    assert found.usd_per_1000 is not None
    assert (found.usd_per_1000_correct, found.machine_seconds_per_1000_correct) == (None, None)


def test_labels_that_were_chosen_have_no_latency_of_their_own() -> None:
    found = cost(Spent(2.0), 4, 4.0)
    assert (found.p50_seconds, found.p95_seconds, found.new_tokens_per_answer) == (None, None, None)
    assert found.to_json()["machine_seconds_per_1000"] == 500


@pytest.mark.parametrize("half", [
    {"prompt_usd_per_million": 1.0}, {"answer_usd_per_million": 1.0}, {"machine_usd_per_hour": -1.0},
    {"prompt_usd_per_million": 1.0, "answer_usd_per_million": 1.0, "machine_usd_per_hour": 1.0}])
def test_prices_that_make_no_sense(half: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Price(**half)
