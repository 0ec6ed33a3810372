"""The checks on labels, agreement, balance and consistency take whatever rows there are, and tell plain JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneloop.data.checks.base import Chunk
from tuneloop.data.examine import CHECKS
from tuneloop.types import Conversation, Message, Origin, Preference, Prompt, Ranked, Rated, Rollout, Sample, Text

NAMES = ("agreement", "balance", "consistency", "contradictions", "diversity", "enough", "mislabelled", "surprising")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(
    ["yes", "no", "Yes ", "{}", "[", '{"a": 1}', "Answer: 1", "12 km", "\n", "- a\n- b", "东京", ""])
PARTS = st.sampled_from(["train", "validation", "test", "evaluation"])
CELLS = st.none() | st.integers() | TEXTS | st.lists(TEXTS, max_size=3) | st.dictionaries(TEXTS, TEXTS, max_size=2)
VALUES = st.dictionaries(st.sampled_from(["annotation_1", "annotation_2", "annotations", "annotators", "worker_id",
                                          "source", "label", "rating_1", "rating_2", "text"]), CELLS)


@st.composite
def samples(draw: st.DrawFn, line: int) -> Sample:
    asked, said, other, at = (Message("user", draw(TEXTS)),), draw(TEXTS), draw(TEXTS), Origin("rows.jsonl", line)
    return draw(st.sampled_from([
        Conversation((*asked, Message("assistant", said)), at), Preference(asked, said, other, at),
        Rated(asked, said, bool(line % 2), at), Rollout(asked, (said, other), (0.0, 1.0), at),
        Ranked(asked, (said, other), at), Prompt(asked, (said,), at), Prompt(asked, (), at), Text(said, at)]))


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    count = draw(st.integers(0, 12))
    rows = [draw(samples(line)) for line in range(1, count + 1)] * draw(st.sampled_from([1, 1, 12]))
    values: list[dict[str, Any]] = [draw(VALUES) for _ in range(count)] * (len(rows) // max(count, 1))
    return Chunk(draw(PARTS), [row.origin for row in rows], rows, values)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(chunks(), max_size=3))
def test_whatever_the_rows_are(seen: list[Chunk]) -> None:
    for name in NAMES:
        check = CHECKS.get(name)()
        for chunk in seen:
            check.see(chunk)
        for finding in check.findings():
            assert finding.check == name
            assert finding.what
            assert finding.fix or name == "agreement"
            json.dumps(finding.to_json(), allow_nan=False)
        json.dumps(check.facts(), allow_nan=False)
