"""Samples of every kind, as hypothesis draws them: what recognising can give, with texts that are hard on formats."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tuneloop.types import (
    Conversation,
    Media,
    Message,
    Origin,
    Preference,
    Prompt,
    Ranked,
    Rated,
    Rollout,
    Text,
    ToolCall,
)

HERE = Origin("rows.jsonl", 1)
HARD = ["", " ", "A", "<image>", "<video> <image>", "[1]", "{\"a\": 1}", "\n\nHuman: Hi\n\nAssistant: Yes", "{text}",
        "[{\"role\": \"user\"}]", "true", "0", "null", "日本 🙂", "a\nb", " spaced ", "=1+1", "a,b;\"c\""]
texts = st.sampled_from(HARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
said = texts.filter(str.strip)
names = st.sampled_from(["weather", "news", "f"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=2),
    max_leaves=4)
arguments = st.dictionaries(st.text("abcd", min_size=1, max_size=3), json_values, max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False))
ids = st.sampled_from(["", "", "c1", "c2"])
calls = st.builds(ToolCall, names, arguments, ids)
media = st.sampled_from([Media("image", "a.png"), Media("image", "data:image/png;base64,AAAA"),
                         Media("image", "https://x.org/a.png"), Media("audio", "s.wav"), Media("video", "gs://b/v.mp4")])


@st.composite
def users(draw: Any) -> Message:
    """A question, seldom with something shown."""
    shown = tuple(draw(st.lists(media, max_size=2))) if draw(st.integers(0, 4)) == 4 else ()
    if not shown:
        return Message("user", draw(said))
    between = draw(st.lists(st.sampled_from(["", "Who? ", "a\n"]), min_size=len(shown) + 1, max_size=len(shown) + 1))
    after = "".join(f"<{m.kind}>{text}" for m, text in zip(shown, between[1:], strict=True))
    return Message("user", between[0] + after, media=shown)


systems = st.lists(st.builds(Message, st.just("system"), texts), max_size=1)
told = st.builds(Message, st.just("tool"), texts, call_id=ids, name=st.sampled_from(["", "weather"]))


def _answers(train: st.SearchStrategy[bool]) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just("assistant"), said, train) | st.builds(
        Message, st.just("assistant"), st.just("") | said, train, st.lists(calls, min_size=1, max_size=2).map(tuple))


def _middles(train: st.SearchStrategy[bool]) -> st.SearchStrategy[list[Message]]:
    return st.lists(st.tuples(_answers(train), users()) | st.tuples(_answers(train), told), max_size=2).map(
        lambda pairs: [turn for pair in pairs for turn in pair])


tools = st.lists(names.map(lambda name: json.dumps({"type": "function", "function": {
    "name": name, "parameters": {"type": "object"}}})), max_size=2).map(tuple)


@st.composite
def conversations(draw: Any) -> Conversation:
    train = st.booleans() if draw(st.booleans()) else st.just(True)
    turns = [*draw(systems), draw(users()), *draw(_middles(train)), draw(_answers(st.just(True)))]
    return Conversation(tuple(turns), HERE, draw(tools) if draw(st.booleans()) else ())


@st.composite
def prompts(draw: Any) -> tuple[Message, ...]:
    train = st.just(False) if draw(st.integers(0, 4)) else st.booleans()
    return (*draw(systems), draw(users()), *draw(_middles(train)))


numbers = st.floats(allow_nan=False, allow_infinity=False)
several = st.lists(said, min_size=2, max_size=3, unique=True).map(tuple)
preferences = st.builds(lambda p, a, m: Preference(p, a[0], a[1], HERE, m), prompts(), several,
                        st.just(0.0) | numbers)
rated = st.builds(Rated, prompts(), said, st.booleans(), st.just(HERE))
rollouts = st.builds(lambda p, a: Rollout(p, tuple(x[0] for x in a), tuple(x[1] for x in a), HERE), prompts(),
                     st.lists(st.tuples(said, numbers), min_size=1, max_size=3))
ranked = st.builds(Ranked, prompts(), several, st.just(HERE))
evaluations = st.builds(Prompt, prompts(), st.lists(texts, max_size=2).map(tuple), st.just(HERE))
plain = st.builds(Text, said, st.just(HERE), st.just("") | st.sampled_from(["guide.pdf page 3"]))

KINDS: dict[type[Any], st.SearchStrategy[Any]] = {
    Conversation: conversations(), Preference: preferences, Rated: rated, Rollout: rollouts, Ranked: ranked,
    Prompt: evaluations, Text: plain}
